"""The usual gates of the field, written from their published rules, for comparison.

Each takes the backend's result a, the recorded result e and the truth o, as float64, and
the recorded dtype; it returns whether it lets a pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Gate = Callable[[Values, Values, Values, str], bool]

# torch.testing.assert_close's documented defaults: (rtol, atol).
_ASSERT_CLOSE = {
    "float32": (1.3e-6, 1e-5),
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float64": (1e-7, 1e-7),
}


def _cosine(a: Values, e: Values) -> float:
    return float(np.vdot(a, e) / (np.linalg.norm(a) * np.linalg.norm(e)))


def _pcc(a: Values, e: Values) -> float:
    return _cosine(a - a.mean(), e - e.mean())


def _nmse(a: Values, e: Values) -> float:
    return float(np.sum((a - e) ** 2) / np.sum(e**2))


def _rms(a: Values, e: Values) -> float:
    """Root mean square error over the largest magnitude of either (MIGraphX's verify)."""
    largest = max(float(np.abs(a).max()), float(np.abs(e).max()))
    return float(np.sqrt(np.mean((a - e) ** 2)) / largest)


def _dot_difference(a: Values, e: Values) -> float:
    """1 - 2 a·e / (||a||² + ||e||²), the relative difference of SGLang's comparator."""
    return float(1 - 2 * np.vdot(a, e) / (np.vdot(a, a) + np.vdot(e, e)))


def _flash_attention(a: Values, e: Values, o: Values, _dtype: str) -> bool:
    """At most twice the error of the framework's own result, plus 1e-5."""
    return bool(np.abs(a - o).max() <= 2 * np.abs(e - o).max() + 1e-5)


def _neuron(a: Values, e: Values, o: Values, _dtype: str) -> bool:
    """The ratio of the two errors from the truth is at most 1.5 (mean and maximum)."""
    mine, own = np.abs(a - o), np.abs(e - o)
    return bool(mine.mean() <= 1.5 * own.mean() and mine.max() <= 1.5 * own.max())


def _assert_close(a: Values, e: Values, _o: Values, dtype: str) -> bool:
    rtol, atol = _ASSERT_CLOSE[dtype]
    return bool(np.all(np.abs(a - e) <= atol + rtol * np.abs(e)))


def _limit(measure: Callable[[Values, Values], float], limit: float, *, least: bool) -> Gate:
    def gate(a: Values, e: Values, _o: Values, _dtype: str) -> bool:
        value = measure(a, e)
        return value >= limit if least else value <= limit

    return gate


GATES: dict[str, Gate] = {
    "cosine >= 0.99": _limit(_cosine, 0.99, least=True),
    "cosine >= 0.997": _limit(_cosine, 0.997, least=True),
    "PCC >= 0.99": _limit(_pcc, 0.99, least=True),
    "NMSE <= 1e-3": _limit(_nmse, 1e-3, least=False),
    "rms <= 1e-3": _limit(_rms, 1e-3, least=False),
    "SGLang rel <= 1e-3": _limit(_dot_difference, 1e-3, least=False),
    "FlashAttention 2x": _flash_attention,
    "Neuron 1.5x": _neuron,
    "assert_close": _assert_close,
}


def passes(gate: Gate, a: NDArray[Any], e: NDArray[Any], o: NDArray[Any], dtype: str) -> bool:
    """Ask a gate, NaN and division by zero as its formula has them (a NaN never passes)."""
    with np.errstate(all="ignore"):
        a, e, o = (x.astype(np.float64).ravel() for x in (a, e, o))
        return bool(gate(a, e, o, dtype))
