"""Golden sets on the terminal: their list, a set's history, what a manifest says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from goldenctl.digests import hex_of
from goldenctl.errors import GoldenctlError
from goldenctl.golden.recipe import Recipe
from goldenctl.records.units import human_bytes
from goldenctl.records.words import plural
from goldenctl.report.blocks import Block, Facts, Span, Table, numbers, table
from goldenctl.sets.manifest import Manifest, load_manifest
from goldenctl.sets.names import GoldenSet

_DIGEST = 12
# What is looked for in other output.
_EXACT = {"digest", "content", "fingerprint"}


def sets_table(sets: list[GoldenSet]) -> tuple[Table, list[GoldenctlError]]:
    """Return a line for each set, and what is wrong with manifests that are damaged."""
    rows, errors = [], []
    for golden_set in sets:
        here = ", ".join(f"v{number}" for number in golden_set.versions()) or "-"
        try:
            cells = _set_cells(golden_set)
        except GoldenctlError as error:
            cells = ("?", "damaged manifest", "", "", "")
            errors.append(error)
        rows.append((golden_set.name, cells[0], here, *cells[1:]))
    titles = ("set", "version", "here", "model", "dtype")
    return table((*titles, *numbers("tensors", "size")), rows), errors


def _set_cells(golden_set: GoldenSet) -> tuple[str, ...]:
    """The version described, and model, dtype, tensors and size of it."""
    if not golden_set.manifest_path.exists():
        return "no manifest", "", "", "", ""
    manifest = load_manifest(golden_set)
    missing = manifest.version not in golden_set.versions()
    recipe = manifest.recipe
    kind = str(recipe.model.config.get("model_type", "")) if recipe.model else ""
    layers = recipe.model.config.get("num_hidden_layers", "") if recipe.model else ""
    return (
        f"v{manifest.version}{', not here' if missing else ''}",
        f"{kind}, {layers} layers" if kind else "",
        recipe.dtype,
        str(len(manifest.tensors)),
        human_bytes(manifest.current.bytes),
    )


def history_table(golden_set: GoldenSet) -> Table:
    """Return a line for each version, newest first, also for those in no manifest."""
    manifest = load_manifest(golden_set) if golden_set.manifest_path.exists() else None
    entries = {entry.version: entry for entry in manifest.versions} if manifest else {}
    here, rows = golden_set.versions(), []
    for version in sorted({*entries, *here}, reverse=True):
        mark = "→" if manifest is not None and version == manifest.version else ""
        place = "yes" if version in here else "no"
        entry = entries.get(version)
        if entry is None:
            size = human_bytes(golden_set.path(version).stat().st_size)
            rows.append((mark, f"v{version}", "", "", size, place, "in no manifest"))
            continue
        content = _short(entry.content_digest)
        written = entry.created_utc.replace("T", " ").removesuffix("Z")[:16]
        cells = (written, content, human_bytes(entry.bytes), place, entry.note)
        rows.append((mark, f"v{version}", *cells))
    return table(("", "version", "written", "content", "size", "here", "note"), rows)


def manifest_view(
    golden_set: GoldenSet, manifest: Manifest, *, verbose: bool = False
) -> list[Block]:
    """Return what a manifest says: provenance, recipe, tolerance, and how many tensors."""
    pairs = tuple(
        (key, Span(value, "code") if key in _EXACT else value)
        for key, value in _pairs(golden_set, manifest)
        if value
    )
    rows = (
        (tensor.name, tensor.dtype, "×".join(map(str, tensor.shape)), _short(tensor.digest))
        for tensor in manifest.tensors
    )
    titles = ("tensor", "dtype", "shape", "digest")
    return [Facts(pairs), *([table(titles, rows)] if verbose else [])]


def _short(digest: str) -> str:
    return hex_of(digest)[:_DIGEST]


def _pairs(golden_set: GoldenSet, manifest: Manifest) -> Iterator[tuple[str, str]]:
    entry = manifest.current
    path = golden_set.path(manifest.version)
    yield "golden", f"{manifest.name}@v{manifest.version}"
    here = "here" if path.exists() else "not here"
    yield "file", f"{path}, {human_bytes(entry.bytes)}, {here}"
    yield "digest", entry.digest
    yield "content", entry.content_digest
    yield "written", f"{entry.created_utc} by goldenctl {entry.tool_version}".strip()
    yield "note", entry.note
    yield from _recorded(manifest.recipe)
    budgets = ", recorded budgets first" if manifest.tolerance.budget else ""
    yield "tolerance", f"{manifest.tolerance.name}{budgets}"
    roles = Counter(tensor.role for tensor in manifest.tensors)
    sketched = sum(tensor.sketch is not None for tensor in manifest.tensors)
    tensors = ", ".join(f"{count} {role}" for role, count in roles.items())
    yield "tensors", f"{len(manifest.tensors)}: {tensors}; {sketched} with a sketch"


def _recorded(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.model is not None:
        yield "model", f"{recipe.model.config.get('model_type')} from {recipe.model.path}"
        yield "fingerprint", recipe.model.fingerprint
    layers = "" if recipe.layers is None else f", layers {', '.join(map(str, recipe.layers))}"
    kept = f"taps {recipe.taps}{layers}, logits {recipe.logits}, oracle {recipe.oracle}"
    yield "recorded", f"{recipe.dtype}, {kept}"
    if recipe.reference is not None:
        e = recipe.reference
        threads = plural(e.threads, "thread")
        by = f"{e.implementation} {e.torch} on {e.device}"
        yield "computed by", f"{by}, {e.cpu_capability} {e.machine}, {threads}"
    for case in recipe.cases:
        said = f": {case.text}" if case.text else ""
        rows = case.token_ids
        size = f", {len(rows)} × {plural(len(rows[0]), 'token')}" if rows else ""
        yield "case", f"{case.name}{size}{said}"
