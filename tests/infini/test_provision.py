"""Installing InfiniCore: whole or not at all, and over nothing that is not its own."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pretend import contents, pretend_install, small_sdist

import goldenctl
from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.infini import provision
from goldenctl.infini.build import CommandFailed
from goldenctl.infini.find import Install, find_install
from goldenctl.infini.stamp import STAMP, digest_file, read_stamp


@pytest.fixture
def sdist(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pin a source package that builds in a moment."""
    archive = small_sdist(tmp_path_factory.mktemp("sdist") / "small.tar.gz")
    digest = digest_file(archive)
    monkeypatch.setattr(provision, "pinned_digest", lambda: digest)
    return archive


@pytest.fixture
def installed(sdist: Path, tmp_path: Path) -> Path:
    """Return the folder that the small package was installed into, with nothing beside it."""
    return provision.install(tmp_path / "prefix", sdist=sdist).root


def test_install_is_whole_and_repeatable(infini_install: Install) -> None:
    assert infini_install.source == "provisioned"
    assert infini_install.version == provision.VERSION
    assert provision.is_whole(infini_install.root)
    lines: list[str] = []
    again = provision.install(progress=lines.append)
    assert again == infini_install
    assert lines == [f"InfiniCore 0.1.0 is already in {infini_install.root}"]


def test_install_at_a_prefix_that_is_whole(infini_install: Install) -> None:
    """The command finds nothing to do; that it builds, the fixture has seen."""
    prefix = str(infini_install.root)
    command = [sys.executable, "-m", "goldenctl", "infinicore", "install", "--prefix", prefix]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"InfiniCore is at {prefix}\n")
    assert done.stderr == f"InfiniCore 0.1.0 is already in {prefix}\n"


def remove_a_header(root: Path) -> None:
    (root / "include" / "infiniop" / "handle.h").unlink()


def change_a_header(root: Path) -> None:
    (root / "include" / "infinirt.h").write_text("// infinirt.H\n")


def truncate_a_header(root: Path) -> None:
    os.truncate(root / "include" / "infinirt.h", 3)


def empty_a_library(root: Path) -> None:
    os.truncate(root / "lib" / "libinfiniop.so", 0)


def truncate_a_library(root: Path) -> None:
    os.truncate(root / "lib" / "libinfiniop.so", 4096)


def tear_the_stamp(root: Path) -> None:
    os.truncate(root / STAMP, 40)


def stamp_as_an_earlier_goldenctl(root: Path) -> None:
    (root / STAMP).write_text('{"version": "0.1.0", "sdist": "", "files": {"a": "sha256:0"}}')


HARMS = [
    (remove_a_header, "it lacks include/infiniop/handle.h"),
    (change_a_header, "its include/infinirt.h has other bytes than were installed"),
    (truncate_a_header, f"its include/infinirt.h has 3 bytes, expected 14 by {STAMP}"),
    (empty_a_library, "its lib/libinfiniop.so is empty"),
    (truncate_a_library, "its lib/libinfiniop.so has 4096 bytes, expected "),
    (tear_the_stamp, f"its {STAMP} is damaged, or another version of goldenctl wrote it"),
    (stamp_as_an_earlier_goldenctl, f"its {STAMP} is damaged, or another version"),
]


@pytest.mark.parametrize(("harm", "seen"), HARMS, ids=[harm.__name__ for harm, _ in HARMS])
def test_a_damaged_install_is_seen_and_mended(
    installed: Path, sdist: Path, harm: Callable[[Path], None], seen: str
) -> None:
    before = contents(installed.parent)
    assert provision.is_whole(installed)
    harm(installed)
    assert not provision.is_whole(installed)
    if harm is not change_a_header:  # which only a digest shows
        with pytest.raises(MissingError) as caught:
            find_install(installed)
        named = f"--infini-root {installed} is not an InfiniCore install: "
        assert caught.value.message.startswith(named + seen)
        again = f"build it again: goldenctl infinicore install --prefix {installed}"
        assert caught.value.hint == again
    lines: list[str] = []
    provision.install(installed, sdist=sdist, progress=lines.append)
    assert lines[0].startswith(f"building the install in {installed} again: {seen}")
    assert provision.is_whole(installed)
    assert contents(installed.parent).keys() == before.keys()


def test_an_install_of_another_package_is_replaced(installed: Path, sdist: Path) -> None:
    stamp = (installed / STAMP).read_text()
    (installed / STAMP).write_text(stamp.replace(digest_file(sdist), "sha256:" + "0" * 64))
    find_install(installed)  # it can be used
    assert not provision.is_whole(installed)
    provision.install(installed, sdist=sdist)
    assert provision.is_whole(installed)


def test_the_stamp_names_every_file(installed: Path) -> None:
    stamp = read_stamp(installed)
    assert stamp is not None
    files = {name for name, content in contents(installed).items() if content is not None}
    assert stamp.files.keys() == files - {STAMP}


def test_a_damaged_install_of_our_own_is_not_found(
    home: Path, sdist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = provision.install(sdist=sdist)
    assert (own.source, find_install()) == ("provisioned", own)
    truncate_a_library(own.root)
    with pytest.raises(MissingError) as caught:
        find_install()
    assert f"{home}/.infini is not there, and {own.root} is incomplete: its lib/" in str(
        caught.value
    )
    monkeypatch.setenv("INFINI_ROOT", str(own.root))
    with pytest.raises(MissingError, match=r"again: goldenctl infinicore install$"):
        find_install()


def test_a_build_of_the_users_own_has_no_stamp_and_is_taken(home: Path) -> None:
    root = pretend_install(home / ".infini")
    assert find_install().source == "home"
    truncate_a_header(root)
    assert find_install().source == "home"
    empty_a_library(root)
    with pytest.raises(MissingError, match=r"its lib/libinfiniop\.so is empty"):
        find_install(root)


def hold_a_file(prefix: Path) -> str:
    prefix.mkdir()
    (prefix / "thesis.tex").write_text("years of work")
    return "thesis.tex"


def hold_a_build_of_the_users_own(prefix: Path) -> str:
    pretend_install(prefix)
    return "include"


def hold_a_file_beside_an_install(prefix: Path) -> str:
    pretend_install(prefix)
    (prefix / STAMP).write_text("{}")
    (prefix / "notes.txt").write_text("mine")
    return "notes.txt"


@pytest.mark.parametrize(
    "hold", [hold_a_file, hold_a_build_of_the_users_own, hold_a_file_beside_an_install]
)
def test_what_goldenctl_did_not_install_is_never_replaced(
    tmp_path: Path, hold: Callable[[Path], str]
) -> None:
    prefix = tmp_path / "prefix"
    held = hold(prefix)
    before = contents(tmp_path)
    with pytest.raises(UsageError) as caught:  # before the source package is looked at
        provision.install(prefix, sdist=tmp_path / "there is none")
    assert f"{prefix}: holds {held}, which goldenctl did not install" in caught.value.message
    assert contents(tmp_path) == before


def test_a_file_that_comes_during_the_build_is_not_replaced(tmp_path: Path, sdist: Path) -> None:
    prefix = tmp_path / "prefix"

    def meanwhile(_line: str) -> None:
        if not prefix.exists():
            hold_a_file(prefix)

    with pytest.raises(UsageError, match="thesis"):
        provision.install(prefix, sdist=sdist, progress=meanwhile)
    assert sorted(contents(tmp_path)) == ["prefix", "prefix/thesis.tex"]


def test_a_link_to_an_empty_folder_stays_a_link(tmp_path: Path, sdist: Path) -> None:
    (tmp_path / "disk" / "empty").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "empty")
    assert provision.install(tmp_path / "link", sdist=sdist).root == tmp_path / "link"
    assert (tmp_path / "link").is_symlink()
    assert provision.is_whole(tmp_path / "disk" / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["empty"]


def test_an_interrupted_install_leaves_nothing(tmp_path: Path, sdist: Path) -> None:
    def interrupted(line: str) -> None:
        if "Building CXX" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provision.install(tmp_path / "prefix", sdist=sdist, progress=interrupted)
    assert contents(tmp_path) == {}


INSTALL = """
import sys
from pathlib import Path
from goldenctl.cli import run
from goldenctl.infini import provision, stamp
digest = stamp.digest_file(Path(sys.argv[2]))
provision.pinned_digest = lambda: digest
sys.exit(run(["infinicore", "install", "--prefix", sys.argv[1], "--sdist", sys.argv[2]]))
"""


def begun_install(tmp_path: Path, sdist: Path) -> subprocess.Popen[str]:
    """Start an install that hangs in its compiler; return once it does."""
    hanging = tmp_path / "compiler"
    hanging.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/hangs\nexec sleep 100\n")
    hanging.chmod(0o755)
    prefix = tmp_path / "here" / "prefix"
    environment = {
        **os.environ,
        "CXX": str(hanging),
        "PYTHONPATH": str(Path(goldenctl.__file__).parent.parent),
    }
    command = [sys.executable, "-c", INSTALL, str(prefix), str(sdist)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    until = time.monotonic() + 60
    while not (tmp_path / "hangs").exists() and time.monotonic() < until:
        time.sleep(0.05)
    return process


def test_ctrl_c_ends_an_install_and_its_compiler(tmp_path: Path, sdist: Path) -> None:
    process = begun_install(tmp_path, sdist)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("goldenctl: interrupted")
    assert contents(tmp_path / "here") == {}


def test_the_next_install_takes_away_what_a_killed_one_left(tmp_path: Path, sdist: Path) -> None:
    process = begun_install(tmp_path, sdist)
    process.kill()
    process.wait(timeout=60)
    prefix = tmp_path / "here" / "prefix"
    left = {path.name.rpartition("-")[0] for path in prefix.parent.iterdir()}
    assert ".prefix.goldenctl-scratch" in left
    with pytest.raises(MissingError):
        find_install(prefix)
    provision.install(prefix, sdist=sdist)
    assert [path.name for path in prefix.parent.iterdir()] == ["prefix"]
    outliving = int((tmp_path / "hangs").read_text())
    os.killpg(os.getpgid(outliving), signal.SIGKILL)
    process.communicate(timeout=60)


def test_a_failed_install_names_its_log_and_the_next_takes_it_away(
    tmp_path: Path, sdist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setenv("CXXFLAGS", "-include nothing.h")
        with pytest.raises(CommandFailed) as caught:
            provision.install(tmp_path / "prefix", sdist=sdist)
    assert "nothing.h" in caught.value.message
    log = Path(caught.value.hint.rpartition("the full log is ")[2])
    assert [*tmp_path.iterdir()] == [log]
    assert "nothing.h" in log.read_text()
    provision.install(tmp_path / "prefix", sdist=sdist)
    assert [path.name for path in tmp_path.iterdir()] == ["prefix"]


def test_source_package_of_other_bytes_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "infinicore-0.1.0.tar.gz"
    archive.write_bytes(b"not it")
    with pytest.raises(DamagedError, match="expected sha256:f11f9ab3"):
        provision.install(tmp_path / "prefix", sdist=archive)
    assert not (tmp_path / "prefix").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [archive.name]


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_unpacking_stays_inside(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(DamagedError, match="outside or too large"):
        provision.unpack(archive, tmp_path / "target")
    assert not (tmp_path / "evil").exists()


def test_unpacking_leaves_out_links(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("top/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("top/file"))
    top = provision.unpack(archive, tmp_path / "target")
    assert [path.name for path in top.iterdir()] == ["file"]
