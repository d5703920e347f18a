"""Owns the writing of a file that is either whole or not there: temporary name, sync, rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from goldenctl.golden.store import part_path, sync_folder
from goldenctl.golden.writer import cannot_write


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what is written there gets its name when the block ends well.

    Raises UsageError with the system's reason; what stood at ``path`` is then untouched.
    """
    temporary = part_path(path)
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
