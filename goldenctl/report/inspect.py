"""The views of ``goldenctl inspect``: a file's provenance and tree, a tensor's numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from goldenctl.golden.file import GoldenFile
from goldenctl.golden.find import find
from goldenctl.golden.outline import outline
from goldenctl.model.case import wording_of
from goldenctl.report.blocks import (
    Block,
    Facts,
    Line,
    Lines,
    Mark,
    Pre,
    Span,
    Table,
    Words,
    numbers,
    table,
)
from goldenctl.shell import argv_of, quoted

_CORNER = 4
_LISTED_TOKENS = 48
# What is copied into a command line, or looked for in other output.
_EXACT = {"file", "model", "fingerprint", "content", "golden", "backend"}
_EXACT |= {"tensor", "ids", "digest", "✗ failed", "it names", "stderr"}


def file_view(golden: GoldenFile) -> list[Block]:
    """Return provenance, sublayers with their tensors, and failures."""
    said = Span("SIMULATED: no engine computed these tensors", "warn")
    blocks: list[Block] = [Lines((Line(said),))] if golden.simulated else []
    blocks += [_facts(_provenance(golden)), _tree(golden)]
    failures = ((name, info.failure) for name, info in golden.sublayers.items())
    return blocks + [_facts(_failure(name, told)) for name, told in failures if told is not None]


def tensor_view(golden: GoldenFile, wanted: str) -> list[Block]:
    """Return one tensor's meaning, statistics and first values.

    Raises UsageError when no name or more than one ends in ``wanted``.
    """
    info = find(golden, wanted)
    links = sorted(link for link, target in golden.aliases.items() if target == info.name)
    shape = ", ".join(f"{d} {s}" for d, s in zip(info.dims, info.shape, strict=True))
    pairs = [
        ("tensor", info.name),
        ("also", ", ".join(links)),
        ("shape", f"[{shape}]"),
        ("dtype", f"{info.dtype}, {info.nbytes:,} bytes at offset {info.offset:,}"),
        ("role", f"{info.role}{f' of op {info.op}' if info.op else ''}"),
        ("digest", info.digest),
    ]
    values = golden.verify(info.name)
    if info.tap == "token_ids":  # to be given to another engine
        return [_facts([*pairs, *(("ids", ",".join(map(str, row.tolist()))) for row in values)])]
    return [_facts([*pairs, *_statistics(values)]), Pre(_corner(values))]


def _facts(pairs: Iterable[tuple[str, object]]) -> Facts:
    """What is copied into a command line, or looked for in other output, stays whole."""
    said = ((key, str(value)) for key, value in pairs if value not in ("", None))
    return Facts(tuple((k, Span(text, "code") if k in _EXACT else text) for k, text in said))


def _provenance(golden: GoldenFile) -> Iterator[tuple[str, object]]:
    recipe = golden.recipe
    yield "file", f"{golden.path} ({golden.kind}, format {golden.format_version})"
    yield "written", f"{golden.created_utc} by goldenctl {golden.tool_version}".strip()
    model = recipe.get("model", {})
    if model:
        what = model.get("config", {}).get("model_type")
        yield "model", f"{what} from {model.get('path')}"
        yield "dequantised", model.get("quantised")
    yield "fingerprint", model.get("fingerprint")
    yield "content", golden.content_digest
    yield "golden", _golden_of(recipe.get("golden"))
    if isinstance(recipe.get("reference"), dict):
        yield "reference", ", ".join(_flat(recipe["reference"]))
    if isinstance(recipe.get("backend"), dict):
        yield from (("backend", said) for said in _flat(recipe["backend"]))
    for key in ("dtype", "taps", "logits", "device", "mode", "attention", "repeat"):
        yield key, recipe.get(key)
    yield "faults", ", ".join(map(str, recipe.get("faults") or ()))
    for case in recipe.get("cases", []):
        yield "case", f"{case.get('name')}: {_said_of(case)}".removesuffix(": ")
        yield from _tokens_of(case)


def _golden_of(source: Any) -> str:
    """The golden that a run was made from: its content as that golden itself is shown, its path."""
    if not isinstance(source, dict) or "content_digest" not in source:
        return ""
    return f"{source['content_digest']}, {source.get('path')}"


def _said_of(case: dict[str, Any]) -> str:
    """A case's text, what it is there to show, and whatever else is not the default."""
    known = ("name", "text", "why", "tokens", "decoded", "tokenizer")
    texts = case.get("row_texts") or case.get("text")
    said = [] if texts is None else [json.dumps(texts, ensure_ascii=False)]
    said += [f"{key} {json.dumps(value)}" for key, value in case.items() if key not in known]
    said = [part for part in said if not part.startswith("row_texts")]
    return "; ".join([*said, *([str(case["why"])] if case.get("why") else [])])


def _tokens_of(case: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The tokens of a case's texts, row by row, and what is odd about them."""
    wording = wording_of(case)
    for row in filter(None, wording.tokens):
        shown = [json.dumps(token, ensure_ascii=False) for token in row]
        if len(shown) > _LISTED_TOKENS:
            half = _LISTED_TOKENS // 2
            shown[half:-half] = [f"... {len(shown) - 2 * half:,} more ..."]
        yield "tokens", f"{len(row):,}: {' '.join(shown)}"
    for note in wording.notes():
        yield "note", note


def _tree(golden: GoldenFile) -> Table:
    """One line for each group: its own tensors; budgets and truths are only counted."""
    rows: list[tuple[Words, ...]] = []
    for section in outline(golden):
        if section.title:
            rows.append((Span(section.title, "strong"), "", ""))
        for line in section.lines:
            names = " ".join(line.taps)
            if line.beside:
                names += f" + {line.beside} of --oracle"
            failed = (Mark.WRONG, " ") if line.failed else ()
            rows.append(((*failed, line.group), "×".join(map(str, line.shape)), names))
    return table(("group", *numbers("output"), "tensors"), rows)


def _failure(name: str, failure: dict[str, Any]) -> Iterator[tuple[str, object]]:
    yield "✗ failed", name
    yield from ((key, failure.get(key)) for key in ("tap", "op", "reason", "message"))
    yield "it names", quoted(argv_of(failure.get("command")) or ())
    yield from (("stderr", line) for line in str(failure.get("stderr", "")).splitlines())


def _statistics(array: np.ndarray[Any, Any]) -> Iterator[tuple[str, str]]:
    values = np.asarray(array, np.float64).ravel()
    finite = values[np.isfinite(values)]
    yield "non-finite", f"{np.isnan(values).sum()} NaN, {np.isinf(values).sum()} Inf"
    if finite.size:
        yield "range", f"{finite.min():.6g} .. {finite.max():.6g}"
        yield "mean", f"{finite.mean():.6g}, standard deviation {finite.std():.6g}"
        yield "zeros", f"{np.count_nonzero(finite == 0)} of {values.size}"


def _corner(array: np.ndarray[Any, Any]) -> str:
    while array.ndim > 2:
        array = array[0]
    corner = np.asarray(array[tuple(slice(_CORNER) for _ in array.shape)], np.float64)
    return np.array2string(corner, precision=6, suppress_small=False)


def _flat(mapping: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in mapping.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in ("", None, []):
            yield f"{prefix}{key} {value}"
