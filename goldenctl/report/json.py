"""A report as JSON (docs/report-schema.md): written, read again, judged again.

Beside the report's own fields stand those of the program that this tool grew from, so that
its readers go on working. Numbers that are not finite are the strings NaN, Inf and -Inf.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from goldenctl.digests import modern
from goldenctl.errors import DamagedError, UsageError, why_no_file
from goldenctl.golden.file import kind_of
from goldenctl.records.checks import CheckStep
from goldenctl.records.findings import Cause, Depth
from goldenctl.records.metrics import LogitMetrics, Metrics
from goldenctl.records.pictures import Extreme, Histogram, Picture, Strip
from goldenctl.records.policy import Check
from goldenctl.records.report import (
    PASSED,
    READABLE_VERSIONS,
    REPORT_VERSION,
    Report,
    SublayerResult,
    TensorResult,
)
from goldenctl.records.trials import Trial
from goldenctl.records.uncompared import uncompared
from goldenctl.records.words import labels_of

_LEGACY = (
    "model_path",
    "test_input",
    "overall_success",
    "total_layers_tested",
    "layers_passed",
    "layers_failed",
    "layer_results",
)
_NON_FINITE = {"NaN": math.nan, "Inf": math.inf, "-Inf": -math.inf}
# A line break cannot stand inside a JSON string, so this finds arrays alone.
_NUMBERS_ONLY = re.compile(r"\[\n[-+\d.eE,\s]+\]")
_LIMIT_BYTES = 512 << 20


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as plain data, ready for ``json.dumps``."""
    body = msgspec.to_builtins(report)
    first = report.first_wrong
    data = {
        "report_version": REPORT_VERSION,
        "ok": report.ok,
        "first_wrong": first.name if first else None,
        "not_compared": uncompared(report),
        "command": report.command,
        **body,
        **_legacy_fields(report),
    }
    encoded: dict[str, Any] = _encode(data)
    return encoded


def render(report: Report) -> str:
    """Return the report as JSON text; lists of numbers stand on one line."""
    return _text_of(to_json(report))


def render_matrix(reports: Sequence[Report]) -> str:
    """Return several reports of one golden as one document, ``reports[]`` under their labels."""
    labelled = [
        {"label": label, **to_json(report)}
        for label, report in zip(labels_of(reports), reports, strict=True)
    ]
    ok = all(report.ok for report in reports)
    return _text_of({"report_version": REPORT_VERSION, "ok": ok, "reports": labelled})


def _text_of(data: dict[str, Any]) -> str:
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    return _NUMBERS_ONLY.sub(lambda match: " ".join(match[0].split()), text)


def load_report(path: Path) -> Report:
    """Read a report of one run; raises as ``load_reports``, UsageError where it holds several."""
    reports = load_reports(path)
    if len(reports) != 1:
        message = f"{path}: holds the reports of {len(reports)} runs, expected one"
        raise UsageError(message, hint="write one with diff GOLDEN RUN --json FILE")
    return reports[0]


def load_reports(path: Path) -> list[Report]:
    """Read a report, or several side by side; raises UsageError without the file, DamagedError
    when it is no such thing."""
    if not path.is_file():
        message = f"{path}: {why_no_file(path)}"
        raise UsageError(message)
    if (kind := kind_of(path)) is not None:
        article = "an" if kind == "archive" else "a"
        message = f"{path}: is {article} {kind}, not a report that --json wrote"
        raise UsageError(message)
    if path.stat().st_size > _LIMIT_BYTES:
        message = f"{path}: {path.stat().st_size:,} bytes are more than a report has"
        raise DamagedError(message)
    try:
        data = json.loads(path.read_bytes())
        several = isinstance(data, dict) and isinstance(data.get("reports"), list)
        return [_parse(path, each) for each in (data["reports"] or [{}] if several else [data])]
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        message = f"{path}: not a report: {error}"
        raise DamagedError(message, hint="write it again with --json") from error


def _parse(path: Path, data: Any) -> Report:
    version = data.pop("report_version", None) if isinstance(data, dict) else None
    if version is None:
        message = f"{path}: is not a report that --json wrote"
        raise DamagedError(message)
    if version not in READABLE_VERSIONS:
        message = f"{path}: report version is {version}, expected {REPORT_VERSION}"
        raise DamagedError(message)
    for key in ("ok", "first_wrong", "not_compared", "label", *_LEGACY):
        data.pop(key, None)
    return msgspec.convert(_decode(modern(data)), Report)


def _legacy_fields(report: Report) -> dict[str, Any]:
    cases = report.run.recipe.get("cases")
    case = cases[0] if isinstance(cases, list) and cases else None
    model = report.run.recipe.get("model")
    passed = sum(s.state == PASSED for s in report.sublayers)
    return {
        "model_path": _text(model, "path"),
        "test_input": _text(case, "text"),
        "overall_success": report.ok,
        "total_layers_tested": len(report.sublayers),
        "layers_passed": passed,
        "layers_failed": len(report.sublayers) - passed,
        "layer_results": [_legacy_layer(n, s) for n, s in enumerate(report.sublayers)],
    }


def _text(value: Any, key: str) -> str | None:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _legacy_layer(index: int, sublayer: SublayerResult) -> dict[str, Any]:
    """One sublayer by its output: the tensor whose tap is ``output``."""
    last: TensorResult | None = sublayer.tensors[-1] if sublayer.tensors else None
    metrics = last.metrics if last else None
    wrong = next((t for t in sublayer.tensors if t.tap == sublayer.first_wrong), None)
    return {
        "layer_index": index,
        "layer_name": sublayer.name,
        "input_shape": list(sublayer.input_shape) if sublayer.input_shape else None,
        "output_shape": list(last.shape) if last else None,
        "mse": metrics.mse if metrics else None,
        "max_abs_error": metrics.max_abs_error if metrics else None,
        "mean_abs_error": metrics.mean_abs_error if metrics else None,
        "cosine_similarity": metrics.cosine if metrics else None,
        "relative_error": metrics.rel_l2 if metrics else None,
        "pass_threshold": sublayer.state == PASSED,
        "error_message": (wrong.message or f"{wrong.tap} is beyond tolerance") if wrong else None,
    }


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value


def _decode(value: Any) -> Any:
    """Turn the strings of numbers back, in the fields that hold numbers."""
    if isinstance(value, dict):
        return {key: _decode_field(key, item) for key, item in value.items()}
    return [_decode(item) for item in value] if isinstance(value, list) else value


def _decode_field(key: str, item: Any) -> Any:
    if key in _FREE:
        return item
    if key not in NUMBERS:
        return _decode(item)
    if isinstance(item, list):
        return [_number(entry) for entry in item]
    return _number(item)


def _number(item: Any) -> Any:
    return _NON_FINITE.get(item, item) if isinstance(item, str) else item


def _bare(kind: Any) -> Any:
    """A field's type without its constraints."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


# Plain data of other files, kept as it is.
_FREE = ("recipe", "failure")
NUMBERS = {
    field.name
    for kind in (
        TensorResult, SublayerResult, Metrics, LogitMetrics, Check,
        Cause, Depth, Trial, Strip, Histogram, Extreme, Picture, CheckStep,
    )
    for field in msgspec.structs.fields(kind)
    if _bare(field.type) in (float, float | None, tuple[float, ...])
}  # fmt: skip
