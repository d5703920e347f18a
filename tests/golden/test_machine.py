"""A machine that refuses what a command needs is exit code 3 with the cause: no file is damaged."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_files import OUTPUT, small_file

from goldenctl import isolate
from goldenctl.cli import run
from goldenctl.errors import MissingError
from goldenctl.folders import scratch
from goldenctl.isolate import isolated

Patch = pytest.MonkeyPatch


def refusing(number: int, filename: Path | None = None) -> Callable[..., Any]:
    """What a system call does that fails with this error."""

    def call(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number), *([str(filename)] if filename else []))

    return call


def no_forks(patch: Patch, _: Path) -> None:
    patch.setattr(os, "fork", refusing(errno.EAGAIN))


def no_files(patch: Patch, _: Path) -> None:
    patch.setattr(os, "pipe", refusing(errno.EMFILE))


def no_maps(patch: Patch, _: Path) -> None:
    patch.setattr(np, "memmap", refusing(errno.ENOMEM))


def no_proc(patch: Patch, folder: Path) -> None:
    patch.setattr(isolate, "_STATM", folder / "proc" / "statm")


def no_memory(patch: Patch, _: Path) -> None:
    def greedy(*_: object) -> None:
        raise MemoryError

    patch.setattr("goldenctl.golden.file.open_golden", greedy)


def full_cache(patch: Patch, folder: Path) -> None:
    patch.setenv("GOLDENCTL_CACHE", str(folder / "cache"))
    full = refusing(errno.ENOSPC, folder / "cache" / "synth" / "x")
    patch.setattr("goldenctl.golden.file.open_golden", full)


def full_temporary(patch: Patch, folder: Path) -> None:
    patch.setattr(tempfile, "gettempdir", lambda: str(folder))
    full = refusing(errno.ENOSPC, folder / "goldenctl-1" / "plan.json")
    patch.setattr("goldenctl.golden.file.open_golden", full)


REFUSALS = {
    "fork": (no_forks, "cannot be started: Resource temporarily unavailable; see ulimit -u"),
    "pipe": (no_files, "cannot be started: Too many open files"),
    "mmap": (no_maps, "this machine refuses: Cannot allocate memory"),
    "no /proc": (no_proc, "statm: No such file or directory: how much memory a process has"),
    "memory": (no_memory, "there is not enough memory"),
    "cache": (full_cache, "No space left on device; free space there, or set GOLDENCTL_CACHE"),
    "TMPDIR": (full_temporary, "No space left on device; free space there, or set TMPDIR"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_of_the_machine_is_exit_code_3(
    name: str, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse, said = REFUSALS[name]
    golden = small_file(tmp_path / "g.h5")
    refuse(monkeypatch, tmp_path)
    assert run(["inspect", str(golden), OUTPUT]) == 3
    err = capsys.readouterr().err
    assert said in err
    assert "again" not in err
    assert err.count("\n") == 1


def test_a_limit_of_this_machine_is_not_blamed_on_the_file(monkeypatch: Patch) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    here = pages * resource.getpagesize() + (256 << 20)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (here, resource.RLIM_INFINITY))
    with pytest.raises(MissingError, match="bytes of memory here; raise ulimit -v"):
        isolated(lambda _: bytes(512 << 20))


def test_a_full_temporary_folder_is_named(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(MissingError, match="No space left on device; free space there"), scratch():
        refusing(errno.ENOSPC)()
    with pytest.raises(OSError, match="Broken pipe"), scratch():
        refusing(errno.EPIPE)()
    assert list(tmp_path.iterdir()) == []
