"""What is written is whole or not there, whoever else writes the same name at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from goldenctl.atomic import whole_file, whole_folder, write_out, write_whole
from goldenctl.errors import UsageError

KIB = 1 << 10


def fail_in(path: Path) -> None:
    """Begin a file, then fail."""
    path.write_text("half")
    message = "half of it was written"
    raise RuntimeError(message)


def test_eight_threads_may_write_one_name(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    contents = [bytes([number]) * 256 * KIB for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            list(pool.map(lambda data: write_whole(path, data), contents))
            assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half"), whole_file(path) as temporary:
        fail_in(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: No such file or directory"):
        write_whole(tmp_path / "absent" / "file", b"")


def test_what_is_no_file_is_written_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to("/dev/null")
    write_out(path, "text")
    assert path.is_symlink()
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_use_is_refused_and_a_failed_one_is_not_there(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "file").touch()
    with pytest.raises(UsageError, match="exists already"), whole_folder(used):
        pass
    with pytest.raises(RuntimeError, match="half"), whole_folder(tmp_path / "new") as partial:
        fail_in(partial / "file")
    assert list(tmp_path.iterdir()) == [used]
