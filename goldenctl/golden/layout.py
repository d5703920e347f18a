"""Owns which tensors a golden holds, where, and which of them are links to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from goldenctl.golden.dtypes import DTYPES
from goldenctl.golden.schema import (
    BUDGET_SCOPES,
    BUDGET_STATISTICS,
    TensorSpec,
    step_path,
    sublayer_path,
)
from goldenctl.model import graph
from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Sublayer
from goldenctl.model.tokens import Case


@dataclass(frozen=True)
class Selection:
    """What of a forward pass is kept.

    ``taps`` is ``op`` or ``sublayer``; ``layers`` are decoder layer numbers, None for all;
    ``logits`` is ``last``, ``all`` or ``none``; ``oracle`` is ``none``, ``budget`` or ``keep``.
    """

    taps: str = "op"
    layers: frozenset[int] | None = None
    logits: str = "last"
    oracle: str = "none"

    def keeps(self, sublayer: Sublayer) -> bool:
        parts = sublayer.name.split(".")
        return self.layers is None or parts[0] != "layers" or int(parts[1]) in self.layers


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
        return sum(spec.nbytes for spec in self.tensors if spec.role in ("budget", "oracle"))


def computed_sublayers(config: ModelConfig, selection: Selection) -> list[Sublayer]:
    """The sublayers to compute, in execution order.

    Without logits, nothing after the last decoder layer that is kept is needed.
    """
    sublayers = list(graph.decoder(config, logits=selection.logits))
    if selection.logits == "none" and selection.layers is not None:
        return sublayers[: 1 + 2 * (max(selection.layers) + 1)]
    return sublayers


def golden_layout(
    config: ModelConfig, cases: Sequence[Case], *, dtype: str, selection: Selection
) -> Layout:
    """Lay out a golden of ``cases``; activations and constants are stored as ``dtype``."""
    layout = Layout()
    positions = max(len(case.token_ids[0]) for case in cases)
    rotary = graph.sizes(config, 1, positions)
    for name in graph.CONSTANTS:
        layout.tensors.append(
            _spec(f"constants/{name}", dtype, rotary, graph.DIMS[name], "constant")
        )
    for case in cases:
        _add_case(layout, config, case, dtype, selection)
    return layout


def _add_case(
    layout: Layout, config: ModelConfig, case: Case, dtype: str, selection: Selection
) -> None:
    sizes = graph.sizes(config, len(case.token_ids), len(case.token_ids[0]))
    root, step = f"cases/{case.name}", step_path(case.name, 0)
    layout.tensors += [
        _spec(f"{root}/token_ids", "int32", sizes, graph.DIMS["token_ids"], "input"),
        _spec(f"{step}/position_ids", "int32", sizes, graph.DIMS["position_ids"], "input"),
    ]
    before: Sublayer | None = None
    for sublayer in computed_sublayers(config, selection):
        if selection.keeps(sublayer):
            path = sublayer_path(case.name, 0, sublayer.name)
            layout.groups.append(path)
            if before is None:
                layout.links[f"{path}/input"] = f"{root}/token_ids"
            elif selection.keeps(before):
                source = sublayer_path(case.name, 0, before.name)
                layout.links[f"{path}/input"] = f"{source}/output"
            else:
                layout.tensors.append(
                    _spec(f"{path}/input", dtype, sizes, sublayer.dims("input"), "input")
                )
            _add_sublayer(layout, sublayer, path, dtype, sizes, taps=selection.taps == "op")
            _add_oracle(layout, path, dtype, selection.oracle)
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


def _add_oracle(layout: Layout, path: str, dtype: str, oracle: str) -> None:
    """Add the budget, and the truth if it is kept, of every tensor the sublayer yields."""
    yielded = [
        spec
        for spec in layout.tensors
        if spec.role in ("tap", "output") and spec.name.rpartition("/")[0] == path
    ]
    scopes = len(BUDGET_SCOPES)
    for spec in yielded if oracle != "none" else ():
        tap = spec.name.rpartition("/")[2]
        shape = (scopes, *spec.shape[:-1], len(BUDGET_STATISTICS))
        dims = ("scope", *spec.dims[:-1], "statistic")
        layout.tensors.append(
            TensorSpec(f"{path}/budget/{tap}", "float32", shape, dims, "budget", spec.op)
        )
        if oracle == "keep":
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
