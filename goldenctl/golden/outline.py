"""The outline of a golden or run: its sublayers and tensors, alike layers on one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import BESIDE, TensorInfo
from goldenctl.places import layer_of, step_number


@dataclass(frozen=True)
class Line:
    """A group's tensors in execution order.

    ``group`` is its dotted name, ``layers.00-27.attention`` for layers that are alike; ``shape``
    that of its last tensor; ``beside`` counts the tensors of budgets and truths.
    """

    group: str
    shape: tuple[int, ...]
    taps: tuple[str, ...]
    beside: int = 0
    failed: bool = False


@dataclass(frozen=True)
class Section:
    """The lines of one step, or of steps that are alike: ``cases/default/steps/01-07``.

    ``title`` is empty for what lies in no step.
    """

    title: str
    lines: tuple[Line, ...]


def outline(golden: GoldenFile) -> list[Section]:
    """Return a file's groups in execution order, alike layers and steps as one."""
    taps: dict[str, list[TensorInfo]] = {}
    beside: Counter[str] = Counter()
    for info in golden.tensors.values():
        if info.role in BESIDE:
            beside[_owner(info, golden)] += 1
        else:
            taps.setdefault(info.place.group, []).append(info)
    steps: dict[str, list[Line]] = {}
    for group, infos in taps.items():
        at = infos[0].place
        status = golden.sublayers.get(group)
        line = Line(
            group=at.sublayer or ("inputs" if at.step else group),
            shape=infos[-1].shape,
            taps=tuple(info.tap for info in infos),
            beside=beside[group],
            failed=status is not None and status.status == "failed",
        )
        steps.setdefault(at.step_path, []).append(line)
    return _alike_steps({path: _alike_layers(lines) for path, lines in steps.items()})


def _owner(info: TensorInfo, golden: GoldenFile) -> str:
    group = info.place.group.rpartition("/")[0]
    while group and group not in golden.sublayers:
        group = group.rpartition("/")[0]
    return group


def _alike_layers(lines: list[Line]) -> tuple[Line, ...]:
    """Join neighbouring layers whose lines differ in nothing but the layer's number."""
    folded: list[Line] = []
    for in_layers, group in groupby(lines, key=lambda line: layer_of(line.group) is not None):
        if not in_layers:
            folded += group
            continue
        layers: dict[int, list[Line]] = {}
        for line in group:
            own = replace(line, group=line.group.split(".", 2)[2])
            layers.setdefault(layer_of(line.group) or 0, []).append(own)
        for number, alike in _alike({n: tuple(own) for n, own in layers.items()}):
            folded += [replace(line, group=f"layers.{number}.{line.group}") for line in alike]
    return tuple(folded)


def _alike_steps(steps: dict[str, tuple[Line, ...]]) -> list[Section]:
    """Join neighbouring steps of a case whose lines are the same."""
    sections = []
    for folder, paths in groupby(steps, key=lambda path: path.rpartition("/")[0]):
        if not folder:
            sections += [Section("", steps[path]) for path in paths]
            continue
        numbered = {step_number(path): steps[path] for path in paths}
        sections += [Section(f"{folder}/{span}", lines) for span, lines in _alike(numbered)]
    return sections


def _alike(numbered: dict[int, tuple[Line, ...]]) -> Iterator[tuple[str, tuple[Line, ...]]]:
    """Yield each value with the numbers that have it one after the other, as ``00-27``."""
    first = last = -1
    for number, lines in numbered.items():
        if number != last + 1 or lines != numbered.get(last):
            if last >= 0:
                yield _span(first, last), numbered[last]
            first = number
        last = number
    if last >= 0:
        yield _span(first, last), numbered[last]


def _span(first: int, last: int) -> str:
    return f"{first:02d}" if first == last else f"{first:02d}-{last:02d}"
