"""The simulated backend: the golden's own tensors with stated noise, no engine at all.

For demonstrations and for tests of what comes after a replay. All it yields is marked.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from goldenctl.dtypes import DTYPES
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.writer import GoldenWriter
from goldenctl.places import plain_name


def simulate(golden: GoldenFile, writer: GoldenWriter, *, noise: float, seed: int) -> None:
    """Write each of the run's tensors as the golden's, times ``1 + noise * N(0, 1)``.

    ``noise`` is relative and drawn per element from PCG64 by ``seed`` and the tensor's place;
    an embedding has none, being a copy.
    """
    for order, (name, spec) in enumerate(writer.tensors.items()):
        expected = golden.verify(plain_name(name)).astype(np.float64)
        generator = np.random.Generator(np.random.PCG64([seed, order]))
        relative = 0.0 if spec.op == "embedding" else noise
        noisy = expected * (1.0 + relative * generator.standard_normal(expected.shape))
        dtype = DTYPES[spec.dtype]
        bits = np.ascontiguousarray(noisy.astype(dtype.numpy)).view(f"u{dtype.itemsize}")
        writer.write(name, memoryview(bits.tobytes()))


def describe(noise: float, seed: int) -> Mapping[str, object]:
    """What the run's recipe says of this backend."""
    return {"name": "simulated", "noise": noise, "seed": seed}
