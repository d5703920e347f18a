"""Sublayers replayed by several processes at once: the same bytes, within a bound of memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.errors import UsageError
from goldenctl.golden.file import open_golden
from goldenctl.ops.plan import Load, Plan, PlanOp, PlanSublayer, Store, Tensor, View, contiguous
from goldenctl.replay.share import shares_of, sublayer_bytes, thread_share


def linear(name: str, rows: int, columns: int, inner: int) -> PlanSublayer:
    """A sublayer of one matrix product."""
    shapes = [(rows, inner), (inner, columns), (rows, columns)]
    load, store = Load(0, 0, "float32"), Store(1, 0)
    tensors = [Tensor(f"t{i}", "float32", shape, load) for i, shape in enumerate(shapes[:2])]
    tensors.append(Tensor("t2", "float32", shapes[2], store=store))
    a, b, out = (View(i, 0, shape, contiguous(shape)) for i, shape in enumerate(shapes))
    return PlanSublayer(name, tuple(tensors), (PlanOp("gemm", "output", out, (a, b)),))


def plan_of(*sublayers: PlanSublayer) -> Plan:
    return Plan("cpu", 0, "float32", (), sublayers)


SMALL = linear("cases/a/steps/00/small", 8, 64, 64)
LARGE = linear("cases/a/steps/00/large", 8, 4096, 4096)


def test_shares_cover_every_sublayer_once() -> None:
    plan = plan_of(*[linear(f"cases/a/steps/00/s{n}", 8, 16 * (n % 5 + 1), 64) for n in range(17)])
    for workers in (1, 2, 3, 17, 40):
        shares = shares_of(plan, range(17), workers=workers)
        assert len(shares) == min(workers, 17)
        assert sorted(index for share in shares for index in share) == list(range(17))
        assert all(list(share) == sorted(share) for share in shares)


def test_work_is_shared_evenly() -> None:
    plan = plan_of(*[SMALL] * 20)
    assert [len(share) for share in shares_of(plan, range(20), workers=4)] == [5] * 4
    (large, small) = shares_of(plan_of(*[SMALL] * 9, LARGE), range(10), workers=2)
    assert large == (9,)
    assert small == tuple(range(9))


def test_memory_bounds_the_sum_of_what_runs_at_once() -> None:
    plan = plan_of(LARGE, *[SMALL] * 8, LARGE)
    both = 2 * sublayer_bytes(LARGE)
    one = sublayer_bytes(LARGE) + sublayer_bytes(SMALL)
    assert shares_of(plan, range(10), workers=2, memory_bytes=both)[0] == (0,)
    for memory_bytes in (one, both - 1):
        for share in shares_of(plan, range(10), workers=2, memory_bytes=memory_bytes):
            assert share in ((0, 9), tuple(range(1, 9)), tuple(range(10)))
    assert shares_of(plan, range(10), workers=4, memory_bytes=one - 1) == [tuple(range(10))]
    with pytest.raises(UsageError, match="large alone needs about"):
        shares_of(plan, range(10), workers=4, memory_bytes=sublayer_bytes(LARGE) - 1)


def test_threads_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert thread_share(1) == {}
    assert thread_share(2) == {"OMP_NUM_THREADS": "3"}
    assert thread_share(20) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.delenv("OMP_NUM_THREADS")
    cores = len(os.sched_getaffinity(0))
    assert thread_share(2) == {"OMP_NUM_THREADS": str(max(1, cores // 2))}


def test_same_bytes_as_one_worker(
    golden_of: Callable[..., Path], harness: Path, tmp_path: Path
) -> None:
    golden, one, three = golden_of(), tmp_path / "1.h5", tmp_path / "3.h5"
    assert harness.exists()
    assert run(["replay", str(golden), str(one)]) == 0
    assert run(["replay", str(golden), str(three), "--workers", "3", "--memory", "1GiB"]) == 0
    assert open_golden(three).content_digest == open_golden(one).content_digest


_ENGINE = """#!{python}
import json, os, sys, time
plan = json.load(open(sys.argv[1]))
open({seen!r}, "a").write(os.environ["OMP_NUM_THREADS"] + "\\n")
def say(event, **rest):
    print(json.dumps(dict(event=event, **rest)), flush=True)
say("ready", protocol=1, program="engine", device="cpu", quirks=[])
for index in range(int(sys.argv[3]), len(plan["sublayers"])):
    name, tap = plan["sublayers"][index]["name"], plan["sublayers"][index]["ops"][0]["tap"]
    say("op_start", sublayer=index, tap=tap)
    if name.endswith("layers/01/mlp"):
        os.abort()
    if name.endswith("layers/02/attention"):
        say("failed", sublayer=index, tap=tap, op="gemm", reason="status", message="BAD (3)")
        continue
    if name.endswith("layers/03/mlp"):
        time.sleep(60)
    say("sublayer_done", sublayer=index, ns=len(name))
"""


def test_failures_are_those_of_their_sublayers(
    golden_of: Callable[..., Path], tmp_path: Path
) -> None:
    """A crash, an error and a hang, whichever process meets them."""
    engine, seen, out = tmp_path / "engine", tmp_path / "seen", tmp_path / "r.h5"
    engine.write_text(_ENGINE.format(python=sys.executable, seen=str(seen)))
    engine.chmod(0o755)
    arguments = ["--backend", f"exec:{engine}", "--workers", "4", "--timeout", "2"]
    assert run(["replay", str(golden_of()), str(out), *arguments]) == 1
    file = open_golden(out)
    reasons = {n: i.failure["reason"] for n, i in file.sublayers.items() if i.failure}
    step = "cases/random-0/steps/00/layers"
    assert reasons == {
        f"{step}/01/mlp": "crash",
        f"{step}/02/attention": "status",
        f"{step}/03/mlp": "hang",
    }
    good = {name: info.time_ns for name, info in file.sublayers.items() if not info.failure}
    assert good == {name: len(name) for name in good}
    assert len(good) == 8
    assert set(seen.read_text().split()) == {"1"}


def test_chain_has_one_worker(
    golden_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden, out = str(golden_of()), str(tmp_path / "r.h5")
    capsys.readouterr()
    assert run(["replay", golden, out, "--workers", "2", "--mode", "chain"]) == 2
    assert "--workers: in --mode chain" in capsys.readouterr().err
    assert run(["replay", golden, out, "--memory", "3GiBB"]) == 2
    assert "is not a size such as 4GiB or 500MB" in capsys.readouterr().err
    assert run(["replay", golden, out, "--backend", "torch", "--memory", "1MiB"]) == 2
    assert "alone needs about" in capsys.readouterr().err
