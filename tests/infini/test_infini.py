"""Finding and building InfiniCore, and the cache of harnesses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pretend import pretend_install

import goldenctl
from goldenctl import folders
from goldenctl.errors import MissingError
from goldenctl.infini import build, harness
from goldenctl.infini.find import Install, find_install
from goldenctl.infini.stamp import write_stamp


def test_find_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match="goldenctl infinicore install"):
        find_install()
    own = pretend_install(home / ".local/share/goldenctl/infinicore-0.1.0")
    with pytest.raises(MissingError, match="was not found"):
        find_install()  # without its stamp it is incomplete
    write_stamp(own, version="0.1.0", sdist="sha256:0")
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
    assert folders.harness_cache() == home / ".cache/goldenctl/harness"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert folders.harness_cache() == home / ".cache/goldenctl/harness"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert folders.harness_cache() == Path("/x/goldenctl/harness")
    monkeypatch.setenv("GOLDENCTL_CACHE", "/own")
    assert folders.harness_cache() == Path("/own/harness")
    monkeypatch.setenv("GOLDENCTL_HOME", "/home")
    assert folders.provisioned_prefix() == Path("/home/infinicore-0.1.0")


def test_a_cache_that_cannot_be_written_is_named_with_its_variable(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GOLDENCTL_CACHE", str(tmp_path / "file"))
    with pytest.raises(MissingError, match=r"file/harness: cannot be written: .*GOLDENCTL_CACHE"):
        folders.writable_harness_cache()


@pytest.mark.parametrize("which", [".", "harness", "harness/key", "harness/key/program"])
@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_nothing_is_run_that_other_users_could_have_put_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, which: str, mode: int
) -> None:
    monkeypatch.setenv("GOLDENCTL_CACHE", str(tmp_path / "cache"))
    program = folders.writable_harness_cache() / "key" / "program"
    program.parent.mkdir(mode=0o700)
    program.touch(mode=0o700)
    assert folders.require_ours(program) == program
    open_to_others = tmp_path / "cache" / which
    open_to_others.chmod(mode)
    with pytest.raises(MissingError, match=r"other users can write it.*chmod go-w"):
        folders.require_ours(program)
    open_to_others.chmod(0o755)
    assert folders.require_ours(program) == program


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_nothing_is_run_that_belongs_to_another_user(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOLDENCTL_CACHE", str(tmp_path / "cache"))
    program = folders.writable_harness_cache() / "program"
    program.touch(mode=0o700)
    os.chown(program, 12345, 12345)
    with pytest.raises(MissingError, match=r"belongs to another user.*GOLDENCTL_CACHE"):
        folders.require_ours(program)


def test_without_a_home_folder_the_variable_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        message = "Could not determine home directory."
        raise RuntimeError(message)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(MissingError, match="there is no home folder; set GOLDENCTL_CACHE to a"):
        folders.cache_folder()
    monkeypatch.setenv("GOLDENCTL_HOME", "/own")
    with pytest.raises(MissingError, match="not found: there is no home folder, and /own/infinic"):
        find_install()


TINY = """
cmake_minimum_required(VERSION 3.22)
project(tiny LANGUAGES CXX)
add_executable(goldenctl-harness main.cpp)
target_compile_options(goldenctl-harness PRIVATE -Wall -Werror)
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
    assert [*program.parent.parent.iterdir()] == [program.parent], "nothing stays beside it"


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
    begun = f"building the harness for {install.root} failed: {tiny}/main.cpp:1:21: error: "
    assert caught.value.message.startswith(begun)
    remedy, _, log = caught.value.hint.rpartition("; the full log is ")
    assert remedy == (
        f"check the headers and libraries in {install.root}, $CXX and $CXXFLAGS, "
        "or take the CPU build: goldenctl infinicore install"
    )
    assert "-Werror" in Path(log).read_text()
    assert len(str(caught.value).splitlines()) == 1
    (tiny / "main.cpp").write_text("int main() { return 0; }\n")
    assert harness.build_harness(install).is_file()


def test_failed_build_shows_the_linkers_error(tiny: Path, home: Path) -> None:
    (tiny / "main.cpp").write_text("int absent();\nint main() { return absent(); }\n")
    root = pretend_install(home / "root")
    write_stamp(root, version="0.1.0", sdist="sha256:0")
    with pytest.raises(MissingError) as caught:
        harness.build_harness(find_install(root))
    assert "undefined reference to `absent()'" in caught.value.message
    remedy = f"and the install by: goldenctl infinicore install --prefix {root}; the full log is "
    assert remedy in caught.value.hint


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


def test_rows_of_an_install(infini_install: Install) -> None:
    rows = dict(infini_install.rows)
    assert list(rows) == [
        *("root", "found by", "version", "headers", "libinfinirt.so", "libinfiniop.so")
    ]
    assert rows["root"] == str(infini_install.root)
    assert rows["found by"] == "provisioned"
    assert rows["libinfinirt.so"].startswith("sha256:")


def test_rows_of_devices(infini_install: Install) -> None:
    rows = dict(harness.device_rows(infini_install))
    assert rows["devices"] == "cpu (1)"
    assert rows["rope"] == "neox, gptj"
    assert rows["quirks"] == "cpu float32: gemm_reads_output; cpu float16: rounds_to_zero"


def test_what_is_built_under_a_group_umask_is_run(tiny: Path, home: Path) -> None:
    """Where a user's group may write new files by default, what is built is still ours alone."""
    install = find_install(pretend_install(home / "root"))
    before = os.umask(0o002)
    try:
        program = harness.build_harness(install)
    finally:
        os.umask(before)
    assert harness.build_harness(install) == program
    assert program.stat().st_mode & 0o777 == 0o700
