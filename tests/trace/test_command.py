"""``goldenctl trace`` on a whole engine: the run that it writes, whole, in part, or from a log."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.golden.file import open_golden
from goldenctl.infini.find import Install
from tests.trace.example_engine import built, words

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs a command line; gives its code, output and errors."""

    def called(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return called


@pytest.fixture(scope="module")
def command(infini_install: Install, traced_model: tuple[Path, Path]) -> list[str]:
    """Return the command line of the example engine on the golden's tokens."""
    model, _ = traced_model
    return ["--", str(built(infini_install)), *words(model, "--dtype", "fp32", tokens=(5, 6, 7))]


def test_an_engine_becomes_a_run_that_diff_judges(
    call: Call, command: list[str], traced_model: tuple[Path, Path], tmp_path: Path
) -> None:
    golden, out = traced_model[1], tmp_path / "run.h5"
    code, stdout, stderr = call("trace", golden, out, *command)
    assert code == 0
    assert stdout.strip().isdecimal()  # the engine's own word: the token that follows
    assert stderr.splitlines()[-1] == f"wrote {out}; judge it: goldenctl diff {golden} {out}"
    written = open_golden(out, kind="run")
    assert written.sublayers.keys() == open_golden(golden).sublayers.keys()
    assert written.recipe["mode"] == "trace"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.h5"]  # the log has gone


def test_layers_and_steps_choose_a_part(
    call: Call, command: list[str], traced_model: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run.h5"
    options = ("--layers", "1-2", "--steps", "0")
    assert call("trace", traced_model[1], out, *options, *command)[0] == 0
    assert {path.split("/steps/00/")[1] for path in open_golden(out).sublayers} == {
        f"layers/{layer}/{part}" for layer in ("01", "02") for part in ("attention", "mlp")
    }
    code, _, stderr = call("trace", traced_model[1], out, "--steps", "9", *command)
    assert (code, "nothing of the layers and steps" in stderr) == (2, True)


def test_a_log_that_was_kept_gives_the_same_run(
    call: Call, command: list[str], traced_model: tuple[Path, Path], tmp_path: Path
) -> None:
    golden, kept = traced_model[1], tmp_path / "log.calls"
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    assert call("trace", golden, first, "--keep-calls", kept, *command)[0] == 0
    assert call("trace", golden, second, "--calls", kept)[0] == 0
    assert open_golden(first).content_digest == open_golden(second).content_digest
    code, _, stderr = call("trace", golden, second, "--calls", kept, *command)
    assert (code, "--calls and PROGRAM" in stderr) == (2, True)


def test_several_processes_give_one_run_and_a_log_each(
    call: Call, command: list[str], traced_model: tuple[Path, Path], tmp_path: Path
) -> None:
    golden, kept = traced_model[1], tmp_path / "log.calls"
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    engine = shlex.join(command[1:])
    both = ("--", "/bin/sh", "-c", f"{engine} & {engine} --mistake epsilon; wait")
    code, stdout, stderr = call("trace", golden, first, "--keep-calls", kept, *both)
    assert (code, len(stdout.split())) == (0, 2)
    said = " ".join(stderr.split())
    assert "calls of 2 processes" in said
    assert re.search(r"process 1 \(pid \d+\): \d+ calls, 79 of the model's tensors", said)
    assert re.search(r"process 2 computes \d+ tensors otherwise than those before", said)
    assert "epsilon 1e-05" in said
    logs = ("--calls", kept, "--calls", tmp_path / "log.calls.2")
    assert call("trace", golden, second, *logs)[0] == 0
    assert open_golden(first).content_digest == open_golden(second).content_digest


def test_a_log_that_is_damaged_is_told_and_leaves_the_run_as_it_was(
    call: Call, traced_model: tuple[Path, Path], tmp_path: Path
) -> None:
    log = tmp_path / "log.calls"
    log.write_bytes(b"goldenctl-log 1\n" + bytes(64))
    code, _, stderr = call("trace", traced_model[1], tmp_path / "run.h5", "--calls", log)
    assert (code, len(stderr.splitlines())) == (4, 1)
    assert not (tmp_path / "run.h5").exists()


def test_calls_that_are_not_the_goldens_keep_their_log(
    call: Call, engine: Path, traced_model: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run.h5"
    code, _, stderr = call("trace", traced_model[1], out, "--", engine, "well")
    assert code == 2
    kept = tmp_path / "run.h5.calls"
    assert f"goldenctl inspect {kept}" in stderr
    assert "none of its 2 calls is an op of the golden" in stderr.splitlines()[-1]
    assert call("inspect", kept)[0] == 0
    assert not out.exists()
