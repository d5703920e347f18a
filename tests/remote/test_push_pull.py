"""Push and pull through every kind of store: what arrives is what was sent, and only once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from moving import Bucket, Called, MadeSet, content, digest_of

from goldenctl.digests import hex_of, of_bytes, of_file
from goldenctl.errors import DamagedError, GoldenctlError, MissingError, UsageError
from goldenctl.remote.stores import FolderStore, open_store
from goldenctl.remote.transfer import fetch, has, key_of, send

PART = 1 << 16


@pytest.fixture(params=["folder", "s3", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an empty store of each kind."""
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        return f"{bucket.url}/goldens"
    if request.param == "memory":
        return f"memory://{tmp_path}"
    (tmp_path / "store").mkdir()
    return str(tmp_path / "store")


@pytest.mark.parametrize("size", [0, PART, PART + 1, 300_000])
def test_what_was_sent_arrives(called: Called, made_set: MadeSet, url: str, size: int) -> None:
    made = made_set(sizes=(size,))
    data = made.path(1).read_bytes()
    code, out, err = called("push", "q", "--store", url, "--part-size", PART)
    assert (code, err) == (0, "")
    assert out.startswith("q@v1: sent ") or size == 0
    made.path(1).unlink()
    code, out, err = called("pull", "q", "--store", url)
    assert (code, err) == (0, "")
    assert out.startswith("q@v1: ")
    assert made.path(1).read_bytes() == data
    assert sorted(p.name for p in made.folder.iterdir()) == [".lock", "manifest.json", "v1.h5"]


class Counting:
    """A store that counts, and fails when it is told to."""

    def __init__(self, inner: Any, *, fail_after: int = 1 << 30) -> None:
        self.inner = inner
        self.written: list[int] = []
        self.was_read: list[int] = []
        self.left = fail_after

    @property
    def name(self) -> str:
        return str(self.inner.name)

    def size(self, key: str) -> int | None:
        size: int | None = self.inner.size(key)
        return size

    def read(self, key: str, start: int, data: memoryview) -> None:
        self._count()
        self.inner.read(key, start, data)
        self.was_read.append(len(data))

    def write(self, key: str, data: memoryview) -> None:
        self._count()
        self.inner.write(key, data)
        self.written.append(len(data))

    def explain(self) -> None:
        self.inner.explain()

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            message = "the network went away"
            raise MissingError(message)


def test_an_interrupted_push_goes_on(made_set: MadeSet, url: str) -> None:
    made = made_set(sizes=(10 * PART,))
    store = Counting(open_store(url), fail_after=4)
    with pytest.raises(MissingError, match="the network went away"):
        send(store, made.path(1), digest_of(made), part_bytes=PART)
    assert not has(store, digest_of(made), 10 * PART)
    again = Counting(open_store(url))
    sent = send(again, made.path(1), digest_of(made), part_bytes=PART)
    assert sent.there_bytes == sum(store.written)
    assert sent.sent_bytes + sent.there_bytes == 10 * PART
    assert again.written.count(PART) == 10 - len(store.written)
    assert has(again, digest_of(made), 10 * PART)
    nothing = Counting(open_store(url))
    assert send(nothing, made.path(1), digest_of(made), part_bytes=2 * PART).sent_bytes == 0
    assert nothing.written == []


@pytest.mark.parametrize("part_bytes", [PART, 1 << 30], ids=["parts", "whole"])
def test_an_interrupted_pull_goes_on(
    made_set: MadeSet, url: str, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goldenctl.remote.transfer.PART_BYTES", PART)
    made = made_set(sizes=(10 * PART + 5,))
    data, digest = made.path(1).read_bytes(), digest_of(made)
    send(open_store(url), made.path(1), digest, part_bytes=part_bytes)
    made.path(1).unlink()
    extra = int(part_bytes == PART)  # the list of parts is read first
    store = Counting(open_store(url), fail_after=6 + extra)
    with pytest.raises(MissingError, match="the network went away"):
        fetch(store, digest, len(data), made.path(1))
    assert not made.path(1).exists()
    unfinished = made.folder / ".v1.h5.pull.part"
    kept = unfinished.stat().st_size
    assert 0 < kept <= 6 * PART
    again = Counting(open_store(url))
    assert fetch(again, digest, len(data), made.path(1)) == len(data) - kept
    assert sum(again.was_read[extra:]) == len(data) - kept
    assert made.path(1).read_bytes() == data
    assert not unfinished.exists()


@pytest.mark.parametrize("part_bytes", [PART, 1 << 30], ids=["parts", "whole"])
def test_a_damaged_leftover_is_not_gone_on_from(
    made_set: MadeSet, tmp_path: Path, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goldenctl.remote.transfer.PART_BYTES", PART)
    (tmp_path / "store").mkdir()
    store = FolderStore(tmp_path / "store")
    made = made_set(sizes=(4 * PART,))
    data, digest = made.path(1).read_bytes(), digest_of(made)
    send(store, made.path(1), digest, part_bytes=part_bytes)
    made.path(1).unlink()
    leftover = made.folder / ".v1.h5.pull.part"
    leftover.write_bytes(data[:PART] + b"x" + data[PART + 1 : 3 * PART])
    came = fetch(store, digest, len(data), made.path(1))
    assert came == (3 * PART if part_bytes == PART else 4 * PART)
    assert made.path(1).read_bytes() == data


def test_too_many_parts(made_set: MadeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goldenctl.remote.transfer._INDEX_LIMIT_BYTES", 10_000)
    made = made_set(sizes=(300_000,))
    (tmp_path / "store").mkdir()
    with pytest.raises(UsageError, match="293 parts of 1024 bytes are too many"):
        send(FolderStore(tmp_path / "store"), made.path(1), digest_of(made), part_bytes=1024)
    assert list((tmp_path / "store").iterdir()) == []


def test_every_blob_is_named_by_its_digest(made_set: MadeSet, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    made = made_set(sizes=(3 * PART,))
    send(FolderStore(tmp_path / "store"), made.path(1), digest_of(made), part_bytes=PART)
    blobs = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    indices = [path for path in blobs if path.suffix == ".parts"]
    assert [str(p.relative_to(tmp_path / "store")) for p in indices] == [
        f"{key_of(digest_of(made))}.parts"
    ]
    assert len(blobs) == 4
    for path in set(blobs) - set(indices):
        name = path.parent.name + path.name
        assert name == hex_of(of_file(path))
        assert path.parent.parent == tmp_path / "store" / "blake3"


@pytest.mark.parametrize("part_bytes", [PART, 1 << 30], ids=["parts", "whole"])
def test_damage_in_the_store_does_not_arrive(
    made_set: MadeSet, tmp_path: Path, part_bytes: int
) -> None:
    (tmp_path / "store").mkdir()
    store = FolderStore(tmp_path / "store")
    made = made_set(sizes=(3 * PART,))
    send(store, made.path(1), digest_of(made), part_bytes=part_bytes)
    made.path(1).unlink()
    blob = max((p for p in (tmp_path / "store").rglob("*") if p.is_file()), key=os.path.getsize)
    data = bytearray(blob.read_bytes())
    data[1000] ^= 1
    blob.write_bytes(data)
    with pytest.raises(DamagedError, match=r"expected blake3:.*, got blake3:") as caught:
        fetch(store, digest_of(made), 3 * PART, made.path(1))
    assert str(blob.relative_to(tmp_path / "store")) in str(caught.value)
    assert not made.path(1).exists()
    blob.write_bytes(data[:-1])
    with pytest.raises(GoldenctlError):
        fetch(store, digest_of(made), 3 * PART, made.path(1))
    assert not made.path(1).exists()


INDEX = {"parts_version": 1, "bytes": 3 * PART, "part_bytes": PART, "parts": ["0" * 64] * 3}


@pytest.mark.parametrize(
    "change",
    [
        {"parts": ["../../../etc/passwd"] * 3},
        {"parts": ["0" * 64] * 2},
        {"parts": 5},
        {"part_bytes": 0},
        {"part_bytes": 1 << 29},
        {"bytes": 1 << 62},
        {"bytes": 1},
        {"parts_version": 2},
        {"more": 1},
        None,
    ],
    ids=str,
)
def test_a_hostile_list_of_parts(
    made_set: MadeSet, tmp_path: Path, change: dict[str, Any] | None
) -> None:
    made = made_set(sizes=(3 * PART,))
    made.path(1).unlink()
    listed = tmp_path / "store" / f"{key_of(digest_of(made))}.parts"
    listed.parent.mkdir(parents=True)
    listed.write_text("[" * 100_000 if change is None else json.dumps({**INDEX, **change}))
    with pytest.raises(DamagedError, match=r"\.parts: "):
        fetch(FolderStore(tmp_path / "store"), digest_of(made), 3 * PART, made.path(1))
    assert not made.path(1).exists()


def test_a_list_of_parts_that_are_not_there(made_set: MadeSet, tmp_path: Path) -> None:
    made = made_set(sizes=(3 * PART,))
    made.path(1).unlink()
    listed = tmp_path / "store" / f"{key_of(digest_of(made))}.parts"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps(INDEX))
    with pytest.raises(GoldenctlError, match="No such file"):
        fetch(FolderStore(tmp_path / "store"), digest_of(made), 3 * PART, made.path(1))


def test_versions(called: Called, made_set: MadeSet, tmp_path: Path) -> None:
    made = made_set(sizes=(10, 20, 30))
    store = tmp_path / "store"
    store.mkdir()
    made.path(2).unlink()
    code, out, _ = called("push", "q", "--store", store)
    assert (code, out.count("sent")) == (0, 2)
    code, out, err = called("push", "q@v2", "--store", store)
    assert code == 3
    assert f"q@v2: is neither here nor in {store}" in err
    for path in made.folder.glob("*.h5"):
        path.unlink()
    assert called("pull", "q", "--store", store)[0] == 0
    assert made.versions() == [3]
    assert called("pull", "q@v1", "--store", store)[0] == 0
    assert made.versions() == [1, 3]
    code, _, err = called("pull", "q", "--all", "--store", store)
    assert code == 3
    assert "has no blake3:" in err
    code, _, err = called("pull", "q@v9", "--store", store)
    assert code == 2
    assert "does not mention it; it knows v1, v2, v3" in err
    made.path(3).unlink()
    code, out, _ = called("push", "--store", store)
    assert (code, out.count("has it already")) == (0, 2)


def test_a_file_that_is_another_is_never_overwritten(
    called: Called, made_set: MadeSet, tmp_path: Path
) -> None:
    made = made_set()
    (tmp_path / "store").mkdir()
    assert called("push", "--store", tmp_path / "store")[0] == 0
    data = made.path(1).read_bytes()
    made.path(1).write_bytes(b"something else")
    code, _, err = called("pull", "q", "--store", tmp_path / "store")
    assert code == 4
    assert "v1.h5: is not the q@v1 that " in err
    assert made.path(1).read_bytes() == b"something else"
    code, _, err = called("push", "q", "--store", tmp_path / "store")
    assert code == 4
    assert "expected blake3:" in err
    assert called("pull", "q", "--force", "--store", tmp_path / "store")[0] == 0
    assert made.path(1).read_bytes() == data


def test_two_pulls_at_once(made_set: MadeSet, called: Called, tmp_path: Path) -> None:
    from goldenctl.sets.names import locked

    made = made_set()
    (tmp_path / "store").mkdir()
    with locked(made):
        code, _, err = called("pull", "q", "--store", tmp_path / "store")
    assert code == 2
    assert "is writing this set" in err


def test_killed_in_the_middle(made_set: MadeSet, tmp_path: Path) -> None:
    """After kill -9 at a few moments nothing half is visible, and the next call ends the work."""
    made = made_set(sizes=(40 * PART,))
    data = made.path(1).read_bytes()
    (tmp_path / "store").mkdir()
    words = ["--store", str(tmp_path / "store")]
    for command in ("push", "pull"):
        if command == "pull":
            made.path(1).unlink()
        options = [*words, "--part-size", str(PART)] if command == "push" else words
        program = [sys.executable, "-m", "goldenctl", command, "q", *options]
        for attempt in range(3):
            with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
                try:
                    process.wait(0.25 + 0.1 * attempt)
                except subprocess.TimeoutExpired:
                    process.kill()
            if command == "pull" and made.path(1).exists():
                assert made.path(1).read_bytes() == data
            for blob in (tmp_path / "store").rglob("*"):
                if blob.is_file() and not blob.name.startswith("."):
                    assert blob.stat().st_size in (PART,) or blob.suffix == ".parts"
        assert subprocess.run(program, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert made.path(1).read_bytes() == data


def test_a_pull_to_a_link_out_of_the_set(called: Called, made_set: MadeSet, tmp_path: Path) -> None:
    made = made_set()
    (tmp_path / "store").mkdir()
    assert called("push", "--store", tmp_path / "store")[0] == 0
    shutil.move(made.path(1), tmp_path / "elsewhere")
    made.path(1).symlink_to(tmp_path / "elsewhere")
    code, _, err = called("pull", "--store", tmp_path / "store")
    assert code == 4
    assert "is a link that leads out of" in err


def test_equal_parts_are_one_blob_that_is_sent_once(tmp_path: Path) -> None:
    kib = 1 << 10
    data = bytes(64 * kib) + content(1, 5 * kib) + bytes(3 * kib)
    source, back, root = (tmp_path / name for name in ("source", "back", "store"))
    source.write_bytes(data)
    root.mkdir()
    store, digest = FolderStore(root), of_bytes(data)
    told: list[int] = []
    sent = send(store, source, digest, part_bytes=kib, progress=told.append)
    assert (sent.sent_bytes, sent.there_bytes) == (6 * kib, 66 * kib)
    assert sum(told) == len(data)
    blobs = [path for path in root.rglob("*") if path.is_file()]
    assert len(blobs) == 1 + 5 + 1  # the zeros, the others, the list
    fetch(store, digest, len(data), back)
    assert back.read_bytes() == data
    assert send(store, source, digest, part_bytes=kib).sent_bytes == 0
