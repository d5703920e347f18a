"""How goldens were recorded: the whole recipe, and what differs between two, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from goldenctl.digests import hex_of, is_known
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.recipe import Recipe, parse_recipe

# In the order of how likely each is to change bits; the rest follows by name.
_NAMES = {
    "model.fingerprint": "checkpoint",
    "model.path": "checkpoint's place",
    "dtype": "dtype",
    "reference.device": "device",
    "reference.torch": "torch",
    "reference.cpu_capability": "CPU capability",
    "reference.threads": "threads",
    "reference.machine": "machine",
    "reference.attention": "attention",
    "reference.implementation": "implementation",
    "cases": "cases",
    "taps": "taps",
    "layers": "layers",
    "logits": "logits",
    "oracle": "oracle",
    "reference.python": "Python",
}
_SHOWN = 24


def differences(old: Recipe, new: Recipe, tool_versions: tuple[str, str] = ("", "")) -> list[str]:
    """Return ``name old → new`` for everything that was not the same, most telling first.

    ``tool_versions`` are those of goldenctl that wrote the two.
    """
    before, after = _flat(old), _flat(new)
    of_case = {key for key in before.keys() ^ after.keys() if " of case " in key}
    keys = (before.keys() | after.keys()) - (
        of_case if before["cases"] != after["cases"] else set()
    )
    found = {key for key in keys if before.get(key) != after.get(key)}
    order = {key: number for number, key in enumerate(_NAMES)}
    names = sorted(found, key=lambda key: (order.get(key, len(order)), key))
    said = [_say(key, before.get(key), after.get(key)) for key in names]
    if tool_versions[0] != tool_versions[1]:
        said.append(_say("goldenctl", *tool_versions))
    return said


def told_apart(old: GoldenFile, new: GoldenFile) -> tuple[str, ...]:
    """Return ``differences`` of two goldens, their token ids included."""
    tools = old.tool_version, new.tool_version
    return tuple(differences(full_recipe(old), full_recipe(new), tools))


def full_recipe(golden: GoldenFile) -> Recipe:
    """Return a golden's recipe with the token ids of its cases, so that it can be recorded
    again without the golden. Raises DamagedError for one that this goldenctl does not know."""
    recipe = parse_recipe(golden.recipe, str(golden.path))
    cases = []
    for case in recipe.cases:
        ids = f"cases/{case.name}/token_ids"
        if ids in golden.tensors:
            rows = tuple(tuple(row) for row in golden.verify(ids).tolist())
            case = msgspec.structs.replace(case, token_ids=rows)
        cases.append(case)
    return msgspec.structs.replace(recipe, cases=tuple(cases))


def _flat(recipe: Recipe) -> dict[str, Any]:
    raw = msgspec.to_builtins(recipe)
    cases = {case.pop("name"): case for case in raw.pop("cases")}
    said = {f"{key} of case {name}": v for name, c in cases.items() for key, v in c.items()}
    return {**dict(_leaves(raw, "")), "cases": ", ".join(cases), **said}


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _say(key: str, old: Any, new: Any) -> str:
    name = _NAMES.get(key, key)
    if isinstance(old, tuple | list) and isinstance(new, tuple | list) and key != "layers":
        return f"{name} differ"
    return f"{name} {_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    text = "none" if value is None or value == "" else str(value)
    text = hex_of(text) if is_known(text) else text
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 12]}..."
