"""How a replay survives its backend: crashes, hangs, lies, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.golden.file import open_golden
from goldenctl.golden.schema import SublayerInfo

BAD = "layers.01.attention"
BAD_PATH = "cases/random-0/steps/00/layers/01/attention"
FAILURES = {
    "crash": (
        'sys.stderr.write("noise\\n" * 40 + "last words\\n"); sys.stderr.flush()\n'
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "crash",
        "killed by SIGSEGV",
    ),
    "realtime": ("os.kill(os.getpid(), 40)", "crash", "killed by signal 40"),
    "exit": ("sys.exit(9)", "crash", "exit status 9"),
    "quiet": ("os._exit(0)", "crash", "exit status 0"),
    "hang": ("time.sleep(60)", "hang", "no sign of life for 1 s"),
    "closed": (
        "os.dup2(os.open('/dev/null', os.O_WRONLY), 1); time.sleep(60)",
        "hang",
        "no sign of life for 1 s",
    ),
    "text": (
        "print('hello', flush=True); time.sleep(60)",
        "protocol",
        "expected a JSON event on its output, got 'hello'",
    ),
    "array": (
        "print('[1]', flush=True)",
        "protocol",
        "expected a JSON event on its output, got '[1]'",
    ),
    "bytes": (
        "os.write(1, b'\\xff\\x00\\n')",
        "protocol",
        "expected a JSON event on its output, got '\ufffd\\x00'",
    ),
    "endless": (
        "os.write(1, b'x' * 3000000); time.sleep(60)",
        "protocol",
        f"expected a JSON event on its output, got '{'x' * 80}'",
    ),
    "number": (
        "say('sublayer_done', sublayer=index, ns='soon')",
        "protocol",
        'expected a JSON event on its output, got \'{"event": "sublayer_done", "sublayer": 3, '
        '"ns": "soon"}\'',
    ),
    "skipped": (
        "say('sublayer_done', sublayer=4, ns=1)",
        "protocol",
        "sublayer_done of sublayer 4, expected 3",
    ),
    "status": (
        "say('failed', sublayer=index, tap=tap, op='gemm', reason='status', message='BAD (3)')\n"
        "continue",
        "status",
        "BAD (3)",
    ),
}


def replayed(golden: Path, out: Path, backend: str, *options: str) -> int:
    return run(["replay", str(golden), str(out), "--backend", backend, *options])


def failures(out: Path) -> dict[str, dict[str, str]]:
    """Return the failed sublayers of a run, by path."""
    found = open_golden(out, kind="run").sublayers
    bad: dict[str, SublayerInfo] = {n: i for n, i in found.items() if i.status == "failed"}
    return {name: dict(info.failure or {}) for name, info in bad.items()}


@pytest.mark.parametrize("kind", FAILURES)
def test_one_sublayer_fails_and_the_rest_goes_on(
    kind: str,
    golden_of: Callable[..., Path],
    stand_in: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at, reason, message = FAILURES[kind]
    golden, out = golden_of(), tmp_path / "r.h5"
    capsys.readouterr()
    assert replayed(golden, out, stand_in(at=at), "--timeout", "1") == 1
    printed = capsys.readouterr()
    assert f"✗ {BAD_PATH} failed" in printed.out
    assert "10 of 11 sublayers replayed" in printed.out
    assert printed.err == ""
    ((path, failure),) = failures(out).items()
    assert (path, failure["reason"], failure["message"]) == (BAD_PATH, reason, message)
    assert failure["tap"] == "input_layernorm"
    assert failure["op"] == ("gemm" if kind == "status" else "rms_norm")  # said, or the plan's
    if kind == "crash":
        assert failure["stderr"].splitlines() == ["noise"] * 11 + ["last words"]
    run_file = open_golden(out)
    assert run_file.recipe["backend"]["program"] == "stand-in 1"
    assert run_file.recipe["backend"]["quirks"] == ["odd"]
    times = {info.time_ns for name, info in run_file.sublayers.items() if name != BAD_PATH}
    assert times == {7}
    plan = out.with_name("r.h5.debug.json")
    assert failure["command"] == [str(tmp_path / "stand-in"), str(plan), "--only", "0"]
    assert [s["name"] for s in json.loads(plan.read_text())["sublayers"]] == [BAD_PATH]
    report = tmp_path / "report.json"
    assert run(["diff", str(golden), str(out), "--json", str(report)]) == 1
    judged = {s["name"]: s for s in json.loads(report.read_text())["sublayers"]}
    assert [name for name, s in judged.items() if s["state"] == "crashed"] == [BAD_PATH]
    said = judged[BAD_PATH]["tensors"][0]["message"]
    assert said == f"{reason} at input_layernorm: {message}"
    capsys.readouterr()
    assert run(["inspect", str(out)]) == 0
    assert "--only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("starts", "place"),
    [
        (["q_proj"], {"tap": "q_proj", "op": "rearrange"}),
        (["q_proj", "q_proj"], {"tap": "q_proj", "op": "gemm"}),
        (["q_proj", "q_proj", "k_proj"], {"tap": "k_proj", "op": "rearrange"}),
        (["q_proj", "q_proj", "q_proj"], {"tap": "q_proj"}),
        (["nothing"], {"tap": "nothing"}),
    ],
    ids=["bias", "product", "next", "surplus", "unknown"],
)
def test_the_op_of_a_crash_is_the_launch_that_was_started(
    golden_of: Callable[..., Path],
    stand_in: Callable[..., str],
    tmp_path: Path,
    starts: list[str],
    place: dict[str, str],
) -> None:
    """A linear layer with bias is two launches; a program may also claim ops that are not there."""
    at = "".join(f"say('op_start', sublayer=index, tap={tap!r})\n" for tap in starts)
    backend = stand_in(at=at + "os._exit(9)")
    assert replayed(golden_of("qwen2-tiny"), tmp_path / "r.h5", backend) == 1
    ((path, failure),) = failures(tmp_path / "r.h5").items()
    assert path == BAD_PATH
    assert {key: failure[key] for key in ("tap", "op") if key in failure} == place


def test_more_events_than_sublayers_spoil_the_last(
    golden_of: Callable[..., Path], stand_in: Callable[..., str], tmp_path: Path
) -> None:
    backend = stand_in(end="say('sublayer_done', sublayer=count, ns=1)")
    assert replayed(golden_of(), tmp_path / "r.h5", backend) == 1
    ((path, failure),) = failures(tmp_path / "r.h5").items()
    assert path.endswith("/lm_head")
    assert failure["reason"] == "protocol"
    assert failure["message"] == "it reported more sublayers than were asked"


def test_chain_stops(
    golden_of: Callable[..., Path], stand_in: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "r.h5"
    backend = stand_in(at="os.abort()")
    assert replayed(golden_of(), out, backend, "--mode", "chain") == 1
    reasons = [failure["reason"] for failure in failures(out).values()]
    assert reasons == ["crash"] + ["not_run"] * 7
    assert len(json.loads(out.with_name("r.h5.debug.json").read_text())["sublayers"]) == 1


def test_backend_that_does_not_start_again(
    golden_of: Callable[..., Path], stand_in: Callable[..., str], tmp_path: Path
) -> None:
    """What ran before is kept: a device may have died with the first failure."""
    backend = stand_in(start="if first: sys.exit('device lost')", at="os.abort()")
    assert replayed(golden_of(), tmp_path / "r.h5", backend) == 1
    found = list(failures(tmp_path / "r.h5").values())
    assert [failure["reason"] for failure in found] == ["crash"] + ["not_run"] * 7
    said = "the backend did not start again: exit status 1: device lost"
    assert found[1]["message"] == said


@pytest.mark.parametrize(
    ("start", "code", "said"),
    [
        ("sys.exit('no card')", 3, "it did not start, exit status 1: no card"),
        ("sys.exit(4)", 4, "it did not start, exit status 4"),
        ("print('hi', flush=True)", 4, "expected a JSON event on its output, got 'hi'; "),
        ("say('failed', reason='device', message='none here')", 3, "none here"),
        ("say('failed', reason='plan', message='bad plan')", 4, "bad plan"),
    ],
)
def test_backend_that_never_starts(
    golden_of: Callable[..., Path],
    stand_in: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    start: str,
    code: int,
    said: str,
) -> None:
    golden = golden_of()
    capsys.readouterr()
    backend = stand_in(start=start)
    assert replayed(golden, tmp_path / "r.h5", backend) == code
    assert capsys.readouterr().err.startswith(f"goldenctl: {tmp_path / 'stand-in'}: {said}")
    assert [path.name for path in tmp_path.iterdir()] == ["stand-in"]


@pytest.mark.parametrize("fault", ["", "scale_2@layers.00.attention.q_proj"], ids=["none", "fault"])
def test_command_of_a_failure_reruns_it_alone(
    golden_of: Callable[..., Path], harness: Path, tmp_path: Path, fault: str
) -> None:
    """InfiniCore's CPU build has no fused attention, so the real harness refuses it."""
    out = tmp_path / "r.h5"
    options = ["--attention", "sdpa", *(["--inject", fault] if fault else [])]
    assert replayed(golden_of(), out, f"exec:{harness}", *options) == 1
    found = failures(out)
    assert len(found) == 4
    before = out.read_bytes()
    for path, failure in found.items():
        command = failure["command"]
        assert command[0] == str(harness)
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        events = [json.loads(line) for line in ran.stdout.splitlines()]
        again = [event for event in events if event["event"] == "failed"]
        assert [(e["tap"], e["reason"], e["message"]) for e in again] == [
            (failure["tap"], failure["reason"], failure["message"])
        ], path
    assert out.read_bytes() == before
    assert replayed(golden_of(), out, "infinicore", "--force") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.h5"]  # no stale plan


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 143, "terminated"),
    ],
    ids=["interrupt", "terminate", "hang up"],
)
def test_a_signal_leaves_nothing(
    golden_of: Callable[..., Path],
    stand_in: Callable[..., str],
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    word: str,
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("this signal is ignored here, as under nohup")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # What the backend started itself, and says the number of, goes with it.
    child = "__import__('subprocess').Popen(['sleep', '100'])"
    hangs = tmp_path / "hangs"
    says = f"open({str(hangs) + '.new'!r}, 'w').write(str({child}.pid))"
    moves = f"__import__('os').rename({str(hangs) + '.new'!r}, {str(hangs)!r})"
    backend = stand_in(at=f"{says}; {moves}; time.sleep(100)")
    arguments = ["replay", str(golden_of()), str(tmp_path / "r.h5"), "--backend", backend]
    process = subprocess.Popen(
        [sys.executable, "-m", "goldenctl", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    deadline = time.monotonic() + 60
    while not hangs.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list(tmp_path.glob(".r.h5.*.part"))
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert said.strip() == f"goldenctl: {word}; nothing half-written was left"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hangs", "scratch", "stand-in"]
    assert list(scratch.iterdir()) == []
    stat = Path("/proc", hangs.read_text(), "stat")
    deadline = time.monotonic() + 30
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_program_of_this_folder_needs_no_path(
    golden_of: Callable[..., Path],
    stand_in: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    golden, out = golden_of(), tmp_path / "r.h5"
    path = Path(stand_in().removeprefix("exec:"))
    monkeypatch.chdir(path.parent)
    assert run(["replay", str(golden), str(out), "--backend", f"exec:{path.name}"]) in (0, 1)
    assert open_golden(out).recipe["backend"]["path"] == str(path)
