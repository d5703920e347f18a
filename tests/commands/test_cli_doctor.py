"""``goldenctl doctor``: what is there, what is lacking, what is broken, and each remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from ran import Call, Ran

from goldenctl.commands import installed
from goldenctl.diff import metrics
from goldenctl.infini import build
from goldenctl.infini.find import Install


@pytest.fixture(scope="session")
def answered() -> dict[tuple[str, ...], str]:
    """What programs have said of themselves: importing torch takes seconds."""
    return {}


@pytest.fixture
def doctor(
    call: Call,
    harness: Path,
    answered: dict[tuple[str, ...], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Call:
    """Return a function that runs doctor on a machine that has all that a test does not take."""
    assert harness.exists()
    monkeypatch.setattr(metrics, "compiled", lambda: True)
    ask = installed._answer

    def answer(command: Sequence[str], failed: str, hint: str) -> str:
        if "PYTHONPATH" in os.environ:  # another package in place of the installed one
            return ask(command, failed, hint)
        key = tuple(command)
        if key not in answered:
            answered[key] = ask(command, failed, hint)
        return answered[key]

    monkeypatch.setattr(installed, "_answer", answer)
    return lambda *arguments: call("doctor", *arguments)


def judged(ran: Ran, mark: str) -> list[str]:
    """The findings of one mark, each with its remedy."""
    lines = ran.out.replace("\n    ", "; ").splitlines()
    return [line[2:] for line in lines if line.startswith(f"{mark} ")]


def test_all_is_in_place(doctor: Call, checkpoint: Path) -> None:
    ran = doctor("--model-path", checkpoint)
    assert ran.code == 0, ran.out
    topics = [line.partition(":")[0] for line in judged(ran, "✓")]
    for topic in ("torch", "safetensors", "tokenizers", "c++", "cmake", "ninja", "cache"):
        assert topic in topics
    assert "✓ checkpoint: qwen3, 4 layers, bfloat16\n" in ran.out
    assert "✓ tokenizer: 'Hello, this is a test input' is 12 tokens\n" in ran.out
    assert ran.out.endswith("\nall is in place\n")


@pytest.mark.parametrize("option", ["--model-path", "--infini-root"])
def test_what_is_named_and_not_there_is_a_failure(
    doctor: Call, tmp_path: Path, option: str
) -> None:
    ran = doctor(option, tmp_path / "none")
    assert ran.code == 3
    (said,) = judged(ran, "✗")
    assert said.startswith(
        {"--model-path": "checkpoint: ", "--infini-root": "InfiniCore: "}[option]
    )
    assert ran.out.splitlines()[-1].startswith("1 of ")


def test_a_damaged_install_is_a_failure(
    doctor: Call, infini_install: Install, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(infini_install.root, root)
    os.truncate(root / "lib" / "libinfiniop.so", 4096)
    ran = doctor("--infini-root", root)
    assert ran.code == 3
    assert "its lib/libinfiniop.so has 4096 bytes, expected " in ran.out
    assert f"    build it again: goldenctl infinicore install --prefix {root}\n" in ran.out


def test_without_a_tokenizer_only_texts_cannot_be_recorded(
    doctor: Call, call: Call, checkpoint: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(checkpoint, tmp_path / "model")
    (model / "tokenizer.json").unlink()
    ran = doctor("--model-path", model)
    why = f"{model / 'tokenizer.json'}: there is no such file, so a prompt cannot be encoded"
    assert judged(ran, "·") == [f"tokenizer: {why}; give --token-ids 1,2,3 instead"]
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "no check failed, 1 note")
    assert call("record", model, tmp_path / "a.h5").code == 3
    assert call("record", model, tmp_path / "b.h5", "--token-ids", "1,2,3").code == 0


def test_a_damaged_tokenizer_is_a_failure(doctor: Call, checkpoint: Path, tmp_path: Path) -> None:
    model = shutil.copytree(checkpoint, tmp_path / "model")
    (model / "tokenizer.json").write_text("{}")
    ran = doctor("--model-path", model)
    assert ran.code == 3
    (said,) = judged(ran, "✗")
    assert said.startswith(f"tokenizer: {model / 'tokenizer.json'}: not a tokenizer (")
    assert said.endswith("; record with --token-ids 1,2,3 works")


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("torch", "record and --backend torch needs it"),
        ("safetensors", "record needs it"),
        ("tokenizers", "record with a text needs it"),
    ],
)
def test_a_machine_that_only_replays_needs_no_package_of_record(
    doctor: Call, monkeypatch: pytest.MonkeyPatch, name: str, use: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    ran = doctor()
    assert judged(ran, "·") == [
        f"{name}: not installed, {use}; run: pip install 'goldenctl[record]'"
    ]
    assert ran.code == 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise OSError('libgone.so: not found')", "cannot be imported: OSError: libgone.so: not"),
        ("import os; os.abort()", "cannot be imported: exit status -6"),
        ("import time; time.sleep(60)", "cannot be imported: no answer within 2 s; run: pip inst"),
        ("__version__ = '2.5.9'", "version 2.5.9 is installed, 2.6 or newer is needed; run: pip"),
    ],
    ids=["error", "crash", "hang", "old"],
)
def test_a_broken_torch_is_found(
    doctor: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    if "sleep" in code:
        monkeypatch.setattr(installed, "TIMEOUT_S", 2.0)
    ran = doctor()
    assert ran.code == 3
    (found,) = judged(ran, "✗")
    assert found.startswith(f"torch: {said}")


def test_torch_is_not_imported_by_doctor_itself(checkpoint: Path) -> None:
    code = "import sys; from goldenctl.cli import run; run(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, "doctor", "--model-path", str(checkpoint)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "✓ torch: " in ran.stdout
    assert "torch" not in ran.stdout.splitlines()[-1].split()


def program(folder: Path, said: str) -> str:
    """Write a program that prints a text, or fails where there is none."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{f'echo {said}' if said else 'echo it broke >&2; exit 1'}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("name", "found", "mark", "said"),
    [
        ("cmake", "", "✗", "cmake: {0} cannot be run: it broke; pip install 'goldenctl[build]'"),
        ("cmake", "cmake version 3.10.2", "✗", "cmake: version 3.10.2 is installed, 3.22 or newer"),
        ("cmake", "cmake version 3.22.1", "✓", "cmake: 3.22.1, {0}"),
        ("cmake", None, "✗", "cmake: not found, the harness is built with it; pip install"),
        ("ninja", "", "✗", "ninja: {0} cannot be run: it broke; pip install 'goldenctl[build]'"),
        ("ninja", "1.10.0", "✓", "ninja: 1.10.0, {0}"),
        ("ninja", None, "·", "ninja: not found, make builds in its place"),
        ("ninja make", None, "✗", "ninja: neither it nor make was found, the harness is built"),
    ],
)
def test_programs_are_run(
    doctor: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    found: str | None,
    mark: str,
    said: str,
) -> None:
    """Of several names, one program stands for each; None is none."""
    made = None if found is None else program(tmp_path, found)
    real = build.tool
    monkeypatch.setattr(build, "tool", lambda n: made if n in name.split() else real(n) or "make")
    ran = doctor()
    assert ran.code == (3 if mark == "✗" else 0)
    assert any(line.startswith(said.format(made)) for line in judged(ran, mark)), ran.out


def test_a_cache_that_cannot_be_written_is_found(
    doctor: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GOLDENCTL_CACHE", str(tmp_path / "file"))
    ran = doctor()
    assert ran.code == 3
    cache, harness = judged(ran, "✗")
    folder = tmp_path / "file" / "harness"
    why = "cannot be written: File exists; set GOLDENCTL_CACHE to a folder that can be"
    assert cache == f"cache: {folder}: {why}"
    assert harness.startswith(f"harness: {folder}")
