"""The metrics of a tensor as people read them: one list, of which every view takes its columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from goldenctl.records.metrics import LogitMetrics, Metrics
from goldenctl.records.words import percent


@dataclass(frozen=True)
class Measure:
    """A metric's title, its number (None where there is none), and how it is written."""

    title: str
    number: Callable[[Metrics], float | None]
    write: Callable[[float], str]
    of_one_element: bool = False

    def said(self, metrics: Metrics | None) -> str:
        """Return the cell of a tensor; a dash where nothing was measured, NaN where the other
        elements' numbers would look fine beside a NaN or Inf on one side."""
        value = self._value(metrics)
        return "-" if value is None else "NaN" if math.isnan(value) else self.write(value)

    def sorts_by(self, metrics: Metrics | None) -> float:
        """Return the number that orders cells; -1 where nothing was measured."""
        value = self._value(metrics)
        return -1.0 if value is None else math.inf if math.isnan(value) else value

    def _value(self, metrics: Metrics | None) -> float | None:
        lost = metrics is not None and metrics.mismatches and not self.of_one_element
        return math.nan if lost else None if metrics is None else self.number(metrics)


def _ulp(value: float) -> str:
    return f"{int(value):,}" if value < 1e9 else "huge"


def _decibels(value: float) -> str:
    return "equal" if value == math.inf else f"{value:.1f}"


MAX_ULP = Measure("max ULP", lambda m: float(m.max_ulp), _ulp)
REL_L2 = Measure("rel L2", lambda m: m.rel_l2, "{:.1e}".format)
COSINE = Measure("cosine", lambda m: m.cosine, "{:.6f}".format)
# What a table of every tensor shows, in this order.
MEASURES = (
    REL_L2,
    COSINE,
    Measure("SQNR dB", lambda m: m.sqnr_db, _decibels),
    MAX_ULP,
    Measure("max error", lambda m: m.max_abs_error, "{:.2e}".format),
    Measure(
        "expected", lambda m: m.worst_expected, "{:.6g}".format, True
    ),  # where the error is largest
    Measure("actual", lambda m: m.worst_actual, "{:.6g}".format, True),
)

# What of it a narrow terminal has room for.
BRIEF = (REL_L2, COSINE, MAX_ULP)


def at_worst(metrics: Metrics | None) -> str:
    """Say what was expected and what came where the error is largest; empty without an error."""
    if metrics is None or metrics.worst_expected is None or metrics.worst_actual is None:
        return ""
    return f"largest error: expected {metrics.worst_expected:.6g}, got {metrics.worst_actual:.6g}"


def of_logits(logits: LogitMetrics) -> str:
    """Say in one line what the logits would make a sampler do."""
    return (
        f"the most likely token is the same in {percent(logits.top1_agreement)} of rows, "
        f"KL divergence {logits.mean_kl:.1e} nats on average, {logits.max_kl:.1e} at most"
    )
