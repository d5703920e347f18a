"""Metrics of a tensor, and of logits, as a report stores them."""

from __future__ import annotations

import msgspec


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far ``actual`` is from ``expected``: a and e below, sums over compared positions.

    Empty, or nothing finite in common: ``compared`` is 0, ``cosine`` and ``rel_l2`` are NaN,
    other numbers 0. Expected all zero: ``rel_l2`` is 0 when actual is zero too, else Inf.
    """

    count: int
    """Elements of the tensor."""
    compared: int
    """Positions that are finite on both sides."""
    cosine: float
    """a·e / (||a|| ||e||), within [-1, 1]; 1 when both are zero, NaN when one is."""
    mse: float
    """Σ(a-e)² / n."""
    rel_l2: float
    """||a-e|| / ||e|| (Higham, Accuracy and Stability of Numerical Algorithms, ch. 6)."""
    max_abs_error: float
    """max |a-e|."""
    mean_abs_error: float
    """Σ|a-e| / n."""
    max_ulp: int
    """Most representable values between a and e in e's type; a is rounded to that type
    first, ±0 are one value (B. Dawson, Comparing Floating Point Numbers, 2012)."""
    sqnr_db: float
    """10 log10(Σe² / Σ(a-e)²): signal to quantization noise; Inf when equal."""
    outside: int
    """Positions where |a-e| <= atol + rtol |e| does not hold, or where the classes differ."""
    outside_fraction: float
    """``outside`` over ``count``."""
    atol: float
    rtol: float
    worst_index: int | None
    """First flat index of ``max_abs_error``; None when all are equal."""
    worst_actual: float | None
    worst_expected: float | None
    mismatches: int
    """Positions where one of finite, NaN, +Inf, -Inf stands against another."""
    first_mismatch: int | None
    nan_actual: int
    nan_expected: int
    inf_actual: int
    inf_expected: int
    norm_actual: float
    """Euclidean norm, as is ``norm_expected``."""
    norm_expected: float
    max_expected: float
    """max |e|."""
    rms_expected: float
    """||e|| / sqrt(n)."""


class LogitMetrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the logits of two models would make a sampler do, per row (one token's logits)."""

    rows: int
    top1_agreement: float
    """Share of rows where expected's first argmax is (one of) actual's largest."""
    mean_kl: float
    """Mean over rows of KL(softmax(expected) || softmax(actual)), in nats."""
    max_kl: float
