"""A report file is untrusted: whatever stands in it, it is refused in one line or rendered."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reports import EVERY, STORED
from rich.console import Console

from goldenctl.errors import GoldenctlError
from goldenctl.records.report import Report
from goldenctl.report import csv, html, junit, markdown, plot
from goldenctl.report import json as json_report
from goldenctl.report.console import view
from goldenctl.report.json import load_report, to_json
from goldenctl.report.sections.choice import ALL

VALUES = (
    None, 0, -1, 1, 1e308, -1e308, 5e-324, 1 << 62, "", "NaN", "Inf", "-Inf", "x",
    "cases/a/steps/00/layers/zz/mlp", "\x00", [], {}, [1], [[]], {"a": 1}, True, "\ud800",
)  # fmt: skip
Key = str | int


def places(value: Any, path: tuple[Key, ...] = ()) -> Iterator[tuple[Key, ...]]:
    """Yield the path of everything inside; of long lists only the start."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value[:6])
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def damaged(data: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Change or remove one thing, up to three times."""
    data = copy.deepcopy(data)
    for _ in range(chance.randint(1, 3)):
        *way, last = chance.choice(list(places(data)))
        target: Any = data
        for key in way:
            target = target[key]
        if chance.random() < 0.2:
            del target[last]
        else:
            target[last] = chance.choice(VALUES)
    return data


def render_all(made: Report) -> None:
    for module in (json_report, html, junit, markdown, csv):
        module.render(made).encode()
    for each in plot.drawn(made):
        plot.svg(each.figure).encode()
    Console(file=io.StringIO(), width=80).print(view(made, ALL))


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_report_is_refused_or_rendered(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    sources = [json.loads(path.read_text()) for path in sorted(STORED.glob("*.json"))]
    sources += [to_json(make()) for make in EVERY.values()]
    path = tmp_path / "r.json"
    rendered = 0
    for _ in range(60):
        path.write_text(json.dumps(damaged(chance.choice(sources), chance)))
        made, error = loaded(path)
        if made is None:
            assert error.startswith(str(path))
            assert "\n" not in error
            continue
        render_all(made)
        rendered += 1
    assert rendered > 3


def loaded(path: Path) -> tuple[Report | None, str]:
    """Return the report, or in one line why there is none."""
    try:
        return load_report(path), ""
    except GoldenctlError as error:
        return None, str(error)
