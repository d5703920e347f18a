"""The views of ``goldenctl inspect``: a file's provenance and tree, a tensor's numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from goldenctl.errors import printable
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.find import find
from goldenctl.golden.outline import outline
from goldenctl.model.case import wording_of
from goldenctl.report.console_parts import Pairs

_CORNER = 4
_LISTED_TOKENS = 48
# What is copied into a command line, or looked for in other output.
_EXACT = {"file", "model", "fingerprint", "content", "golden", "backend"}
_EXACT |= {"tensor", "ids", "digest", "✗ failed", "command", "stderr"}


def file_view(golden: GoldenFile) -> RenderableType:
    """Show provenance, sublayers with their tensors, and failures; print with ``crop=False``."""
    parts: list[RenderableType] = []
    if golden.simulated:
        parts.append(Text("SIMULATED: no engine computed these tensors", style="bold yellow"))
    parts += [_provenance(golden), Text(), _tree(golden)]
    for name, info in golden.sublayers.items():
        if info.failure is not None:
            parts += [Text(), _failure(name, info.failure)]
    return Group(*parts)


def tensor_view(golden: GoldenFile, wanted: str) -> RenderableType:
    """Show one tensor's meaning, statistics and first values; print with ``crop=False``.

    Raises UsageError when no name or more than one ends in ``wanted``.
    """
    info = find(golden, wanted)
    pairs = Pairs()
    _row(pairs, "tensor", info.name)
    links = sorted(link for link, target in golden.aliases.items() if target == info.name)
    _row(pairs, "also", ", ".join(links))
    shape = ", ".join(f"{d} {s}" for d, s in zip(info.dims, info.shape, strict=True))
    _row(pairs, "shape", f"[{shape}]")
    _row(pairs, "dtype", f"{info.dtype}, {info.nbytes:,} bytes at offset {info.offset:,}")
    _row(pairs, "role", f"{info.role}{f' of op {info.op}' if info.op else ''}")
    _row(pairs, "digest", info.digest)
    values = golden.verify(info.name)
    if info.tap == "token_ids":  # to be given to another engine
        for row in values:
            _row(pairs, "ids", ",".join(map(str, row.tolist())))
        return pairs
    for key, value in _statistics(values):
        _row(pairs, key, value)
    return Group(pairs, Text(), Text(_corner(values)))


def _provenance(golden: GoldenFile) -> Pairs:
    pairs = Pairs()
    recipe = golden.recipe
    _row(pairs, "file", f"{golden.path} ({golden.kind}, format {golden.format_version})")
    _row(pairs, "written", f"{golden.created_utc} by goldenctl {golden.tool_version}".strip())
    model = recipe.get("model", {})
    if model:
        what = model.get("config", {}).get("model_type")
        _row(pairs, "model", f"{what} from {model.get('path')}")
    _row(pairs, "fingerprint", model.get("fingerprint"))
    _row(pairs, "content", golden.content_digest)
    _row(pairs, "golden", _golden_of(recipe.get("golden")))
    if isinstance(recipe.get("reference"), dict):
        _row(pairs, "reference", ", ".join(_flat(recipe["reference"])))
    if isinstance(recipe.get("backend"), dict):
        for said in _flat(recipe["backend"]):
            _row(pairs, "backend", said)
    for key in ("dtype", "taps", "logits", "device", "mode", "attention", "repeat"):
        if key in recipe:
            _row(pairs, key, recipe[key])
    if recipe.get("faults"):
        _row(pairs, "faults", ", ".join(map(str, recipe["faults"])))
    for case in recipe.get("cases", []):
        _row(pairs, "case", f"{case.get('name')}: {_said_of(case)}")
        for key, said in _tokens_of(case):
            _row(pairs, key, said)
    return pairs


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
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("group", no_wrap=True)
    table.add_column("output", justify="right", no_wrap=True)
    table.add_column("tensors")
    for section in outline(golden):
        if section.title:
            table.add_row(f"[bold]{escape(printable(section.title))}[/]", "", "")
        for line in section.lines:
            names = " ".join(line.taps)
            if line.beside:
                names += f" + {line.beside} of --oracle"
            shape = "×".join(map(str, line.shape))
            cells = (f"{'✗ ' if line.failed else ''}{line.group}", shape, names)
            table.add_row(*(escape(printable(cell)) for cell in cells))
    return table


def _failure(name: str, failure: dict[str, Any]) -> Pairs:
    pairs = Pairs()
    _row(pairs, "✗ failed", name)
    for key in ("tap", "op", "reason", "message", "command"):
        _row(pairs, key, failure.get(key))
    for line in str(failure.get("stderr", "")).splitlines():
        _row(pairs, "stderr", line)
    return pairs


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


def _row(pairs: Pairs, key: str, value: object) -> None:
    pairs.add(key, value, exact=key in _EXACT)
