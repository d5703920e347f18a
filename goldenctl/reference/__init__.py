"""The PyTorch reference. Importing it imports torch, with OpenMP threads that sleep.

A recording writes and hashes in a thread of its own. OpenMP's threads, which by default
spin between two ops, would fight it for the cores: on two cores that took twice the
processor time and two to three times as long. A wish in the environment goes first.
"""

import os

_OURS = "OMP_WAIT_POLICY" not in os.environ
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import torch as _torch  # noqa: E402, F401  (OpenMP reads the environment when it is loaded)

if _OURS:  # not for the processes that we start
    del os.environ["OMP_WAIT_POLICY"]
