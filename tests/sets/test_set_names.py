"""Golden sets on disk: names, versions, the lock, links that lead out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from goldenctl import atomic
from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.sets import names as store
from goldenctl.sets.names import Reference
from goldenctl.sets.resolve import resolve


@pytest.fixture
def goldens(tmp_path: Path) -> Path:
    """Return a folder of one set, ``tiny``, with versions 1, 2 and 10."""
    folder = tmp_path / "goldens"
    (folder / "tiny").mkdir(parents=True)
    for number in (10, 1, 2):
        (folder / "tiny" / f"v{number}.h5").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tiny", Reference("tiny")),
        ("Qwen3-0.6B@v12", Reference("Qwen3-0.6B", 12)),
        ("tiny@v0", None),
        ("tiny@2", None),
        ("golden.h5", None),
        ("report.json", None),
        ("a/b", None),
        ("../x", None),
        (".hidden", None),
        ("..", None),
        ("x" * 65, None),
    ],
)
def test_what_is_a_name(text: str, expected: Reference | None) -> None:
    assert store.parse_reference(text) == expected


def test_names_are_found_and_a_file_of_that_path_comes_first(
    goldens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve("tiny", goldens) == goldens / "tiny" / "v10.h5"
    assert resolve("tiny@v2", goldens) == goldens / "tiny" / "v2.h5"
    assert resolve("other/g.h5", goldens) == Path("other/g.h5")
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny") == Path("goldens/tiny/v10.h5")
    (tmp_path / "tiny").write_bytes(b"")
    assert resolve("tiny") == Path("tiny")
    monkeypatch.setenv("GOLDENS_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(UsageError, match=r"no golden set of that name in .*elsewhere"):
        resolve("tiny@v1")


def test_what_is_not_there_is_said_with_what_is(goldens: Path) -> None:
    with pytest.raises(MissingError, match=r"tiny@v3: .*v3\.h5 is not here \(here: v1, v2, v10\)"):
        resolve("tiny@v3", goldens)
    with pytest.raises(UsageError, match=r"huge: .*no such golden set in .*; there are tiny"):
        resolve("huge", goldens)


def test_links_that_lead_out_are_refused(goldens: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.h5"
    outside.write_bytes(b"")
    (goldens / "tiny" / "v3.h5").symlink_to(outside)
    (goldens / "tiny" / "v4.h5").symlink_to("v2.h5")
    (goldens / "away").symlink_to(tmp_path)
    assert resolve("tiny@v4", goldens) == goldens / "tiny" / "v4.h5"
    for text in ("tiny@v3", "away@v1"):
        with pytest.raises(DamagedError, match="a link that leads out"):
            resolve(text, goldens)


def test_a_pointer_of_git_lfs_is_named(goldens: Path) -> None:
    (goldens / "tiny" / "v2.h5").write_text("version https://git-lfs.github.com/spec/v1\noid 0\n")
    with pytest.raises(MissingError, match=r"v2\.h5: git-lfs has left only a pointer"):
        resolve("tiny@v2", goldens)


HOLD = """
import sys
from goldenctl.sets import names as store
with store.locked(store.open_set("tiny", sys.argv[1] and __import__("pathlib").Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_of_two_writers_one_wins_and_the_other_says_so(goldens: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(goldens)]
    tiny = store.open_set("tiny", goldens)
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said = rf"tiny: another goldenctl \(process {other.pid}\) is writing this set"
        with pytest.raises(UsageError, match=said), store.locked(tiny):
            pass
        other.kill()
        other.wait()
        with store.locked(tiny):  # the lock went with its holder
            pass


def test_a_lock_that_is_a_link_is_not_followed(goldens: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (goldens / "tiny" / ".lock").symlink_to(precious)
    with (
        pytest.raises(UsageError, match="cannot be written"),
        store.locked(store.open_set("tiny", goldens)),
    ):
        pass
    assert precious.read_text() == "keep"


def test_leftovers_of_dead_processes_are_found(goldens: Path) -> None:
    tiny = goldens / "tiny"
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    dead = tiny / f".v3.h5.{ended.stdout.strip()}.part"
    alive = tiny / f".v3.h5.{os.getpid()}.part"
    for path in (dead, alive):
        path.write_bytes(b"")
    assert atomic.leftovers(tiny) == [dead]
    atomic.remove_leftovers(tiny / "manifest.json")
    assert dead.exists()  # of another file
    atomic.remove_leftovers(tiny / "manifest.json", of_all=True)
    assert (dead.exists(), alive.exists()) == (False, True)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    atomic.write_whole(path, b"one")
    with pytest.raises(UsageError, match="cannot be written"):
        atomic.write_whole(tmp_path / "none" / "manifest.json", b"two")
    assert path.read_bytes() == b"one"
    assert [each.name for each in tmp_path.iterdir()] == ["manifest.json"]
