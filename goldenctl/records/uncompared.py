"""What a report's verdict is silent about: outputs and logits that were not compared, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from goldenctl.errors import printable
from goldenctl.places import short_name
from goldenctl.records.checks import CheckStep
from goldenctl.records.report import NEUTRAL, Report
from goldenctl.records.units import plural
from goldenctl.records.words import group_of, groups_of, sides_of

OUTPUT = "output"
LOGITS = "lm_head.output"
_MOST = 3


def not_compared(report: Report) -> str:
    """Return what was not compared as one clause, empty where every output was.

    ``not compared: the logits (lm_head.output), layers.02.attention.output``.
    """
    items = uncompared(report)
    if not items:
        return ""
    more = len(items) - _MOST
    shown = ", ".join(items[:_MOST]) + (f" and {more:,} more" if more > 0 else "")
    return printable(f"not compared: {shown}")


def silence(report: Report) -> str:
    """Return what a report's pass says nothing of, whatever command made it."""
    return unchecked(report.checks) if report.command == "check" else not_compared(report)


def unchecked(steps: Sequence[CheckStep]) -> str:
    """Return what a check that passed says nothing of, as one clause, empty where it is all."""
    if all(step.step == "integrity" for step in steps):
        return "digests alone, nothing was computed again"
    said = dict.fromkeys((step.golden, step.not_compared) for step in steps if step.not_compared)
    several = len({step.golden for step in steps}) > 1
    return "; ".join(f"{golden}: {text}" if several else text for golden, text in said)


def uncompared(report: Report) -> list[str]:
    """Return every output that was not compared, the logits first: what the run says that it
    did not compute, sublayers that it does not have, and what the golden itself lacks."""
    if report.selftest is not None or not report.sublayers:
        return []
    lacking: dict[str, list[str]] = {}
    for name, part in _outputs(report):
        lacking.setdefault(_short(name) + part, []).append(group_of(name))
    groups = list(dict.fromkeys([*groups_of(report), *map(group_of, report.not_run)]))
    compared = {group_of(tensor.name) for tensor in report.compared}
    gone = [group for group in groups if group not in compared]
    labels = _labels(groups)
    said = [f"all of {labels[group]}" for group in gone]
    rest = [group for group in groups if group not in gone]
    where = {short: [g for g in groups if g in rest] for short, groups in lacking.items()}
    found = {short: _of(groups, rest, labels) for short, groups in where.items() if groups}
    said += _together(found)
    unnamed = report.left_out - len(report.not_run)
    if unnamed > 0:  # a report of before their names were kept
        said.append(plural(unnamed, "sublayer"))
    return sorted([*said, *_not_recorded(report)], key=lambda item: "logits" not in item)


def _outputs(report: Report) -> Iterator[tuple[str, str]]:
    """Yield outputs that were not compared, and which of them were so in part."""
    for tensor in report.tensors:
        # The reference is not finite there, or it follows from other experts.
        part = tensor.not_judged_rows + tensor.other_choice_rows > 0
        if tensor.tap == OUTPUT and (part or tensor.state in NEUTRAL):
            yield tensor.name, "" if tensor.state in NEUTRAL else " in part"
    for sublayer in report.not_run:
        yield f"{sublayer}/{OUTPUT}", ""


def _short(name: str) -> str:
    folder, _, tap = name.rpartition("/")
    return f"{short_name(folder) or folder}.{tap}"


def _named(short: str) -> str:
    return short.replace(LOGITS, f"the logits ({LOGITS})")


def _together(found: Mapping[str, str]) -> Iterator[str]:
    """Yield names with where they lack, the same one of several layers as one."""
    layers: dict[tuple[str, str], list[str]] = {}
    for short, where in found.items():
        parts = short.split(".")
        of_layer = parts[0] == "layers" and len(parts) > 2 and parts[1].isdigit()
        kind = ".".join(parts[2:]) if of_layer else short
        layers.setdefault((kind, where), []).append(short)
    for (kind, where), names in layers.items():
        if len(names) == 1:
            yield _named(names[0]) + where
        else:
            yield f"{kind} of layers {_ranges([int(n.split('.')[1]) for n in names])}{where}"


def _labels(groups: Sequence[str]) -> dict[str, str]:
    """Name each case and step; the step only where there are several."""
    several = len({group.rpartition("/")[2] for group in groups}) > 1
    return {g: g if several else g.rpartition("/")[0] or g for g in groups}


def _of(where: Sequence[str], groups: Sequence[str], labels: Mapping[str, str]) -> str:
    """Say in which of the cases and steps something lacks, unless it is in all of them."""
    if len(where) == len(groups):
        return ""
    if len(where) > 1:
        return f" in {len(where)} of {len(groups)} cases and steps"
    return f" in {labels[where[0]]}"


def _not_recorded(report: Report) -> Iterator[str]:
    """Yield what the model computes and the first side itself does not hold."""
    model = report.golden.recipe.get("model")
    config = model.get("config") if isinstance(model, Mapping) else None
    layers = config.get("num_hidden_layers") if isinstance(config, Mapping) else None
    if not isinstance(layers, int) or layers > 1 << 16:
        return
    side = sides_of(report)[0]
    names = [
        _short(f"{s}/{OUTPUT}") for s in (*(s.name for s in report.sublayers), *report.not_run)
    ]
    if LOGITS not in names:
        yield f"the logits ({LOGITS} is not in the {side})"
    parts = [name.split(".") for name in names]
    held = {int(p[1]) for p in parts if p[0] == "layers" and len(p) > 2 and p[1].isdigit()}
    lacking = [layer for layer in range(layers) if layer not in held]
    if lacking:
        yield f"layers {_ranges(lacking)} (not in the {side})"


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers as ``0-3, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
