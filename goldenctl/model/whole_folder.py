"""Owns the making of a folder that is either whole or not there: temporary name, rename."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from goldenctl.errors import UsageError


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out``, which gets that name when the block ends well.

    ``out`` must not exist, or be an empty folder; raises UsageError when it is in use. The
    folders above it are made.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        message = f"{out}: exists already"
        raise UsageError(message, hint="name a new or an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        partial.chmod(0o755)
        yield partial
        partial.replace(out)  # replaces an empty folder, fails on any other
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
