"""Writes docs/report.schema.json from the structs of the report: ``python docs/schema.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from goldenctl.records.report import REPORT_VERSION, Report

TARGET = Path(__file__).with_name("report.schema.json")
_NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Inf", "-Inf"]}]}
# What report/json.py writes beside the fields of the report itself.
_BESIDE = {
    "report_version": {"const": REPORT_VERSION},
    "ok": {"type": "boolean"},
    "first_wrong": {"type": ["string", "null"]},
    "not_compared": {"type": "array", "items": {"type": "string"}},
    "model_path": {"type": ["string", "null"]},
    "test_input": {"type": ["string", "null"]},
    "overall_success": {"type": "boolean"},
    "total_layers_tested": {"type": "integer"},
    "layers_passed": {"type": "integer"},
    "layers_failed": {"type": "integer"},
    "layer_results": {"type": "array", "items": {"type": "object"}},
}


def render() -> str:
    """Return the JSON Schema (draft 2020-12) as text."""
    schema = _numbers(msgspec.json.schema(Report))
    definition = schema["$defs"]["Report"]
    definition["properties"] |= _BESIDE
    definition["required"] = ["report_version", "ok", *definition["required"]]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"goldenctl report, version {REPORT_VERSION}",
    }
    return json.dumps({**head, **schema}, indent=1) + "\n"


def _numbers(value: Any) -> Any:
    """Allow the strings of numbers that are not finite wherever a number is."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "number":
        rest = {key: item for key, item in value.items() if key != "type"}
        return {**_NUMBER, **rest}
    return {key: _numbers(item) for key, item in value.items()}


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
