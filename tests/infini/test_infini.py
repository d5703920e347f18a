"""Finding and building InfiniCore, and the cache of harnesses."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import goldenctl
from goldenctl.errors import DamagedError, MissingError
from goldenctl.infini import build, harness, paths, provision
from goldenctl.infini.find import STAMP, Install, find_install


def pretend_install(root: Path) -> Path:
    """Make files of the names that an install has."""
    for name in ("infinicore.h", "infinirt.h", "infiniop/handle.h", "infiniop/ops/gemm.h"):
        (root / "include" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "include" / name).write_text(f"// {name}\n")
    (root / "lib").mkdir()
    for library in ("infinirt", "infiniop"):
        (root / "lib" / f"lib{library}.so").write_bytes(library.encode())
    return root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty home folder and none of the variables that point elsewhere."""
    for name in ("INFINI_ROOT", "GOLDENCTL_HOME", "XDG_DATA_HOME", "GOLDENCTL_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_find_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match="goldenctl infinicore install"):
        find_install()
    own = pretend_install(home / ".local/share/goldenctl/infinicore-0.1.0")
    with pytest.raises(MissingError, match="was not found"):
        find_install()  # without its stamp it is not whole
    (own / STAMP).write_text('{"version": "0.1.0"}')
    assert (find_install().source, find_install().version) == ("provisioned", "0.1.0")
    pretend_install(home / ".infini")
    assert (find_install().source, find_install().version) == ("home", None)
    monkeypatch.setenv("INFINI_ROOT", str(pretend_install(home / "vendor")))
    assert find_install().source == "environment"
    found = find_install(pretend_install(home / "mine"))
    assert (found.source, found.root) == ("option", home / "mine")


def test_a_named_root_is_never_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_install(home / ".infini")
    broken = pretend_install(home / "broken")
    (broken / "lib" / "libinfiniop.so").unlink()
    expected = f"{broken} is not an InfiniCore install: it lacks lib/libinfiniop.so"
    with pytest.raises(MissingError) as caught:
        find_install(broken)
    assert caught.value.message == f"--infini-root {expected}"
    monkeypatch.setenv("INFINI_ROOT", str(broken))
    with pytest.raises(MissingError) as caught:
        find_install()
    assert caught.value.message == f"$INFINI_ROOT {expected}"


def test_digests_follow_the_bytes(home: Path) -> None:
    root = pretend_install(home / "a")
    before = find_install(root)
    digests = before.headers_digest, before.library_digests
    (root / "include" / "infinirt.h").write_text("changed")
    (root / "lib" / "libinfinirt.so").write_text("changed")
    after = find_install(root)
    assert after.headers_digest != digests[0]
    assert after.library_digests["libinfinirt.so"] != digests[1]["libinfinirt.so"]
    assert after.library_digests["libinfiniop.so"] == digests[1]["libinfiniop.so"]


def test_paths(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.harness_cache() == home / ".cache/goldenctl/harness"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert paths.harness_cache() == home / ".cache/goldenctl/harness"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert paths.harness_cache() == Path("/x/goldenctl/harness")
    monkeypatch.setenv("GOLDENCTL_CACHE", "/own")
    assert paths.harness_cache() == Path("/own/harness")
    monkeypatch.setenv("GOLDENCTL_HOME", "/home")
    assert paths.provisioned_prefix() == Path("/home/infinicore-0.1.0")


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


@pytest.mark.parametrize("damage", ["no stamp", "torn stamp", "library"])
def test_damaged_install_is_not_whole(infini_install: Install, tmp_path: Path, damage: str) -> None:
    root = tmp_path / "copy"
    subprocess.run(["cp", "-r", infini_install.root, root], check=True)
    assert provision.is_whole(root)
    if damage == "no stamp":
        (root / STAMP).unlink()
    elif damage == "torn stamp":
        (root / STAMP).write_text('{"version": "0.')
    else:
        with (root / "lib" / "libinfinirt.so").open("ab") as file:
            file.write(b"x")
    assert not provision.is_whole(root)


def test_source_package_of_other_bytes_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "infinicore-0.1.0.tar.gz"
    archive.write_bytes(b"not it")
    with pytest.raises(DamagedError, match="expected sha256:f11f9ab3"):
        provision.install(tmp_path / "prefix", sdist=archive)
    assert not (tmp_path / "prefix").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [archive.name, "prefix.lock"]


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


TINY = """
cmake_minimum_required(VERSION 3.22)
project(tiny LANGUAGES CXX)
add_executable(goldenctl-harness main.cpp)
"""


@pytest.fixture
def tiny(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a one-line program in the place of the harness's sources."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "CMakeLists.txt").write_text(TINY)
    (sources / "main.cpp").write_text("int main() { return 0; }\n")
    monkeypatch.setattr(harness, "SOURCES", sources)
    return sources


def test_harness_cache(tiny: Path, home: Path) -> None:
    install = find_install(pretend_install(home / "root"))
    lines: list[str] = []
    program = harness.build_harness(install, progress=lines.append)
    assert subprocess.run([program], check=False).returncode == 0
    assert lines[0] == f"building the harness for {install.root}"
    lines.clear()
    assert harness.build_harness(install, progress=lines.append) == program
    assert lines == []
    names = {path.suffix for path in program.parent.parent.iterdir()}
    assert names == {"", ".lock"}, "no log and no scratch folder stays"


@pytest.mark.parametrize("what", ["source", "header", "sanitize", "flags", "root"])
def test_harness_key_follows(
    tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    root = pretend_install(home / "root")
    before = harness.cache_key(find_install(root))
    assert harness.cache_key(find_install(root)) == before
    if what == "source":
        (tiny / "main.cpp").write_text("int main() { return 1; }\n")
    elif what == "header":
        (root / "include" / "infinirt.h").write_text("changed")
    elif what == "flags":
        monkeypatch.setenv("CXXFLAGS", "-O0")
    elif what == "root":
        root = pretend_install(home / "other")
    after = harness.cache_key(find_install(root), sanitize=what == "sanitize")
    assert after != before


def test_failed_build_shows_the_compilers_error(tiny: Path, home: Path) -> None:
    (tiny / "main.cpp").write_text("int main() { return nothing; }\n")
    install = find_install(pretend_install(home / "root"))
    with pytest.raises(MissingError) as caught:
        harness.build_harness(install)
    assert "nothing" in caught.value.message
    assert "error:" in caught.value.message
    log = Path(caught.value.hint.removeprefix("the full log is "))
    assert "main.cpp" in log.read_text()
    assert len(str(caught.value).splitlines()) == 1
    (tiny / "main.cpp").write_text("int main() { return 0; }\n")
    assert harness.build_harness(install).is_file()


def test_without_a_compiler(tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install = find_install(pretend_install(home / "root"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingError, match=r"no C\+\+ compiler was found.*install g\+\+"):
        harness.build_harness(install)


def test_without_cmake(
    tiny: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = build.compiler()
    install = find_install(pretend_install(home / "root"))
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MissingError, match=r"needs cmake.*pip install 'goldenctl\[build\]'"):
        harness.build_harness(install)


BUILD_TWICE = """
import sys
from pathlib import Path
from goldenctl.infini import harness
from goldenctl.infini.find import find_install
harness.SOURCES = Path(sys.argv[1])
lines = []
print(harness.build_harness(find_install(Path(sys.argv[2])), progress=lines.append))
print(sum("building the harness" in line for line in lines))
"""


def test_two_processes_build_once(tiny: Path, home: Path) -> None:
    root = pretend_install(home / "root")
    command = [sys.executable, "-c", BUILD_TWICE, str(tiny), str(root)]
    env = {**os.environ, "PYTHONPATH": str(Path(goldenctl.__file__).parent.parent)}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(3)
    ]
    answers = [process.communicate()[0].split() for process in running]
    assert {process.returncode for process in running} == {0}
    assert len({program for program, _ in answers}) == 1
    assert sum(int(built) for _, built in answers) == 1


def test_devices_of_a_program_that_cannot_say(tiny: Path, home: Path) -> None:
    install = find_install(pretend_install(home / "root"))
    with pytest.raises(MissingError, match="gave no answer"):
        harness.devices(install)
    (tiny / "main.cpp").write_text("int main() { return 9; }\n")
    with pytest.raises(MissingError, match="ended with status 9: no message"):
        harness.devices(install)


def test_status_lines(infini_install: Install) -> None:
    rows = dict(harness.status_lines(infini_install))
    assert rows["root"] == str(infini_install.root)
    assert rows["devices"] == "cpu (1)"
    assert rows["rope"] == "neox, gptj"
    assert rows["quirks"] == "cpu float32: gemm_reads_output; cpu float16: rounds_to_zero"
    assert rows["libinfinirt.so"].startswith("sha256:")


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (
            ["ok", "a.cpp:1: error: bad", "note", "b.cpp: Error 2", "c error"],
            "a.cpp:1: error: bad | b.cpp: Error 2",
        ),
        (["", "the last words", ""], "the last words"),
        ([], "it printed nothing"),
    ],
)
def test_first_errors(lines: list[str], shown: str) -> None:
    assert build.first_errors(lines) == shown
