"""The page's section on a golden of modules: the tree of modules, to be folded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from goldenctl.golden.calls import is_of_modules, is_within, module_of, nearest_ancestor
from goldenctl.places import short_name
from goldenctl.records.report import NEUTRAL, PASSED, Report, SublayerResult, worst_share
from goldenctl.records.words import Places, group_of, groups_of, percent, stands_for
from goldenctl.report.answers import main_group
from goldenctl.report.blocks import Mark
from goldenctl.report.html_tensors import MOST_MAPS, listed
from goldenctl.report.render_html import Landmark, escape, fold, text


@dataclass
class _Node:
    """A module, the calls of it, and the modules in it in order of execution."""

    name: str
    calls: list[SublayerResult] = field(default_factory=list)
    inside: list[_Node] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(c.state == PASSED for c in self.calls) and all(n.ok for n in self.inside)


def of_modules(report: Report) -> bool:
    """Whether a report is on a golden of modules."""
    return is_of_modules(report.golden.recipe)


def section(report: Report) -> Landmark:
    """Return the trees of all steps; the one that is wrong first is open, down to what is wrong."""
    main = main_group(report)
    groups = sorted(groups_of(report), key=lambda group: group != main)
    numbers = {tensor.name: i for i, tensor in enumerate(listed(report))}
    root = str(report.golden.recipe["modules"].get("root", ""))
    parts = []
    for group in groups[:MOST_MAPS]:
        calls = [each for each in report.sublayers if group_of(each.name) == group]
        body = "".join(_shown(node, numbers) for node in _tree(calls, root))
        title = escape(Places(report).group(group))
        parts.append(fold(title, body, opened=group == main))
    if len(groups) > MOST_MAPS:
        parts.append(f"<p>And {len(groups) - MOST_MAPS} more cases and steps.</p>")
    hint = "In order of execution. A module is judged by itself in mode module: one that is wrong "
    hint += "though all inside it is right has the error in its own code."
    return Landmark("map", "Modules", hint, f'<div class="tree">{"".join(parts)}</div>')


def _tree(calls: list[SublayerResult], root: str) -> list[_Node]:
    """Return the modules that are in no other one."""
    nodes: dict[str, _Node] = {}
    for call in calls:
        module = module_of(call.name)
        nodes.setdefault(module, _Node(module)).calls.append(call)
    tops: list[_Node] = []
    for name, node in nodes.items():
        above = nearest_ancestor(name, _prefixes(name, root, nodes), root)
        (nodes[above].inside if above is not None else tops).append(node)
    return tops


def _prefixes(name: str, root: str, nodes: dict[str, _Node]) -> Iterator[str]:
    """Yield the modules of the tree that this one is in."""
    parts = name.split(".")
    names = [root, *(".".join(parts[:count]) for count in range(1, len(parts)))]
    yield from (each for each in names if each in nodes and is_within(name, each, root))


def _shown(node: _Node, numbers: dict[str, int]) -> str:
    head = "; ".join(_call(call, numbers) for call in node.calls)
    if not node.inside:
        return f'<p class="leaf">{head}</p>'
    body = "".join(_shown(each, numbers) for each in node.inside)
    return fold(head, body, opened=not node.ok)


def _sign(call: SublayerResult) -> Mark:
    return Mark.RIGHT if call.state == PASSED else Mark.WRONG


def _call(call: SublayerResult, numbers: dict[str, int]) -> str:
    judged = [t for t in call.tensors if t.state not in NEUTRAL]
    sign = text(_sign(call) if judged or call.failure else Mark.NEITHER)
    first = stands_for(call) or next(iter(call.tensors), None)
    kind = f' <span class="soft">{escape(first.op)}</span>' if first is not None else ""
    name = escape(short_name(call.name))
    if first is not None and first.name in numbers:
        name = f'<a href="#t{numbers[first.name]}">{name}</a>'
    said = f" {percent(worst_share(judged))} of its tolerance" if judged else ""
    wrong = f", first {escape(call.first_wrong)}" if call.first_wrong else ""
    return f'{sign} {name}{kind}<span class="soft">{said}{wrong}</span>'
