"""Where both files came from, and the commands that go on from a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from goldenctl.records.report import Provenance, Report
from goldenctl.report.blocks import IN_FILES, Command, Section, Span, table
from goldenctl.report.commands import commands as of_report
from goldenctl.report.sections.choice import Choice

_MOST_TEXT = 300
_OF_RECIPE = (
    "dtype", "reference", "backend", "device", "mode", "attention", "oracle", "taps", "logits",
    "layers", "repeat", "threads",
)  # fmt: skip
_OF_CONFIG = (
    "model_type", "num_hidden_layers", "hidden_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size",
)  # fmt: skip


def provenance(report: Report, _choice: Choice) -> Section:
    """Return what is known of both files."""
    second = "Engine" if report.run.kind == "selftest" else "Run"
    return beside([("Golden", report.golden), (second, report.run)])


def commands(report: Report, _choice: Choice) -> Section:
    """Return the commands that fit the report, in the order of their use."""
    return listed(of_report(report))


def listed(found: Sequence[Command]) -> Section:
    """Return commands as the section that they have."""
    return Section("commands", "Commands", tuple(found), folded=True, outputs=IN_FILES)


def beside(sides: Sequence[tuple[str, Provenance]]) -> Section:
    """Return what is known of each file in a column, what has one name in one row."""
    rows: dict[str, list[str]] = {}
    for number, (_, side) in enumerate(sides):
        for key, value in _facts(side):
            row = rows.setdefault(key, [""] * len(sides))
            row[number] = "; ".join(filter(None, [row[number], value]))
    cells = ((Span(k, "soft"), *(Span(x, "code") for x in row)) for k, row in rows.items())
    blocks = (table(("", *(title for title, _ in sides)), cells),) if rows else ()
    return Section("provenance", "Provenance", blocks, folded=True, outputs=IN_FILES)


def _facts(side: Provenance) -> Iterator[tuple[str, str]]:
    for name, value in (
        ("file", side.path),
        ("written", side.created_utc),
        ("by", f"goldenctl {side.tool_version}" if side.tool_version else ""),
        ("content", side.content_digest),
    ):
        if value:
            yield name, value
    model = side.recipe.get("model")
    if isinstance(model, dict):
        yield from _model(model)
    for case in _listed(side.recipe.get("cases")):
        if isinstance(case, dict):
            text = case.get("text")
            yield (
                f"case {case.get('name', '')}".rstrip(),
                _short(text) if text is not None else "token ids",
            )
    for key in _OF_RECIPE:
        yield from _flat(key, side.recipe.get(key))


def _model(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _flat("checkpoint", model.get("path"))
    yield from _flat("fingerprint", model.get("fingerprint"))
    config = model.get("config")
    if isinstance(config, dict):
        said = [f"{key} {config[key]}" for key in _OF_CONFIG if config.get(key) is not None]
        yield from _flat("architecture", ", ".join(said))


def _listed(value: Any) -> list[Any]:
    return value[:8] if isinstance(value, list) else []


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(f"{key} {name}", item)
    elif value not in (None, "", [], {}):
        yield key.replace("_", " "), _short(value)


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."


SECTIONS = (provenance, commands)
