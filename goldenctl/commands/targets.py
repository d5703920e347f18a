"""What a command may overwrite: a file of the kind that it writes itself, and no other."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from goldenctl.errors import UsageError

_END_BYTES = 1 << 16


@dataclass(frozen=True)
class _Kind:
    """A kind of file: how it is called, and what its first or last bytes match.

    ``renamed`` files are written beside their place and renamed, so that no pipe or device can
    take them.
    """

    what: str
    mark: str
    renamed: bool = False


_KINDS = {
    "json": _Kind("a JSON report", r'\{\s*"report_version":'),
    "html": _Kind(
        "an HTML report",
        r'<!doctype html>\s*<html lang="en">\s*<head>\s*<meta charset="utf-8">\s*'
        r"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src",
    ),
    "junit": _Kind("a JUnit report", r'<\?xml [^>]*>\s*<testsuites name="goldenctl '),
    "markdown": _Kind("a Markdown report", r"### \S+ (PASS|FAIL): goldenctl "),
    "csv": _Kind(
        "a CSV report",
        "(run,)?name,sublayer,tap,op,|golden,step,state,judged_by,|fault,place,op,effect,",
    ),
    "bench": _Kind("a JSON file of bench", r'\{\s*"bench_version":'),
    "attestation": _Kind(
        "an attestation",
        r'\{\s*"created_utc": "[^"]*",\s*"digest": "[^"]*",\s*"golden": \{',
        renamed=True,
    ),
    "svg": _Kind(
        "a figure",
        r'<\?xml [^>]*>\s*<svg xmlns="[^"]*" viewBox="[^"]*" width="[^"]*" height="[^"]*" '
        'class="fig"',
    ),
    "png": _Kind("a PNG figure", r"\x89PNG\r\n"),
    "safetensors": _Kind(
        "an export", r'.{8}\{"__metadata__":\{"format":"pt","goldenctl\.kind":', renamed=True
    ),
    "npz": _Kind("an export", r"PK\x03\x04.*goldenctl\.json", renamed=True),
    "infiniop-test": _Kind("a test case", r"GGUF.*test\.0\.op_name", renamed=True),
    "calls": _Kind("a log of calls", r"goldenctl-log 1\n"),
    # These say in the HDF5 file what they are.
    "archive": _Kind("an archive", "", renamed=True),
    "golden": _Kind("a golden", "", renamed=True),
    "run": _Kind("a run file", "", renamed=True),
}


def refuse_other(path: Path, kind: str) -> None:
    """Raise UsageError where ``path`` cannot be written or holds another kind of file.

    What is not there yet and an empty file are free, and for a report a pipe or a device.
    """
    refuse_unwritable(path)
    wanted = _KINDS[kind]
    if not path.exists() or (not wanted.renamed and not path.is_file()):
        return
    if not path.is_file() or not _is(path, kind):
        message = f"{path}: it exists and is not {wanted.what} that goldenctl wrote"
        raise UsageError(message, hint="choose another name")


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise UsageError when a golden would be replaced without being told to, or what is none."""
    if path.exists() and not force and not path.is_dir():
        msg = f"{path}: it exists already, and a golden is never changed"
        raise UsageError(
            msg,
            hint="choose another name, or pass --force to replace it",
        )
    refuse_other(path, "golden")


def refuse_taken(path: Path, *, force: bool) -> None:
    """Raise UsageError where a file is in the way, or none can be."""
    if path.exists() and not force:
        msg = f"{path}: it exists already"
        raise UsageError(msg, hint="choose another name, or pass --force to replace it")
    refuse_unwritable(path)


def refuse_unwritable(path: Path) -> None:
    """Raise UsageError where no file can be, before anything is computed for it."""
    if path.is_dir():
        msg = f"{path}: is a folder, expected a file name"
        raise UsageError(msg)
    if not path.parent.is_dir():
        msg = f"{path}: folder {path.parent} does not exist"
        raise UsageError(msg, hint="create it or choose another path")


def _is(path: Path, kind: str) -> bool:
    mark = _KINDS[kind].mark
    try:
        size = path.stat().st_size
        if not size:
            return True
        if not mark:
            from goldenctl.golden.file import kind_of

            return kind_of(path) == kind
        with path.open("rb") as file:
            ends = file.read(_END_BYTES)
            file.seek(max(-_END_BYTES, -size), os.SEEK_END)
            ends += file.read()
    except OSError:
        return False
    return re.match(mark.encode(), ends, re.DOTALL) is not None
