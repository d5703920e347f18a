"""The rows of a batch as cases of their own: cut from a golden, replayed alone, and
compared with what the same backend computed of them in the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import Policy
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.layout import golden_layout
from goldenctl.golden.modes import BOTH
from goldenctl.golden.recipe import parse_recipe
from goldenctl.golden.schema import SublayerInfo, TensorSpec
from goldenctl.golden.selection import Selection
from goldenctl.golden.steps import Step, steps, visible_tokens
from goldenctl.golden.untrusted_recipe import RecipeObject
from goldenctl.golden.writer import GoldenWriter
from goldenctl.model.case import Case
from goldenctl.places import step_number
from goldenctl.records.report import Report
from goldenctl.replay.backend import Backend
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Row:
    """One row of a case: ``alone`` is the same input as a case of its own, without padding."""

    batch: Case
    number: int
    alone: Case

    @property
    def tokens(self) -> NDArray[np.bool_]:
        """Which of the row's tokens are no padding."""
        visible: NDArray[np.bool_] = visible_tokens(self.batch)[self.number]
        return visible


def alone_vs_batched(
    golden: GoldenFile,
    batched: GoldenFile,
    checkpoint_path: Path,
    *,
    backend: Backend,
    options: Options,
    policy: Policy,
    folder: Path,
    progress: Progress = lambda *_: None,
) -> Report:
    """Replay every row of the golden's batches alone and judge it against ``batched``, a run of
    the golden by the same backend; scratch files go to ``folder``.

    Raises UsageError when no case has two rows, or when padding fills a whole step.
    """
    rows = rows_of(golden)
    inputs = cut(golden, rows, folder / "alone.h5")
    expected = cut(golden, rows, folder / "batched.h5", computed=batched)
    out = folder / "run.h5"
    mode = options.for_golden(golden).mode
    options = replace(options, resume=False, shuffle=False, mode="op" if mode == BOTH else mode)
    replay(inputs, checkpoint_path, out, backend=backend, options=options, progress=progress)
    run = open_golden(out)
    # What was replayed is the golden's rows; what it is judged by, the backend's own batch.
    recipe = {
        **run.recipe,
        "golden": {"path": str(golden.path), "content_digest": expected.content_digest},
        "sublayers": _computed(run.recipe["sublayers"], batched, rows),
    }
    run = replace(run, recipe=RecipeObject(recipe, f"{run.path}: recipe"))
    report = compare(expected, run, policy)
    return msgspec.structs.replace(report, command="alone-vs-batched")


def rows_of(golden: GoldenFile) -> list[Row]:
    """Return the rows of every case that has more than one; UsageError when there is none."""
    found = []
    for entry in parse_recipe(golden.recipe, str(golden.path)).cases:
        ids = golden.verify(f"cases/{entry.name}/token_ids")
        case = Case.from_recipe(msgspec.to_builtins(entry), tuple(map(tuple, ids.tolist())))
        if problem := case.problem(golden.config):
            message = f"{golden.path}: case {case.name}: {problem}"
            raise DamagedError(message, hint="record it again")
        if len(case.token_ids) > 1:
            found += [_row(golden, case, number) for number in range(len(case.token_ids))]
    if not found:
        message = f"{golden.path}: no case has more than one row, so there is no batch"
        raise UsageError(message, hint="record several inputs with --batch")
    return found


def _row(golden: GoldenFile, case: Case, number: int) -> Row:
    visible = visible_tokens(case)[number]
    for step in steps(case):
        if not visible[step.start : step.stop].any() or (case.prefill_chunk and any(case.padding)):
            message = f"{golden.path}: case {case.name} has padding in a prompt taken in chunks"
            raise UsageError(message, hint="record it without --prefill-chunk")
    prompt = np.array(case.token_ids[number])[visible[: case.prompt_length]]
    decoded = [
        int(golden.verify(f"{step.path}/token_ids")[number, 0])
        for step in steps(case)
        if step.start >= case.prompt_length
    ]
    alone = replace(
        case,
        name=f"{case.name}-row-{number}",
        token_ids=(tuple(prompt.tolist()),),
        text=case.row_texts[number] if case.row_texts else None,
        row_texts=(),
        padding=(),
        forced=(tuple(decoded),) if decoded else (),
    )
    return Row(case, number, alone)


def cut(
    golden: GoldenFile, rows: Sequence[Row], path: Path, *, computed: GoldenFile | None = None
) -> GoldenFile:
    """Write a golden that holds each row as a case of its own, and return it; taps are those
    of ``computed``, a run, where it has them."""
    recipe = golden.recipe
    dtype = str((computed or golden).recipe["dtype"])
    same_type = dtype == recipe["dtype"]
    oracle = recipe["oracle"] if same_type else "none"
    selection = replace(Selection.of_recipe(recipe), oracle=oracle, budget_dtypes=())
    layout = golden_layout(
        golden.config, [row.alone for row in rows], dtype=dtype, selection=selection
    )
    by_name = {row.alone.name: row for row in rows}
    cases = [row.alone.to_recipe() for row in rows]
    with GoldenWriter(
        path,
        kind="golden",
        recipe={**recipe, "cases": cases, "dtype": dtype},
        tensors=layout.tensors,
        links=layout.links,
        groups=layout.groups,
    ) as writer:
        for spec in layout.tensors:
            values = _values(golden, computed, by_name, spec)
            writer.write(spec.name, memoryview(np.ascontiguousarray(values).tobytes()))
        writer.seal(sublayers=[SublayerInfo(name, 0) for name in layout.groups])
    return open_golden(path)


def _values(
    golden: GoldenFile, computed: GoldenFile | None, rows: Mapping[str, Row], spec: TensorSpec
) -> NDArray[Any]:
    parts = spec.name.split("/")
    if parts[0] == "constants":
        table = golden.verify(spec.name)[: spec.shape[0]]
        return _as_type(table, spec)
    row = rows[parts[1]]
    name = "/".join(["cases", row.batch.name, *parts[2:]])
    ran = spec.role in ("tap", "output") and computed is not None and name in computed.tensors
    source = computed if ran and computed is not None else golden
    step = steps(row.batch)[step_number(name)] if len(parts) > 3 else None
    return _as_type(_cut(source.verify(name), source.info(name).dims, row, step, spec), spec)


def _cut(
    values: NDArray[Any], dims: tuple[str, ...], row: Row, step: Step | None, spec: TensorSpec
) -> NDArray[Any]:
    """Return one row of a batch's tensor, without its padding."""
    start, stop = (0, row.batch.prompt_length) if step is None else (step.start, step.stop)
    for axis, (dim, wanted) in enumerate(zip(dims, spec.dims, strict=True)):
        if dim == "batch":
            values = values.take([row.number], axis)
        elif dim in ("token", "key_token"):
            first = start if dim == "token" else 0
            kept = np.flatnonzero(row.tokens[first:stop])
            values = values.take(kept[-1:] if wanted == "last_token" else kept, axis)
    return values


def _as_type(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    return values.astype(DTYPES[spec.dtype].numpy)


def _computed(names: Sequence[str], batched: GoldenFile, rows: Sequence[Row]) -> list[str]:
    """The sublayers, by their names alone, that did not fail in the batch."""
    by_name = {row.alone.name: row.batch.name for row in rows}
    kept = []
    for name in names:
        parts = name.split("/")
        ran = batched.sublayers["/".join(["cases", by_name[parts[1]], *parts[2:]])]
        if ran.status == "ok":
            kept.append(name)
    return kept
