"""Push and pull through every kind of store: what arrives is what was sent, and only once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from moving import Bucket, MadeSet

from goldenctl.cli import run
from goldenctl.errors import DamagedError, GoldenctlError, MissingError, UsageError
from goldenctl.golden.manifest import load_manifest
from goldenctl.golden.store import GoldenSet
from goldenctl.remote import stores
from goldenctl.remote.place import find_store, scrubbed, shown
from goldenctl.remote.stores import FolderStore, UrlStore, open_store
from goldenctl.remote.transfer import fetch, has, key_of, send

PART = 1 << 16


@pytest.fixture
def called(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        assert "internal error" not in captured.err
        return code, captured.out, captured.err

    return call


Called = Callable[..., tuple[int, str, str]]


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

    def read(self, key: str, start: int, end: int) -> bytes:
        self._count()
        data: bytes = self.inner.read(key, start, end)
        self.was_read.append(len(data))
        return data

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


def digest_of(made: GoldenSet, version: int = 1) -> str:
    entry = next(e for e in load_manifest(made).versions if e.version == version)
    return entry.sha256.removeprefix("sha256:")


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
    import hashlib

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
        assert name == hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.parent.parent == tmp_path / "store" / "sha256"


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
    with pytest.raises(DamagedError, match=r"expected sha256:.*, got sha256:") as caught:
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
    assert "has no sha256:" in err
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
    assert "expected sha256:" in err
    assert called("pull", "q", "--force", "--store", tmp_path / "store")[0] == 0
    assert made.path(1).read_bytes() == data


def test_two_pulls_at_once(made_set: MadeSet, called: Called, tmp_path: Path) -> None:
    from goldenctl.golden.store import locked

    made = made_set()
    (tmp_path / "store").mkdir()
    with locked(made):
        code, _, err = called("pull", "q", "--store", tmp_path / "store")
    assert code == 2
    assert "is writing this set" in err


@pytest.fixture
def web(tmp_path: Path) -> Any:
    """Serve the folder ``store`` over plain HTTP, which can be read only."""
    (tmp_path / "store").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(tmp_path / "store"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_web_server_can_be_pulled_from(
    called: Called,
    made_set: MadeSet,
    tmp_path: Path,
    web: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = made_set()
    code, _, err = called("push", "q", "--store", web)
    assert code == 2
    assert "can be read only" in err
    assert called("push", "q", "--store", tmp_path / "store", "--part-size", PART)[0] == 0
    data = made.path(1).read_bytes()
    made.path(1).unlink()
    assert called("pull", "q", "--store", web) == (0, f"q@v1: 293.0 KiB from {web}\n", "")
    assert made.path(1).read_bytes() == data


def test_what_goes_wrong_with_s3(
    called: Called, made_set: MadeSet, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_set()
    code, _, err = called("push", "q", "--store", "s3://no-such-bucket/x")
    assert (code, err.splitlines()) == (
        2,
        [
            "goldenctl: s3://no-such-bucket/x: there is no bucket no-such-bucket; "
            "make it, or correct the store's URL"
        ],
    )
    made.path(1).unlink()
    code, _, err = called("pull", "q", "--store", "s3://no-such-bucket/x")
    assert (code, "there is no bucket no-such-bucket" in err) == (2, True)
    code, _, err = called("pull", "q", "--store", bucket.url)
    assert (code, f"{bucket.url}: has no sha256:" in err) == (3, True)
    monkeypatch.setattr(stores, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, _, err = called("pull", "q", "--store", f"{bucket.url}/other")
    assert code == 3
    assert "failed 4 times: " in err
    assert len(err.splitlines()) == 1


def test_no_permission_and_no_credentials(
    made_set: MadeSet, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_set()
    store = UrlStore(bucket.url)

    class NoCredentialsError(Exception):
        pass

    def fail(error: Exception) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(store._files, "pipe_file", refuse)

    fail(PermissionError("Forbidden for a-secret-key-of-tests"))
    with pytest.raises(UsageError, match="no permission, writing sha256/") as caught:
        send(store, made.path(1), digest_of(made))
    assert "a-secret-key-of-tests" not in str(caught.value)
    fail(NoCredentialsError())
    with pytest.raises(MissingError, match="there are no credentials; for S3 set AWS_ACCESS"):
        send(store, made.path(1), digest_of(made))


def test_a_network_that_comes_back(
    made_set: MadeSet, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_FIRST_PAUSE_S", 0.001)
    made = made_set()
    store = UrlStore(bucket.url)
    real, calls = store._files.pipe_file, []

    def flaky(*words: object, **named: object) -> None:
        calls.append(1)
        if len(calls) < stores.ATTEMPTS:
            message = "connection reset"
            raise ConnectionError(message)
        real(*words, **named)

    monkeypatch.setattr(store._files, "pipe_file", flaky)
    send(store, made.path(1), digest_of(made))
    assert len(calls) == stores.ATTEMPTS
    assert has(store, digest_of(made), 300_000)


def test_where_a_put_is_not_atomic_a_blob_gets_its_name_last(
    made_set: MadeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_ATOMIC", ())
    made = made_set()
    store = UrlStore(f"memory://{tmp_path}")
    names: list[str] = []
    real = store._files.pipe_file

    def noted(path: str, data: bytes) -> None:
        names.append(path)
        real(path, data)

    monkeypatch.setattr(store._files, "pipe_file", noted)
    send(store, made.path(1), digest_of(made))
    assert [name.endswith(".part") for name in names] == [True]
    (blob,) = store._files.find(str(tmp_path))
    assert blob.endswith(key_of(digest_of(made)))


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "abcdefghijkl")
    assert shown("https://me:pass@host/x?X-Amz-Signature=123") == "https://***@host/x?***"
    said = scrubbed("cannot open 's3://key:sec@b/x?y=1' with abcdefghijkl\nmore")
    assert said == "cannot open 's3://***@b/x?***' with ***"


def test_which_store_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOLDENCTL_STORE", raising=False)
    with pytest.raises(UsageError, match="no store is named"):
        find_store(None, tmp_path)
    (tmp_path / "goldenctl.toml").write_text('store = "../there"\n')
    assert find_store(None, tmp_path) == str(tmp_path / "../there")
    (tmp_path / "goldenctl.toml").write_text('store = "s3://b/x"\n')
    assert find_store(None, tmp_path) == "s3://b/x"
    monkeypatch.setenv("GOLDENCTL_STORE", "/from/environment")
    assert find_store(None, tmp_path) == "/from/environment"
    assert find_store("option", tmp_path) == "option"
    monkeypatch.delenv("GOLDENCTL_STORE")
    for text in ("store = 1", "store = ", 'store = ""'):
        (tmp_path / "goldenctl.toml").write_text(text)
        with pytest.raises(DamagedError, match=r"goldenctl\.toml: "):
            find_store(None, tmp_path)


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
from goldenctl.cli import run
sys.exit(run(sys.argv[2:]))
"""


def test_a_folder_needs_no_fsspec_and_a_url_says_what_it_needs(
    made_set: MadeSet, tmp_path: Path
) -> None:
    made_set()
    (tmp_path / "store").mkdir()

    def without(modules: str, store: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT, modules, "push", "q", "--store", str(store)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert without("fsspec,s3fs", tmp_path / "store").returncode == 0
    for modules in ("fsspec", "s3fs"):
        ran = without(modules, "s3://b/x")
        assert ran.returncode == 3
        assert "pip install 'goldenctl[remote]'" in ran.stderr
        assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("push nope --store @store", 2, "nope: there is no golden set of that name"),
        ("push q --store @nowhere", 2, "nowhere: there is no such folder; make it"),
        ("push q --store nosuch://x", 2, "nosuch://x: not a store: "),
        ("push q --store @store --part-size 1", 2, "--part-size 1: expected 1024 bytes to 256MiB"),
        ("push q --store @store --part-size x", 2, "is not a size such as 4GiB"),
        ("pull q@v0 --store @store", 2, "v0"),
        ("pull ../q --store @store", 2, "../q"),
    ],
)
def test_wrong_input(
    called: Called, made_set: MadeSet, tmp_path: Path, words: str, code: int, said: str
) -> None:
    made_set()
    (tmp_path / "store").mkdir()
    got, _, err = called(
        *(
            word.replace("@st", f"{tmp_path}/st").replace("@now", f"{tmp_path}/now")
            for word in words.split()
        )
    )
    assert (got, said in err, len(err.splitlines())) == (code, True, 1), err
    assert list((tmp_path / "store").iterdir()) == []


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
