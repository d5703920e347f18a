"""What a run of a golden holds: its tensors and groups, by mode."""

from __future__ import annotations

from collections.abc import Mapping

from goldenctl.golden.composed import ROLE, leaving
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.layout import Layout
from goldenctl.golden.modes import BOTH
from goldenctl.golden.schema import TensorInfo, TensorSpec
from goldenctl.model import graph
from goldenctl.model.graph import Sublayer
from goldenctl.places import composed_name, place


def run_layout(
    golden: GoldenFile, sublayers: Mapping[str, Sublayer], dtype: str, mode: str
) -> Layout:
    """Lay out a run: every tap and output of ``sublayers`` (by path), as ``dtype``, and what the
    mode adds to each."""
    layout = Layout(groups=list(sublayers))
    yielded: dict[str, list[TensorInfo]] = {path: [] for path in sublayers}
    for info in golden.tensors.values():
        path = info.place.group
        if path in sublayers and _is_computed(info, sublayers[path]):
            yielded[path].append(info)
    for infos in yielded.values():
        layout.tensors += [_spec(info, dtype, info.name, info.role) for info in infos]
        for info in leaving(infos) if mode == BOTH else ():
            layout.tensors.append(_spec(info, dtype, composed_name(info.name), ROLE))
    names = {spec.name for spec in layout.tensors}
    for link, target in golden.aliases.items():
        if target in names and place(link).group in sublayers:
            layout.links[link] = target
    return layout


def _spec(info: TensorInfo, dtype: str, name: str, role: str) -> TensorSpec:
    return TensorSpec(name, dtype, info.shape, info.dims, role, info.op)


def _is_computed(info: TensorInfo, sublayer: Sublayer) -> bool:
    """Whether a backend yields this tensor; a key or value of its own counts as its tap."""
    return (
        info.role in ("tap", "output")
        and graph.CACHE_LINKS.get(info.tap, info.tap) in sublayer.taps
    )
