"""Times of backends side by side: what is concluded from them, and what is not."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.records.units import per_second
from goldenctl.studies.bench import Spread, compared

_ENGINE = """#!{python}
import json, random, sys
plan = json.load(open(sys.argv[1]))
def say(event, **rest):
    print(json.dumps(dict(event=event, **rest)), flush=True)
say("ready", protocol=1, program="engine {ns}", device="cpu", quirks=[])
for index in range(int(sys.argv[3]), len(plan["sublayers"])):
    sublayer = plan["sublayers"][index]
    assert not [t for t in sublayer["tensors"] if "store" in t]
    if sublayer["name"].endswith("{bad}"):
        sys.exit(5)
    total = 0
    for op in sublayer["ops"]:
        ns = int({ns})
        say("op_start", sublayer=index, tap=op["tap"])
        say("op_done", sublayer=index, tap=op["tap"], op=op["op"], ns=ns)
        total += ns
    say("sublayer_done", sublayer=index, ns=total)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes an engine whose ops take ``ns`` each."""

    def made(name: str, ns: str, bad: str = "nowhere") -> str:
        path = tmp_path / name
        path.write_text(_ENGINE.format(python=sys.executable, ns=ns, bad=bad))
        path.chmod(0o755)
        return f"exec:{path}"

    return made


def drifting(factor: float, noise: float = 0.0) -> list[float]:
    """Times of a machine that becomes three times as slow while it is measured."""
    draw = random.Random(1)
    return [factor * (1 + number / 5) * (1 + noise * draw.random()) for number in range(11)]


VERDICTS = [
    (drifting(100.0), drifting(100.0), "level"),
    (drifting(110.0), drifting(100.0), "slower"),
    (drifting(80.0), drifting(100.0), "faster"),
    (drifting(100.0, noise=2.0), drifting(100.0), "noisy"),
    (drifting(200.0)[:2], drifting(100.0)[:2], "few"),
]


@pytest.mark.parametrize(("times", "base", "verdict"), VERDICTS, ids=[v[2] for v in VERDICTS])
def test_a_ratio_is_taken_within_a_pass(
    times: list[float], base: list[float], verdict: str
) -> None:
    assert compared("b", "a", times, base).verdict == verdict


def test_spread() -> None:
    spread = Spread.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (spread.low, spread.median, spread.high, spread.relative) == (2.0, 3.0, 4.0, 2 / 3)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_side_by_side(
    golden_of: Callable[..., Path],
    engine: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Known times give known ratios, tokens per second and verdicts."""
    monkeypatch.setenv("COLUMNS", "160")
    golden, out = golden_of(), tmp_path / "bench.json"
    slow, fast = engine("slow", "2000"), engine("fast", "1000")
    capsys.readouterr()
    arguments = ["--backend", slow, "--backend", fast, "--repeat", "3", "--json", str(out)]
    assert run(["bench", str(golden), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "exec:fast is faster: it takes 0.50 times (0.50 to 0.50) as long as exec:slow" in printed
    measured = json.loads(out.read_text())
    assert measured["bench_version"] == 1
    ops = {kind: spread["median"] for kind, spread in measured["results"][0]["ops"].items()}
    assert ops["causal_softmax"] == 4 * 2000
    assert ops["linear"] == 2000 * (4 * (4 + 3) + 1)
    total = measured["results"][1]["total_ns"]["median"]
    (step,) = measured["results"][1]["steps"]
    assert (step["kind"], step["tokens"], step["ns"]["median"]) == ("prefill", 5, total)
    assert per_second(5 / total * 1e9) in printed


def test_no_tokens_per_second_of_a_part(
    golden_of: Callable[..., Path], engine: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "bench.json"
    arguments = ["--backend", engine("a", "1"), "--layers", "1", "--repeat", "1"]
    assert run(["bench", str(golden_of()), *arguments, "--json", str(out)]) == 0
    measured = json.loads(out.read_text())
    assert measured["results"][0]["steps"] == []
    assert len(measured["results"][0]["sublayers"]) == 2


def test_what_fails_on_one_counts_for_none(
    golden_of: Callable[..., Path],
    engine: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "bench.json"
    backends = [engine("good", "1000"), engine("bad", "1000", bad="layers/02/mlp")]
    arguments = [word for backend in backends for word in ("--backend", backend)]
    assert run(["bench", str(golden_of()), *arguments, "--json", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "✗ failed, so left out for all: layers.02.mlp" in printed
    assert "no difference beyond the spread" in " ".join(printed.split())
    good, bad = json.loads(out.read_text())["results"]
    assert good["failed"] == []
    assert bad["failed"] == ["cases/random-0/steps/00/layers/02/mlp"]
    assert good["total_ns"] == bad["total_ns"]
    assert len(good["sublayers"]) == 10


def test_real_engines(
    golden_of: Callable[..., Path],
    harness: Path,
    infini_install: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from goldenctl.infini.find import find_install

    assert harness.exists()
    root = find_install().root
    golden = golden_of()
    capsys.readouterr()
    backends = ["--backend", "infinicore@cpu", "--backend", f"infinicore:{root}"]
    assert run(["bench", str(golden), *backends, "--repeat", "2", "--launches", "1", "-v"]) == 0
    printed = capsys.readouterr().out
    assert "too few passes to conclude anything" in " ".join(printed.split())
    assert "layers.03.mlp" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "simulated"], "bench: a simulated backend takes no time"),
        (["--backend", "infinicore@moon"], "device 'moon' is not known"),
        (["--backend", "nothing"], "backend 'nothing' is not known"),
        (["--backend", "torch", "--layers", "9"], "layer 9 does not exist"),
    ],
)
def test_wrong_usage(
    golden_of: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    golden = golden_of()
    capsys.readouterr()
    assert run(["bench", str(golden), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
