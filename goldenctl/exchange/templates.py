"""The patterns that a dump's names follow: which numbers in them are layers and which ranks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from goldenctl.exchange.endings import SUFFIXES

_NUMBER = re.compile(
    r"(?<![A-Za-z0-9])(?:tp_rank|rank|tp|TP)[._\-=]?(\d{1,3})(?![0-9A-Za-z])"
    r"|(?<![A-Za-z0-9])hidden_states?[._\-](\d{1,5})(?![0-9A-Za-z])"
    r"|(?:(?<![A-Za-z0-9])(?:[Ll]ayers?|blocks?|blk|h)[._\-]?|^)(\d{1,5})(?![0-9A-Za-z])"
    r"|-(\d{1,5})(?=$|[._\-/ #])"  # of llama.cpp's graph
    r"|#(\d{1,6})$"  # as exchange/taps.py names what a program tapped again
    r"|(?<![A-Za-z0-9])(?:[Ss]tep|[Ii]ter(?:ation)?|[Pp]ass|forward_pass_id)[._\-=]?(\d{1,6})"
    r"(?![0-9A-Za-z])"
)
_GROUPS = {1: "rank", 2: "hidden", 3: "layer", 4: "layer", 5: "step", 6: "step"}
# Numbers that only count where a dump has several of them.
_SEVERAL = ("rank", "step")
# Hooks of msprobe call a tensor by its module, the class of that and the direction.
_HOOKED = re.compile(r"\.[A-Za-z_]\w{0,99}\.forward\.\d{1,9}\.output\.\d{1,9}$")
_COUNTED = re.compile(r"\{(layer|rank)[^}]{0,9}\}")
_RANK_BEHIND = re.compile(r"[._\-](?:tp_rank|rank|tp|TP)[._\-=]?(?:\{rank\}|\d{1,3})$")
_SEPARATOR = re.compile(r"[./_]")
_MOST_WORDS = 6
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Template:
    """A pattern of a map, and which numbers its names have: of layers, ranks or hidden states."""

    pattern: str
    layers: frozenset[int] = frozenset()
    ranks: int = 1
    hidden: frozenset[int] = frozenset()

    @property
    def layered(self) -> bool:
        return bool(self.layers)


def templates_of(names: Iterable[str], layers: int) -> list[Template]:
    """Return the patterns of all names that can stand in a map, of a model of so many layers.

    Layers count from 0 or, as ``{layer+1}``, from 1 to the last; with leading zeros all have the
    same width. A rank or a step is a number only where there are several.
    """
    parsed = [(name, list(_numbers(name))) for name in names if "{" not in name and "}" not in name]
    seen = {kind: {n for _, found in parsed for k, _, n in found if k == kind} for kind in _SEVERAL}
    single = {kind for kind in _SEVERAL if len(seen[kind]) < 2}
    groups: dict[tuple[Parts, Parts], list[dict[str, str]]] = {}
    for name, found in parsed:
        literals, kinds, values = _skeleton(name, [n for n in found if n[0] not in single])
        groups.setdefault((literals, kinds), []).append(values)
    return [_template(*key, values, layers) for key, values in groups.items()]


def _numbers(name: str) -> Iterator[tuple[str, tuple[int, int], str]]:
    for match in _NUMBER.finditer(name):
        kind, group = next(
            (kind, group) for group, kind in _GROUPS.items() if match[group] is not None
        )
        yield kind, match.span(group), match[group]


def _skeleton(
    name: str, found: Sequence[tuple[str, tuple[int, int], str]]
) -> tuple[Parts, Parts, dict[str, str]]:
    """Return a name's literal pieces, the kinds of number between them, and the numbers.

    The first layer's number counts; another one is a field where it is the same number.
    """
    literals, kinds, values, end = [], [], dict[str, str](), 0
    for kind, (start, stop), text in found:
        known = values.setdefault(kind, text)
        if int(known) != int(text):
            continue
        literals.append(name[end:start])
        kinds.append(kind if len(text) == len(known) else f"{kind}?")
        end = stop
    return (*literals, name[end:]), tuple(kinds), values


def _template(
    literals: Parts, kinds: Parts, values: Sequence[dict[str, str]], layers: int
) -> Template:
    pattern, fields = literals[0], dict[str, str]()
    numbers = {kind: {int(v[kind]) for v in values} for kind in set(kinds) if "?" not in kind}
    for kind in numbers:
        texts = [v[kind] for v in values]
        wide = any(text.startswith("0") and len(text) > 1 for text in texts)
        width = f":0{len(texts[0])}" if wide and len(texts[0]) < 10 else ""
        last = max(numbers[kind])
        from_one = min(numbers[kind]) == 1 and (kind in _SEVERAL or last == layers)
        # hidden_states has what the embedding yields before what the layers do.
        offset = "+1" if from_one or (kind == "hidden" and last == layers) else ""
        fields[kind] = f"{{{'layer' if kind == 'hidden' else kind}{offset}{width}}}"
    for kind, literal in zip(kinds, literals[1:], strict=True):
        plain = fields.get(kind) or fields.get(kind.rstrip("?"), "")
        # The same number with other zeros before it, as in layer_00/model.layers.0.
        shown = plain if "?" not in kind else re.sub(r":0\d", "", plain)
        pattern += shown + literal
    found = {kind: frozenset(numbers.get(kind, ())) for kind in ("layer", "hidden")}
    return Template(pattern, found["layer"], len(numbers.get("rank", (0,))), found["hidden"])


class Index:
    """Finds the templates whose names end so, after what dumpers write after a name."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self._found: dict[tuple[str, bool], list[tuple[int, int, Template]]] = {}
        self.hidden: list[Template] = []
        for template in templates:
            if template.hidden:
                self.hidden.append(template)
            else:
                self._add(template)

    def ending_in(self, ending: str, *, layered: bool) -> list[Template]:
        """Return the templates that end in ``ending``, the likeliest first."""
        found = self._found.get((ending, layered), ())
        return [template for *_, template in sorted(found, key=lambda item: item[:2])]

    def _add(self, template: Template) -> None:
        # An ending has a layer's number as {layer} wherever the names count from.
        pattern = _COUNTED.sub(r"{\1}", template.pattern)
        pattern = _RANK_BEHIND.sub("", pattern.removesuffix("#{step}"))
        bases = [
            (order, pattern.removesuffix(suffix))
            for order, suffix in enumerate(SUFFIXES)
            if pattern.endswith(suffix)
        ]
        if hooked := _HOOKED.search(pattern):
            bases.append((len(SUFFIXES), pattern[: hooked.start()]))
        for order, base in bases:
            starts = [match.end() for match in _SEPARATOR.finditer(base)][-_MOST_WORDS:]
            for start in (0, *starts):
                key = (base[start:], template.layered)
                self._found.setdefault(key, []).append((order, len(pattern), template))
