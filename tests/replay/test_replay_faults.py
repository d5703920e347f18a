"""Every fault of the catalogue, injected into a real InfiniCore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.errors import UsageError
from goldenctl.golden.file import open_golden
from goldenctl.model import graph
from goldenctl.model.config import preset_config
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.inject import inject, parse_injection

pytestmark = pytest.mark.slow

FAMILIES = ("tiny", "qwen2-tiny", "llama-tiny")
# Injected elsewhere: test_replay_padding.py has padding, ../verdict/test_cache_faults.py a cache.
ELSEWHERE = {"no_padding_mask", "rope_restarts", "mask_without_past", "cache_lost"}
ELSEWHERE |= {"cache_not_written", "cache_one_early"}


@pytest.fixture(scope="session")
def runs(golden_of: Callable[..., Path], harness: Path) -> Callable[[str], Path]:
    """Return a function from family to its right run, made once."""

    def made(family: str) -> Path:
        golden = golden_of(family)
        out = golden.with_name(f"{family}-right.h5")
        if not out.exists():
            assert run(["replay", str(golden), str(out)]) == 0
        return out

    return made


def fits(name: str, family: str) -> bool:
    config = preset_config(family)
    sublayers = {s.name: s for s in graph.decoder(config, logits="last")}
    try:
        inject(sublayers, [parse_injection(name)], config)
    except UsageError:
        return False
    return True


# Every other one of those that a family here can have: the selftest puts in the rest.
@pytest.mark.parametrize(
    "name", [n for n in sorted(FAULTS.keys() - ELSEWHERE) if any(fits(n, f) for f in FAMILIES)][::2]
)
def test_fault_changes_outputs_and_is_named(
    name: str,
    golden_of: Callable[..., Path],
    runs: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    family = next((f for f in FAMILIES if fits(name, f)), None)
    assert family is not None
    golden, out = golden_of(family), tmp_path / "r.h5"
    assert run(["replay", str(golden), str(out), "--inject", name]) == 0
    faulty, right = open_golden(out), open_golden(runs(family))
    assert faulty.recipe["faults"] == [name]
    changed = [n for n, i in faulty.tensors.items() if right.info(n).digest != i.digest]
    assert changed
    capsys.readouterr()
    run(["diff", str(golden), str(out)])
    assert f"INJECTED FAULTS: {name}\n" in capsys.readouterr().out


def test_place_limits_a_fault(
    golden_of: Callable[..., Path], runs: Callable[[str], Path], tmp_path: Path
) -> None:
    golden, out = golden_of("tiny"), tmp_path / "r.h5"
    place = "scale_2@layers.02.mlp.down_proj"
    assert run(["replay", str(golden), str(out), "--inject", place]) == 0
    faulty, right = open_golden(out), open_golden(runs("tiny"))
    changed = [n for n, i in faulty.tensors.items() if right.info(n).digest != i.digest]
    folder = "cases/random-0/steps/00/layers/02/mlp"
    assert changed == [f"{folder}/down_proj", f"{folder}/composed/output"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nope", "there is no fault nope"),
        ("no_norm@", "'' is not a place"),
        ("no_norm@a b", "'a b' is not a place"),
    ],
)
def test_parse_injection_refuses(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_injection(text)
