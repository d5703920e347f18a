"""How a built folder comes to its place."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pretend import contents

from goldenctl.errors import DamagedError, MissingError
from goldenctl.infini.build import CommandFailed
from goldenctl.infini.place import exclusive, log_beside, put, scratch_beside, sole_builder


def test_one_at_a_time_though_the_lock_goes_each_time(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            with exclusive(tmp_path / "lock"):
                inside.append(1)
                time.sleep(0.0005)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
    assert contents(tmp_path) == {}


def test_everything_is_on_the_disk_before_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def noting_sync(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def noting_rename(path: Path, target: Any) -> Path:
        done.append(f"{path.name} -> {Path(target).name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(Path, "rename", noting_rename)
    place = tmp_path / "place"
    (place / "old").mkdir(parents=True)
    with scratch_beside(place) as scratch:
        (scratch / "built" / "lib").mkdir(parents=True)
        (scratch / "built" / "lib" / "file").write_text("new")
        put(scratch / "built", place)
    assert set(done[:3]) == {"file", "lib", "built"}
    assert done[3:] == ["place -> replaced", "built -> place", tmp_path.name]
    assert contents(tmp_path) == {"place": None, "place/lib": None, "place/lib/file": b"new"}


def test_what_a_killed_build_left_goes_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "build"
    kept = ["build.log", "build.lock", "build.12345678", ".build.old", "build.goldenctl-notes"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".build.goldenctl-scratch-abcdefgh" / "source").mkdir(parents=True)
    (tmp_path / ".build.goldenctl-lock").touch()
    with sole_builder(place):
        pass
    assert sorted(contents(tmp_path)) == sorted(kept)


@pytest.mark.parametrize(
    ("error", "stays"),
    [(CommandFailed("x"), True), (DamagedError("x"), False), (KeyboardInterrupt(), False)],
    ids=repr,
)
def test_the_log_stays_only_where_an_error_names_it(
    tmp_path: Path, error: BaseException, stays: bool
) -> None:
    logs: list[Path] = []

    def build(failing: BaseException | None = None) -> None:
        with log_beside(tmp_path / "place") as log:
            assert not log.exists(), "each build begins a new one"
            log.write_text("said")
            logs.append(log)
            if failing is not None:
                raise failing

    with pytest.raises(type(error)):
        build(error)
    assert logs[-1].exists() is stays
    build()
    assert not logs[-1].exists()


def test_a_lock_is_not_opened_through_a_link_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    target, link, lock = (tmp_path / name for name in ("target", "link", "lock"))
    target.write_text("kept")
    link.symlink_to(target)
    with pytest.raises(MissingError, match="cannot be opened as a lock"), exclusive(link):
        pass
    assert target.read_text() == "kept"
    lock.write_text("held by nobody")
    with exclusive(lock):
        assert lock.read_text() == "held by nobody"
