"""Stores: a few operations over named blobs, in a folder or behind any fsspec URL.

A blob is there whole or not at all. What goes wrong on the way is one line without secrets;
a network that fails is asked again a few times.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from goldenctl.atomic import leftovers, write_whole
from goldenctl.errors import DamagedError, GoldenctlError, MissingError, UsageError
from goldenctl.remote.place import is_url, scrubbed, shown

ATTEMPTS = 4
_FIRST_PAUSE_S = 0.3
_STALE_S = 24 * 3600
_PIECE_BYTES = 1 << 20
# Where a put is atomic. Elsewhere a blob is written under another name and moved.
_ATOMIC = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2", "memory")
_READ_ONLY = ("http", "https")
_BUCKETS = ("s3", "s3a", "gs", "gcs")
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError")
_Result = TypeVar("_Result")


class Store(Protocol):
    """Blobs by key; a key is slashes and hexadecimal digits, never another's name."""

    @property
    def name(self) -> str:
        """The store as it may be shown."""

    def size(self, key: str) -> int | None:
        """Return a blob's size in bytes, None when it is not there."""

    def read(self, key: str, start: int, data: memoryview) -> None:
        """Fill ``data`` with the bytes of a blob from ``start`` on."""

    def write(self, key: str, data: memoryview) -> None:
        """Store a blob, whole or not at all."""

    def explain(self) -> None:
        """Raise when the store itself is why a blob is not there."""


def open_store(text: str) -> Store:
    """Return the store of a URL or folder; MissingError when what speaks to it is not installed."""
    if text.startswith("file://"):
        return FolderStore(Path(text.removeprefix("file://")))
    return UrlStore(text) if is_url(text) else FolderStore(Path(text))


class FolderStore:
    """A store in a folder, on this machine or mounted."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        return str(self._root)

    def size(self, key: str) -> int | None:
        with self._errors_named():
            try:
                return (self._root / key).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read(self, key: str, start: int, data: memoryview) -> None:
        with self._errors_named(), (self._root / key).open("rb") as file:
            file.seek(start)
            came = file.readinto(data)
        if came != len(data):
            message = f"{self.name}: {key}: {came} bytes came, expected {len(data)}"
            raise DamagedError(message, hint="remove it there and push it again")

    def write(self, key: str, data: memoryview) -> None:
        self.explain()
        path = self._root / key
        with self._errors_named():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sweep(path.parent)
        write_whole(path, data)

    def explain(self) -> None:
        """Refuse a folder that is not there: a store is made on purpose, not by a typing error."""
        if not self._root.is_dir():
            message = f"{self.name}: there is no such folder"
            raise UsageError(message, hint="make it, or correct the store's name")

    def _sweep(self, folder: Path) -> None:
        """Remove what writers left that died long ago, of whichever machine they were."""
        for path in leftovers(folder):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"{error.filename or self.name}: {error.strerror or error}"
            raise UsageError(message, hint="nothing half-sent is in the store") from error


class UrlStore:
    """A store behind a URL that fsspec understands: ``s3://``, ``gs://``, ``https://``..."""

    def __init__(self, url: str) -> None:
        self._url = url
        fsspec = _fsspec(url)
        protocol = url.partition("://")[0].rpartition("::")[2]
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if protocol in ("s3", "s3a"):
            options["config_kwargs"] = {"connect_timeout": 10, "retries": {"max_attempts": 1}}
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, **options)
        except ImportError as error:
            message = f"{self.name}: fsspec needs another package for it: {scrubbed(str(error))}"
            raise MissingError(
                message, hint="pip install 'goldenctl[remote]' has it for S3"
            ) from error
        except Exception as error:
            message = f"{self.name}: not a store: {scrubbed(str(error))}"
            raise UsageError(message, hint="such as s3://bucket/goldens or a folder") from error
        if hasattr(self._files, "retries"):
            self._files.retries = 1  # ours are counted and told
        self._protocol = protocol

    @property
    def name(self) -> str:
        return shown(self._url)

    def size(self, key: str) -> int | None:
        try:
            size = self._attempt("asking for", key, lambda: self._files.size(self._path(key)))
        except FileNotFoundError:
            return None
        if size is None:
            message = f"{self.name}: its server does not say how large {key} is"
            raise UsageError(message, hint="use another store")
        return int(size)

    def read(self, key: str, start: int, data: memoryview) -> None:
        def read() -> None:
            came = self._fill(self._path(key), start, data)
            if came > len(data):
                message = f"{self.name}: {key}: more bytes came than the {len(data)} asked for"
                hint = "its server may not send parts of a file: push with parts, or another way"
                raise DamagedError(message, hint=hint)
            if came < len(data):
                message = f"{came} bytes came, expected {len(data)}"
                raise OSError(message)

        try:
            self._attempt("reading", key, read)
        except FileNotFoundError as error:
            self.explain()
            message = f"{self.name}: {key} went away while it was read"
            raise DamagedError(message, hint="push it again") from error

    def _fill(self, path: str, start: int, data: memoryview) -> int:
        """Fill ``data`` with a blob's bytes from ``start`` on; return how many came.

        A web server may send anything, and is not listened to for more than one byte too many.
        """
        end = start + len(data)
        if self._protocol not in _READ_ONLY:
            came: bytes = self._files.cat_file(path, start=start, end=end)
            data[: len(came)] = came[: len(data)]
            return len(came)
        wanted = {"headers": {"Range": f"bytes={start}-{end - 1}"}, "size": len(data)}
        at = 0
        with self._files.open(path, "rb", block_size=0, **wanted) as file:
            while piece := file.read(min(_PIECE_BYTES, len(data) - at + 1)):
                if at + len(piece) > len(data):
                    return at + len(piece)
                data[at : at + len(piece)] = piece
                at += len(piece)
        return at

    def write(self, key: str, data: memoryview) -> None:
        if self._protocol in _READ_ONLY:
            message = f"{self.name}: can be read only"
            raise UsageError(message, hint="push to another store")
        path = self._path(key)

        def write() -> None:
            if self._protocol in _ATOMIC:
                self._files.pipe_file(path, bytes(data))
                return
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            temporary = f"{path}.{secrets.token_hex(8)}.part"
            self._files.pipe_file(temporary, bytes(data))
            self._files.mv(temporary, path)

        try:
            self._attempt("writing", key, write)
        except FileNotFoundError as error:
            self.explain()
            message = f"{self.name}: cannot be written: {scrubbed(str(error))}"
            raise UsageError(message, hint="correct the store's URL") from error

    def explain(self) -> None:
        if self._protocol not in _BUCKETS:
            return
        bucket = str(self._root).split("/")[0]
        if not self._attempt("asking for", bucket, lambda: self._files.exists(bucket)):
            message = f"{self.name}: there is no bucket {bucket}"
            raise UsageError(message, hint="make it, or correct the store's URL")

    def _path(self, key: str) -> str:
        return f"{str(self._root).rstrip('/')}/{key}"

    def _attempt(self, what: str, key: str, act: Callable[[], _Result]) -> _Result:
        """Do it, again a few times where that may help; FileNotFoundError as it comes."""
        for attempt in range(ATTEMPTS):
            try:
                return act()
            except FileNotFoundError:
                raise
            except Exception as error:
                refusal = self._refusal(error, what, key)
                if refusal is not None:
                    raise refusal from error
                if attempt == ATTEMPTS - 1:
                    reason = scrubbed(str(error)) or type(error).__name__
                    message = f"{self.name}: {what} {key} failed {ATTEMPTS} times: {reason}"
                    hint = "run it again: what arrived is not sent twice"
                    raise MissingError(message, hint=hint) from error
            time.sleep(_FIRST_PAUSE_S * 2**attempt)
        raise AssertionError

    def _refusal(self, error: Exception, what: str, key: str) -> GoldenctlError | None:
        """Return what a second attempt would not change, None when it might."""
        if isinstance(error, GoldenctlError):
            return error
        if isinstance(error, NotImplementedError):
            return UsageError(f"{self.name}: cannot do it, {what} {key}", hint="use another store")
        if isinstance(error, ImportError):
            return MissingError(f"{self.name}: {scrubbed(str(error))}")
        if type(error).__name__ in _NO_CREDENTIALS:
            hint = "for S3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            return MissingError(f"{self.name}: there are no credentials", hint=hint)
        if isinstance(error, PermissionError) or getattr(error, "status", 0) in (401, 403):
            message = f"{self.name}: no permission, {what} {key}: {scrubbed(str(error))}"
            return UsageError(message, hint="check the credentials, and that they may also list")
        return None


def _fsspec(url: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        message = f"{shown(url)}: the fsspec package is not installed"
        raise MissingError(message, hint="run: pip install 'goldenctl[remote]'") from error
    return fsspec
