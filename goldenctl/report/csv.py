"""A report as CSV: one row for each tensor, all of its scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import msgspec

from goldenctl.errors import printable
from goldenctl.records.metrics import LogitMetrics, Metrics
from goldenctl.records.report import Report, TensorResult
from goldenctl.records.trials import Selftest
from goldenctl.records.words import labels_of

_TENSOR = (
    "name", "sublayer", "tap", "op", "state", "rule", "share", "dtype", "actual_dtype", "shape",
    "worst", "message", "note", "expected_ns", "actual_ns", "padding_rows", "not_judged_rows",
)  # fmt: skip
_METRICS = Metrics.__struct_fields__
_LOGITS = LogitMetrics.__struct_fields__
_OF_RUN = ("simulated", "faults")
_HEADER = (*_TENSOR, "ok", *_METRICS, *(f"logits_{name}" for name in _LOGITS), *_OF_RUN)
_CHECK = ("golden", "step", "state", "judged_by", "share", "said")
_TRIAL = ("fault", "place", "op", "effect", "visible", "caught", "named", "causes", "held_out")


def render(report: Report) -> str:
    """Return the CSV (RFC 4180, header first); a selftest's has a row for each trial,
    a check's one for each step."""
    file = io.StringIO()
    writer = csv.writer(file)
    if report.selftest is not None:
        writer.writerow(_TRIAL)
        writer.writerows(_trials(report.selftest))
    elif report.checks:
        writer.writerow(_CHECK)
        writer.writerows([_cell(getattr(step, name)) for name in _CHECK] for step in report.checks)
    else:
        writer.writerow(_HEADER)
        writer.writerows(_row(report, tensor) for tensor in report.tensors)
    return file.getvalue()


def render_matrix(reports: Sequence[Report]) -> str:
    """Return the rows of several reports one after another, the run's label in front."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["run", *_HEADER])
    for label, report in zip(labels_of(reports), reports, strict=True):
        writer.writerows([_cell(label), *_row(report, tensor)] for tensor in report.tensors)
    return file.getvalue()


def _row(report: Report, tensor: TensorResult) -> list[object]:
    row = [_cell(getattr(tensor, name)) for name in _TENSOR]
    row.append(_cell(tensor.ok))
    for struct, names in ((tensor.metrics, _METRICS), (tensor.logits, _LOGITS)):
        row += [_cell(getattr(struct, name)) if struct is not None else "" for name in names]
    return row + [_cell(getattr(report, name)) for name in _OF_RUN]


def _trials(result: Selftest) -> Iterator[list[object]]:
    for trial in result.trials:
        yield [_cell(getattr(trial, name)) for name in _TRIAL]


def _cell(value: object) -> object:
    """One cell; text that a spreadsheet would take for a formula is quoted."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    if not isinstance(value, str):
        return msgspec.to_builtins(value)
    text = printable(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
