"""What the tests of the replay share: goldens of every family, stand-in backends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from goldenctl.cli import run
from goldenctl.ops.plan import Plan, write_plan
from goldenctl.replay import launch as launch_module
from goldenctl.replay.supervise import Execution, Outcome

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests share their cores

# A backend that computes nothing. {at} runs before op_done of the sublayer BAD, {start}
# before ready, {end} after the last sublayer.
_STAND_IN = """#!{python}
import json, os, signal, sys, time
plan = json.load(open(sys.argv[1]))
options = dict(zip(sys.argv[2::2], map(int, sys.argv[3::2])))
BAD = {bad}
count, first = len(plan["sublayers"]), options.get("--skip", 0)
def say(event, **rest):
    print(json.dumps(dict(event=event, **rest)), flush=True)
{start}
say("ready", protocol=1, program="stand-in 1", device="cpu", quirks=["odd"])
for index in range(first, count):
    tap = plan["sublayers"][index]["ops"][0]["tap"]
    say("op_start", sublayer=index, tap=tap)
    if index == BAD:
        pass
{at}
    say("op_done", sublayer=index, tap=tap, op="none", ns=5)
    say("sublayer_done", sublayer=index, ns=7)
{end}
say("finished")
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a backend and returns its ``exec:`` name."""

    def made(*, at: str = "", start: str = "", end: str = "", bad: int = 3) -> str:
        path = tmp_path / "stand-in"
        indented = "\n".join(f"        {line}" for line in at.splitlines())
        text = _STAND_IN.format(python=sys.executable, bad=bad, at=indented, start=start, end=end)
        path.write_text(text)
        path.chmod(0o755)
        return f"exec:{path}"

    return made


@pytest.fixture(scope="session")
def golden_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function from (preset, dtype, other inputs) to a golden, made once; of five
    tokens unless told otherwise."""
    folder = tmp_path_factory.mktemp("replay")

    def made(preset: str = "tiny", dtype: str = "float32", *inputs: str) -> Path:
        name = "-".join([preset, dtype, *inputs]).replace(" ", "_")
        checkpoint, golden = folder / preset, folder / f"{name}.h5"
        if not checkpoint.exists():
            assert run(["synth", preset, str(checkpoint)]) == 0
        if not golden.exists():
            chosen = inputs or ("--random-tokens", "5")
            options = [str(checkpoint), str(golden), "--dtype", dtype, *chosen]
            assert run(["record", *options]) == 0
        return golden

    return made


@pytest.fixture
def torch_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let replays run the torch backend in this process, whatever backend they name."""
    from goldenctl.reference import torch_backend

    def execute(_command: Any, plan: Plan, **_: Any) -> Execution:
        path = tmp_path / "plan.json"
        write_plan(plan, path)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert torch_backend.main([str(path)]) == 0
        events = [json.loads(line) for line in out.getvalue().splitlines()]
        assert [e for e in events if e["event"] == "failed"] == []
        return Execution("torch", [], [Outcome() for _ in plan.sublayers])

    monkeypatch.setattr(launch_module, "execute", execute)
