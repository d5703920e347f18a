"""What the tests of push and pull share: a small golden set, and a real S3 server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from moving import Bucket, Called, MadeSet, content, entry_of, manifest_of

from goldenctl.cli import run
from goldenctl.sets.names import GoldenSet

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "an-access-key-of-tests",
    "AWS_SECRET_ACCESS_KEY": "a-secret-key-of-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Return the URL of an S3 server of this test process, on a free port of the loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    """Make an empty bucket and point the environment at its server."""
    import s3fs

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    name = f"test-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]}"
    files.mkdir(name)
    return Bucket(f"s3://{name}", files)


@pytest.fixture
def called(capsys: pytest.CaptureFixture[str]) -> Called:
    """Return a function that runs a command line and returns its code, output and errors."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        assert "internal error" not in captured.err
        return code, captured.out, captured.err

    return call


@pytest.fixture
def made_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeSet:
    """Return a function that makes a golden set of so many bytes, with its manifest.

    What is in the files does not matter here: push and pull know only digests.
    """
    monkeypatch.setenv("GOLDENS_DIR", str(tmp_path / "goldens"))

    def made(name: str = "q", sizes: tuple[int, ...] = (300_000,)) -> GoldenSet:
        folder = tmp_path / "goldens" / name
        folder.mkdir(parents=True)
        golden_set = GoldenSet(name, folder)
        entries = []
        for version, size in enumerate(sizes, start=1):
            data = content(version, size)
            golden_set.path(version).write_bytes(data)
            entries.append(entry_of(version, data))
        golden_set.manifest_path.write_bytes(manifest_of(name, len(sizes), entries))
        return golden_set

    return made
