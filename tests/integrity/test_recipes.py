"""A short run of recipes.py: forged recipes and misshapen tensors end in one line."""

from __future__ import annotations

import pytest
from recipes import Bench, forge, forged_tensors, try_forgeries

from goldenctl import cli
from goldenctl.golden.file import open_golden

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    pytest.importorskip("torch")
    return Bench.of(tmp_path_factory.mktemp("bench"))


def test_forgeries_end_in_one_line(bench: Bench) -> None:
    tally = try_forgeries(bench, count=4, seed=2026)
    assert not tally.bad, tally


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model", None, "recipe has no model"),
        ("model", {"path": "x", "fingerprint": "y"}, "recipe: model has no config"),
        ("model", {"config": []}, r"Expected `object`, got `array` - at `$.model.config`"),
        ("model", {"config": {"num_hidden_layers": 10**9}}, "missing config keys"),
        ("dtype", "float8", r"at `$.dtype`"),
    ],
)
def test_what_is_said_of_a_recipe(
    bench: Bench, capsys: pytest.CaptureFixture[str], key: str, value: object, said: str
) -> None:
    golden, path = open_golden(bench.golden), bench.folder / "other.h5"
    forge(golden, path, {**golden.recipe, key: value})
    command = ["blame", str(path), "--backend", f"exec:{bench.engine}"]
    assert cli.run(command) in (2, 4)
    assert said in capsys.readouterr().err


def test_a_budget_of_another_shape_is_refused(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    golden, path = open_golden(bench.golden), bench.folder / "budget.h5"
    name = next(name for name in golden.tensors if "/budget/" in name)
    specs = dict(forged_tensors(golden))[f"{name} one dimension more"]
    forge(golden, path, golden.recipe, specs)
    assert cli.run(["diff", str(path), str(bench.run)]) == 4
