"""What passes in other orders and over other memory tell apart, and what a replay says of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.golden.file import open_golden
from goldenctl.records.determinism import Finding
from goldenctl.replay.determinism import (
    NOISE,
    ORDER,
    OUT_OF_BOUNDS,
    UNINITIALISED,
    Condition,
    Signatures,
    conditions,
    experiment,
    findings,
)

COUNT = 5
BAD = 2
# Yields the signature of the tap "b" of sublayer BAD: (condition, number of the pass).
Behaviour = Callable[[Condition, int], str]


def place(condition: Condition) -> int:
    return condition.order.index(BAD)


BEHAVIOURS: dict[str, tuple[Behaviour, tuple[str, ...]]] = {
    "steady": (lambda _c, _n: "x", ()),
    "every pass differs": (lambda _c, n: str(n), (NOISE,)),
    "one pass in ten differs": (lambda _c, n: str(n == 1), (NOISE,)),
    "one poisoned pass differs": (lambda _c, n: str(n == 2), (NOISE,)),
    "the last pass differs": (lambda _c, n: str(n >= 3), (NOISE,)),
    "depends on memory": (lambda c, _n: c.poison, (UNINITIALISED,)),
    "depends on its place": (lambda c, _n: str(place(c)), (ORDER,)),
    "depends on what ran before": (
        lambda c, _n: str(c.order[place(c) - 1] if place(c) else None),
        (ORDER,),
    ),
    "depends on both": (lambda c, _n: f"{c.poison} {place(c)}", (UNINITIALISED, ORDER)),
    "noise hides the rest": (lambda c, n: f"{c.poison} {place(c)} {n % 2}", (NOISE,)),
    "fails over other memory": (
        lambda c, _n: "x" if c.poison == "0" else "failed: status at b, BAD",
        (UNINITIALISED,),
    ),
    "fails in every pass": (lambda _c, _n: "failed: status at b, BAD", ()),
    "fails now and then": (lambda _c, n: "x" if n else "failed: crash at b, SIGSEGV", (NOISE,)),
    "writes past the end": (
        lambda _c, n: "x" if n else "failed: overrun at b, bytes changed",
        (OUT_OF_BOUNDS,),
    ),
}


def probed(
    behaviour: Behaviour, *, rounds: int = 1, isolated_ops: bool = False
) -> list[tuple[int, Finding]]:
    passes = 0

    def run_pass(condition: Condition) -> Signatures:
        nonlocal passes
        seen = behaviour(condition, passes)
        passes += 1
        bad = {"b": seen} if seen.startswith("failed") else {"a": "a", "b": seen, "c": seen}
        return {i: bad if i == BAD else {"a": "a", "b": "b"} for i in condition.order}

    made = conditions(COUNT, rounds=rounds, seed=1, poisons=True)
    return findings(experiment(made, run_pass), isolated_ops=isolated_ops)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_classes_are_told_apart(name: str, rounds: int) -> None:
    behaviour, classes = BEHAVIOURS[name]
    found = probed(behaviour, rounds=rounds)
    assert [(index, f.tap, f.classes) for index, f in found] == (
        [(BAD, "b", classes)] if classes else []
    )


def test_ops_that_inherit_nothing_are_all_named() -> None:
    behaviour, _ = BEHAVIOURS["depends on memory"]
    assert [f.tap for _, f in probed(behaviour, isolated_ops=True)] == ["b", "c"]


def test_a_note_says_how() -> None:
    ((_, overrun),) = probed(BEHAVIOURS["writes past the end"][0])
    assert overrun.note == "bytes changed"
    ((_, memory),) = probed(BEHAVIOURS["depends on memory"][0])
    assert memory.note == "another result where memory held pattern 1 before"


@pytest.mark.parametrize("count", [1, 2, 30])
def test_conditions(count: int) -> None:
    """Orders are permutations, none is the plain one, and a seed names them."""
    made = conditions(count, rounds=4, seed=7, poisons=True)
    assert made == conditions(count, rounds=4, seed=7, poisons=True)
    plain, *others = made
    shuffled = [c for c in others if c.kind == "shuffled"]
    assert len(shuffled) == 4
    assert all(sorted(c.order) == sorted(plain.order) for c in made)
    assert count == 1 or all(c.order != plain.order for c in shuffled)
    assert all(c.order == plain.order for c in others if c.kind == "poisoned")
    assert not [c for c in conditions(count, rounds=1, seed=7, poisons=False) if c.poison != "0"]


# An engine that stores zeros, but for the sublayer "mlp" of layer 1, where {value} decides.
# {index} is its index in the plan, {position} its place in the run, {poison} the pattern.
_ENGINE = """#!{python}
import json, os, random, struct, sys
plan = json.load(open(sys.argv[1]))
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
poison = options.get("--poison", "0")
def say(event, **rest):
    print(json.dumps(dict(event=event, **rest)), flush=True)
say("ready", protocol=1, program="engine", device="cpu", quirks=[])
before = None
for index in range(int(options["--skip"]), len(plan["sublayers"])):
    sublayer = plan["sublayers"][index]
    bad = sublayer["name"].endswith("layers/01/mlp")
    for number, op in enumerate(sublayer["ops"]):
        say("op_start", sublayer=index, tap=op["tap"])
        tensor = sublayer["tensors"][op["out"]["tensor"]]
        if "store" in tensor:
            with open(plan["files"][1]["path"], "r+b") as run:
                run.seek(tensor["store"]["offset"])
                run.write(struct.pack("<f", {value} if bad and number == 3 else 0.0))
        say("op_done", sublayer=index, tap=op["tap"], op=op["op"], ns=1)
    say("sublayer_done", sublayer=index, ns=1)
    before = sublayer["name"]
"""
VALUES = {
    "deterministic": ("1.0", None),
    NOISE: ("random.random()", "results of one input"),
    UNINITIALISED: ("float(poison == '1')", "memory held pattern 1 before"),
    ORDER: ("float(before.endswith('layers/01/attention'))", "of another order"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_replay_says_what_an_engine_does(
    golden_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    value, note = VALUES[kind]
    engine, out = tmp_path / "engine", tmp_path / "r.h5"
    engine.write_text(_ENGINE.format(python=sys.executable, value=value))
    engine.chmod(0o755)
    golden = golden_of()
    capsys.readouterr()
    arguments = ["replay", str(golden), str(out), "--backend", f"exec:{engine}", "--shuffle"]
    assert run([*arguments, "--seed", "1"]) == (0 if note is None else 1)
    printed = capsys.readouterr().out
    determinism = open_golden(out).recipe["determinism"]
    assert determinism["seed"] == 1
    assert determinism["poisons"]
    if note is None:
        assert "✓ deterministic: the same bits in 4 passes" in printed
        assert determinism["findings"] == []
        return
    assert f"✗ {kind}: layers.01.mlp.swiglu" in printed
    (found,) = determinism["findings"]
    assert found["classes"] == [kind]
    assert found["tap"] == "swiglu"
    assert note in found["note"]
    assert note in printed


def test_infinicore_is_deterministic(
    golden_of: Callable[..., Path],
    harness: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The real engine, and the run holds the bytes of a replay without passes."""
    golden, plain, shuffled = golden_of(), tmp_path / "p.h5", tmp_path / "s.h5"
    assert harness.exists()
    assert run(["replay", str(golden), str(plain)]) == 0
    assert run(["replay", str(golden), str(shuffled), "--shuffle", "--repeat", "2"]) == 0
    assert "✓ deterministic" in capsys.readouterr().out
    assert open_golden(shuffled).content_digest == open_golden(plain).content_digest


def test_order_is_that_of_one_process(golden_of: Callable[..., Path], tmp_path: Path) -> None:
    golden, out = str(golden_of()), str(tmp_path / "r.h5")
    for options in (["--mode", "chain"], ["--workers", "2"], ["--resume"], ["--memory", "1GiB"]):
        assert run(["replay", golden, out, "--shuffle", *options]) == 2
    assert run(["replay", golden, out, "--backend", "simulated", "--shuffle"]) == 2
