"""A writer that fails, wherever it does, leaves the old file and nothing else."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from golden_files import IDS, OUTPUT, bits, small_file, spec, write_file

from goldenctl import atomic
from goldenctl.errors import UsageError
from goldenctl.golden.file import open_golden
from goldenctl.golden.times import times_path
from goldenctl.golden.writer import GoldenWriter


def one_tensor(path: Path, nbytes: int = 8 << 20) -> GoldenWriter:
    tensors = [spec(OUTPUT, "int32", (nbytes // 4,))]
    return GoldenWriter(path, kind="golden", recipe={}, tensors=tensors, links={}, groups=[])


def fill(writer: GoldenWriter) -> None:
    with writer:
        for name, tensor in writer.tensors.items():
            writer.write(name, bits(np.ones(tensor.shape, np.int32)))
        writer.seal()


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A golden in a folder of its own; afterwards it and its times are unchanged and alone."""
    path = small_file(tmp_path / "g.h5")
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    assert before.keys() == {path, times_path(path)}
    yield path
    assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_too_little_space_is_said_before_anything_is_written(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=1000))
    with pytest.raises(UsageError, match=r"8,389,\d{3} bytes are needed, the disk has 1,000"):
        one_tensor(old)


def failing(call: int) -> object:
    """An ``os.pwrite`` or ``os.fsync`` whose call of that number finds the disk full."""
    calls = iter(range(1, 1_000_000))

    def fail(*args: object) -> int:
        if next(calls) >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(args[1]) if len(args) == 3 else 0  # type: ignore[arg-type]

    return fail


@pytest.mark.parametrize(("name", "call"), [("pwrite", 1), ("fsync", 1), ("replace", 1)])
def test_a_full_disk_while_writing(
    old: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int
) -> None:
    monkeypatch.setattr(os, name, failing(call))
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        fill(one_tensor(old))


def test_an_error_of_the_caller(old: Path) -> None:
    with pytest.raises(KeyError), one_tensor(old) as writer:
        writer.write("no such tensor", memoryview(b""))


def test_an_interrupt_while_allocating(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("goldenctl.golden.writer.allocate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        one_tensor(old)


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = small_file(tmp_path / "g.h5")
    before = path.read_bytes()
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "from test_writer import one_tensor; writer = one_tensor(Path(sys.argv[1]));"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); writer.seal()"
    )
    command = [sys.executable, "-c", script, path, Path(__file__).parent]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert open_golden(path).map(IDS).shape == (2, 3)
    assert {part.suffix for part in tmp_path.iterdir()} == {".h5", ".json", ".part"}
    fill(one_tensor(path, 64))  # the next writer of that name takes away what is left
    assert {part.suffix for part in tmp_path.iterdir()} == {".h5", ".json"}


def test_of_two_writers_of_one_file_one_wins_and_the_other_says_so(tmp_path: Path) -> None:
    path = tmp_path / "g.h5"
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "from test_writer import fill, one_tensor; writer = one_tensor(Path(sys.argv[1]), 64);"
        "print('begun', flush=True); sys.stdin.read(); fill(writer)"
    )
    command = [sys.executable, "-c", script, path, Path(__file__).parent]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        said = rf"another goldenctl \(process {other.pid}\) is writing it"
        with pytest.raises(UsageError, match=said):
            one_tensor(path, 128)
        other.communicate("")
    assert open_golden(path).info(OUTPUT).nbytes == 64
    fill(one_tensor(path, 128))
    assert open_golden(path).info(OUTPUT).nbytes == 128


def test_what_a_living_process_writes_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "g.h5"
    with one_tensor(path, 64) as writer:
        dead = writer.temporary_path.with_name(f".g.h5.{(1 << 22) + 1}.part")
        writer.temporary_path.rename(dead)  # as of a process in another container
        atomic.remove_leftovers(path)
        assert dead.exists()
    atomic.remove_leftovers(path)
    assert not dead.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB, where we may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("a tmpfs cannot be mounted here (not root, or in a container)")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_space_is_set_aside_before_anything_is_computed(small_disk: Path) -> None:
    path = small_file(small_disk / "g.h5")
    writer = one_tensor(path, 1 << 20)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "other").write_bytes(bytes(1_500_000))
    (small_disk / "other").unlink()
    fill(writer)
    assert open_golden(path).map(OUTPUT).all()


def test_a_disk_that_is_full_when_space_is_set_aside(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_file(small_disk / "g.h5")
    monkeypatch.setattr("goldenctl.golden.writer._check_space", lambda *_: None)
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        one_tensor(path, 3 << 20)
    assert {each.name for each in small_disk.iterdir()} == {"g.h5", "g.h5.times.json"}


def test_a_disk_that_is_really_full(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system cannot set space aside."""
    monkeypatch.setattr("goldenctl.golden.writer._reserve", lambda _: None)
    path = small_file(small_disk / "g.h5")
    with pytest.raises(UsageError, match="bytes are needed, the disk has"):
        one_tensor(path, 3 << 20)
    writer = one_tensor(path, 1 << 20)
    (small_disk / "other").write_bytes(bytes(1_500_000))
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        fill(writer)
    assert {each.name for each in small_disk.iterdir()} == {
        "g.h5",
        "g.h5.times.json",
        "other",
    }
    assert open_golden(path).map(IDS).shape == (2, 3)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file does not exist"):
        one_tensor(tmp_path / "file" / "g.h5", 4)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[" * 100_000, b"{}", b'{"time_ns": 3}'])
def test_times_that_are_damaged_are_as_if_not_there(tmp_path: Path, data: bytes) -> None:
    path = small_file(tmp_path / "g.h5")
    times_path(path).write_bytes(data)
    assert open_golden(path).created_utc == ""


def test_a_file_that_is_made_in_batches_reads_as_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 would take a time that grows with the square of the number of tensors."""
    values = {f"cases/a/steps/00/embedding/tap_{n}": np.full((2, n), n, np.int32) for n in range(8)}
    link = {"cases/a/steps/00/final_norm/input": "cases/a/steps/00/embedding/tap_1"}
    write_file(tmp_path / "whole.h5", values, links=link)
    monkeypatch.setattr("goldenctl.golden.allocate._BATCH", 3)
    write_file(tmp_path / "batches.h5", values, links=link)
    whole, batches = (open_golden(tmp_path / name) for name in ("whole.h5", "batches.h5"))
    assert batches.content_digest == whole.content_digest
    assert list(batches.tensors) == list(whole.tensors)
    assert batches.aliases == whole.aliases == link
    assert all(info.offset % 64 == 0 for info in batches.tensors.values())
    for name, array in values.items():
        np.testing.assert_array_equal(batches.verify(name), array)
