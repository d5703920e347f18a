"""Owns putting a rendered report into its file in one step: a failing render leaves the old."""

from __future__ import annotations

from pathlib import Path

from goldenctl.errors import UsageError
from goldenctl.golden.store import part_path


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; raises UsageError when the path cannot be written."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name beside ``path``, then rename; raises UsageError.

    What is no regular file (a pipe, /dev/stdout) is written as it stands.
    """
    if path.exists() and not path.is_file():
        _write(path, path, content)
    else:
        _write(part_path(path), path, content)


def _write(temporary: Path, path: Path, content: bytes) -> None:
    try:
        with temporary.open("wb") as file:
            file.write(content)
        if temporary != path:
            temporary.replace(path)
    except OSError as error:
        if temporary != path:
            temporary.unlink(missing_ok=True)
        message = f"{path}: cannot be written: {error.strerror}"
        raise UsageError(message) from error
