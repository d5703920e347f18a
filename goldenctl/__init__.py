"""Record-and-replay golden tensors: find the op that a port of a transformer gets wrong.

What to import: ``open`` reads goldens and runs, ``capture`` writes what a PyTorch model yields.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goldenctl.golden.lazy import open as open
    from goldenctl.reference.capture import capture as capture

__version__ = "0.2.0"

_OFFERED = {"capture": "goldenctl.reference.capture", "open": "goldenctl.golden.lazy"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``capture`` alone needs torch."""
    if name not in _OFFERED:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    if name == "capture":
        from goldenctl.errors import require_torch

        require_torch("goldenctl.capture")
    return getattr(import_module(_OFFERED[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_OFFERED])
