"""The layout of a golden: which tensors it holds, where, and which are links to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from goldenctl.dtypes import DTYPES
from goldenctl.golden.schema import (
    BESIDE,
    BUDGET_SCOPES,
    BUDGET_STATISTICS,
    TensorSpec,
    budget_path,
    fused_budget_path,
)
from goldenctl.golden.selection import Selection
from goldenctl.golden.steps import Step, attention_mask, position_count, steps
from goldenctl.model import graph
from goldenctl.model.case import Case
from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Sublayer
from goldenctl.places import layer_of, place


@dataclass
class Layout:
    """Every tensor of a file in execution order, its links and its sublayers' groups."""

    tensors: list[TensorSpec] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.tensors)

    @property
    def oracle_nbytes(self) -> int:
        """The part of ``nbytes`` that budgets and truths take."""
        return sum(spec.nbytes for spec in self.tensors if spec.role in BESIDE)


def computed_sublayers(config: ModelConfig, selection: Selection, step: Step) -> list[Sublayer]:
    """The sublayers of a step to compute, in execution order; their names are those of any
    other step.

    Without logits, nothing after the last decoder layer that is kept is needed.
    """
    return _needed(step.sublayers(config, logits=selection.logits), selection)


def weights_read(config: ModelConfig, selection: Selection) -> frozenset[str]:
    """The names of the weights that a recording reads."""
    sublayers = _needed(list(graph.decoder(config, logits=selection.logits)), selection)
    return frozenset(name for s in sublayers for op in s.ops for name in op.weights)


def _needed(sublayers: list[Sublayer], selection: Selection) -> list[Sublayer]:
    if selection.logits != "none" or selection.layers is None:
        return sublayers
    last = max(selection.layers)
    ends = [n for n, sublayer in enumerate(sublayers, 1) if layer_of(sublayer.name) == last]
    return sublayers[: max(ends)]


def golden_layout(
    config: ModelConfig, cases: Sequence[Case], *, dtype: str, selection: Selection
) -> Layout:
    """Lay out a golden of ``cases``; activations and constants are stored as ``dtype``."""
    layout = Layout()
    rotary = graph.sizes(config, 1, position_count(cases))
    table_dtype = graph.table_dtype(config, dtype)
    for name in graph.constants(config):
        layout.tensors.append(
            _spec(f"constants/{name}", table_dtype, rotary, graph.TABLE_DIMS, "constant")
        )
    for case in cases:
        shape = (len(case.token_ids), case.prompt_length)
        dims = graph.DIMS["token_ids"]
        layout.tensors.append(
            TensorSpec(f"cases/{case.name}/token_ids", "int32", shape, dims, "input")
        )
        for step in steps(case):
            _add_step(layout, config, step, dtype, selection)
    return layout


def ids_path(step: Step) -> str:
    """Where a step's token ids are: the case's own are those of a prompt that is one step."""
    return f"cases/{step.case.name}/token_ids" if step.is_prompt else f"{step.path}/token_ids"


def _add_step(
    layout: Layout, config: ModelConfig, step: Step, dtype: str, selection: Selection
) -> None:
    sizes = step.sizes(config)
    inputs = ["position_ids"] if step.is_prompt else ["token_ids", "position_ids"]
    if attention_mask(step) is not None:
        inputs.append("attention_mask")
    layout.tensors += [
        _spec(f"{step.path}/{name}", "int32", sizes, graph.DIMS[name], "input") for name in inputs
    ]
    before: Sublayer | None = None
    for sublayer in computed_sublayers(config, selection, step):
        if selection.keeps(sublayer):
            path = step.sublayer_path(sublayer.name)
            layout.groups.append(path)
            if before is None:
                layout.links[f"{path}/input"] = ids_path(step)
            elif selection.keeps(before):
                source = step.sublayer_path(before.name)
                layout.links[f"{path}/input"] = f"{source}/output"
            else:
                layout.tensors.append(
                    _spec(f"{path}/input", dtype, sizes, sublayer.dims("input"), "input")
                )
            _add_sublayer(layout, sublayer, path, dtype, sizes, taps=selection.taps == "op")
            _add_oracle(layout, path, dtype, selection)
        before = sublayer


def _add_sublayer(
    layout: Layout, sublayer: Sublayer, path: str, dtype: str, sizes: dict[str, int], *, taps: bool
) -> None:
    cache = [name for name, tap in graph.CACHE_LINKS.items() if tap in sublayer.taps]
    names = sublayer.taps if taps else (*cache, "output")
    for name in names:
        op = sublayer.producer(name)
        role = "tap" if taps and name != "output" else "output"
        dims = sublayer.dims(op.output)
        layout.tensors.append(_spec(f"{path}/{name}", dtype, sizes, dims, role, op.kind))
    if taps:
        layout.links.update(
            {f"{path}/{name}": f"{path}/{graph.CACHE_LINKS[name]}" for name in cache}
        )


def _add_oracle(layout: Layout, path: str, dtype: str, selection: Selection) -> None:
    """Add the budgets, and the truth if it is kept, of every tensor the sublayer yields."""
    yielded = [
        spec
        for spec in layout.tensors
        if spec.role in ("tap", "output") and place(spec.name).group == path
    ]
    scopes = len(BUDGET_SCOPES)
    for spec in yielded if selection.oracle != "none" else ():
        tap = place(spec.name).tap
        shape = (scopes, *spec.shape[:-1], len(BUDGET_STATISTICS))
        dims = ("scope", *spec.dims[:-1], "statistic")
        for actual in (dtype, *selection.budget_dtypes):
            name = budget_path(spec.name, recorded=dtype, actual=actual)
            layout.tensors.append(TensorSpec(name, "float32", shape, dims, "budget", spec.op))
            if selection.fused_budget and spec.op == graph.FUSED_OP:
                name = fused_budget_path(spec.name, recorded=dtype, actual=actual)
                one = (1, *shape[1:])
                layout.tensors.append(TensorSpec(name, "float32", one, dims, "budget", "sdpa"))
        if selection.oracle == "keep":
            shape, dims = (scopes, *spec.shape), ("scope", *spec.dims)
            wide = oracle_dtype(dtype)
            layout.tensors.append(
                TensorSpec(f"{path}/oracle/{tap}", wide, shape, dims, "oracle", spec.op)
            )


def oracle_dtype(dtype: str) -> str:
    """The type of the truth: float32 is exact enough for 16-bit types, float64 for float32."""
    return "float32" if DTYPES[dtype].itemsize == 2 else "float64"


def _spec(
    path: str,
    dtype: str,
    sizes: dict[str, int],
    dims: tuple[str, ...],
    role: str,
    op: str = "",
) -> TensorSpec:
    return TensorSpec(path, dtype, tuple(sizes[label] for label in dims), dims, role, op)
