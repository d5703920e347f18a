"""Stores over a network: what they refuse, what comes back, which one is meant."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moving import Bucket, Called, MadeSet, digest_of

from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.remote import stores
from goldenctl.remote.place import find_store, scrubbed, shown
from goldenctl.remote.stores import UrlStore
from goldenctl.remote.transfer import has, key_of, send

PART = 1 << 16


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
    assert (code, f"{bucket.url}: has no blake3:" in err) == (3, True)
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
    with pytest.raises(UsageError, match="no permission, writing blake3/") as caught:
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
    assert said == "cannot open 's3://***@b/x?*** with ***"


URLS = (
    "https://me:{}@host/x", "s3://{}:{}@bucket/x", "https://me:{}@host:8080/x?a=b#c",
    "https://host/x?sig={}", "https://host/x#{}", "https://host/x?a=b&token={}#c",
    "simplecache::s3://key:{}@bucket/x", "zip://a.zip::https://me:{}@host/x",
    "https://host/x;token={}", "cannot open 'https://me:{}@host/x'", "sftp://me:{}@host",
)  # fmt: skip


PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126))


@given(st.sampled_from(URLS), PRINTABLE.filter(lambda text: "://" not in text))
@settings(max_examples=300, deadline=None)
def test_no_form_of_secret_is_shown(url: str, text: str) -> None:
    secret = f"Zq9{text}9qZ"
    said = shown(url.replace("{}", secret))
    assert "Zq9" not in said
    assert "9qZ" not in said


@pytest.mark.parametrize(
    "url", ["s3://bucket/goldens@v1", "https://host:8080/x", "zip://a.zip::file:///x", "/a/b@c"]
)
def test_what_is_no_secret_is_shown(url: str) -> None:
    assert shown(url) == url


def test_an_answer_that_is_too_long_is_refused_at_once(
    tmp_path: Path, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of these tests sends the whole file, whatever part is asked for."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "store" / "blob").write_bytes(bytes(range(100)))
    store, data = UrlStore(web), bytearray(100)
    asked: list[int] = []
    fill = store._fill
    monkeypatch.setattr(store, "_fill", lambda *args: asked.append(1) or fill(*args))
    store.read("blob", 0, memoryview(data))
    assert data == bytes(range(100))
    for start in (0, 50):
        with pytest.raises(DamagedError, match="more bytes came than the 40 asked for"):
            store.read("blob", start, memoryview(bytearray(40)))
    assert len(asked) == 3


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
