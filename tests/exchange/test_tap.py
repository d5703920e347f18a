"""goldenctl_tap.h in a C program of several translation units, threads and processes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from goldenctl.exchange.records import read_records

HERE = Path(__file__).parent
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
TAP = HERE.parents[1] / "goldenctl" / "include"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tap")
    options = [*WARNINGS, "-O1", f"-I{TAP}", "-c"]
    for compiler, standard, source in (
        ("cc", "gnu99", "tapped.c"),
        ("c++", "c++11", "tapped_too.cpp"),
    ):
        command = [compiler, f"-std={standard}", *options, str(HERE / source)]
        subprocess.run(command, check=True, cwd=folder)
    command = ["c++", "tapped.o", "tapped_too.o", "-pthread", "-o", "tapped"]
    subprocess.run(command, check=True, cwd=folder)
    return folder / "tapped"


def run(program: Path, what: str, taps: object = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "GOLDENCTL_TAPS"}
    if taps is not None:
        environment["GOLDENCTL_TAPS"] = str(taps)
    command = [str(program), what]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def tensors(path: Path) -> list[tuple[str, np.ndarray]]:
    log, data = read_records(path), path.read_bytes()
    assert log.torn_bytes == 0
    return [
        (
            r.header["name"],
            np.frombuffer(
                data[r.payload_offset : r.payload_offset + r.payload_bytes], r.header["dtype"]
            ).reshape(r.header["shape"]),
        )
        for r in log.records
    ]


def test_every_tensor_is_written_as_the_program_means_it(program: Path, tmp_path: Path) -> None:
    done = run(program, "kinds", tmp_path / "taps")
    assert done.returncode == 0
    assert done.stderr == "goldenctl_tap: strange: not written: unknown dtype\n"
    found = tensors(tmp_path / "taps")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = [
        ("dense", values),
        ("transposed", values.T),
        ("scalar", np.float32(3)),
        ("empty", np.empty((0, 3), np.float32)),
        ('odd "name"\n\\', np.frombuffer(b"abc", np.uint8)),
        ("dense", np.float32([3, 4, 5])),
    ]
    assert [name for name, _ in found][:4] == [name for name, _ in expected][:4]
    for (name, actual), (wanted, value) in zip(found[:4], expected[:4], strict=True):
        assert name == wanted
        np.testing.assert_array_equal(actual, value, strict=True)
    assert found[4][0] == expected[4][0]
    np.testing.assert_array_equal(found[5][1], expected[5][1])


def test_nothing_happens_without_the_variable(program: Path, tmp_path: Path) -> None:
    done = run(program, "threads")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_threads_and_translation_units_share_one_file(program: Path, tmp_path: Path) -> None:
    assert run(program, "threads", tmp_path / "taps").returncode == 0
    found = tensors(tmp_path / "taps")
    assert len(found) == 4 * 50 + 1
    for name, value in found:
        if name == "elsewhere":
            np.testing.assert_array_equal(value, [1.5, 2.5])
        else:
            thread, i = map(int, re.findall(r"\d+", name))
            assert value.shape == (10, 100)
            assert set(value.flat) == {thread * 1000 + i}


def test_a_child_of_fork_shares_the_file(program: Path, tmp_path: Path) -> None:
    assert run(program, "fork", tmp_path / "taps").returncode == 0
    assert len(tensors(tmp_path / "taps")) == 1 + 2 * 50


def test_a_killed_program_leaves_what_it_tapped(program: Path, tmp_path: Path) -> None:
    assert run(program, "die", tmp_path / "taps").returncode == -9
    assert [name for name, _ in tensors(tmp_path / "taps")] == ["before"]


def test_the_process_number_may_be_in_the_name(program: Path, tmp_path: Path) -> None:
    assert run(program, "kinds", tmp_path / "%p.taps").returncode == 0
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"\d+\.taps", path.name)


@pytest.mark.parametrize("there", [True, False], ids=["exists", "no folder"])
def test_a_file_that_cannot_be_written_is_said_once(
    program: Path, tmp_path: Path, *, there: bool
) -> None:
    path = tmp_path / "taps" if there else tmp_path / "absent" / "taps"
    if there:
        path.write_text("kept")
    done = run(program, "kinds", path)
    reason = "the file exists already" if there else "No such file or directory"
    assert done.returncode == 0
    assert done.stderr.startswith(f"goldenctl_tap: {path}: {reason}")
    assert done.stderr.count("\n") == 1
    assert not there or path.read_text() == "kept"


def test_a_tensor_that_does_not_fit_on_the_disk_is_taken_back(
    program: Path, tmp_path: Path
) -> None:
    script = f"ulimit -f 64; trap '' XFSZ; exec {program} threads"
    environment = {**os.environ, "GOLDENCTL_TAPS": str(tmp_path / "taps")}
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr.endswith(": File too large; no more tensors are written\n")
    assert done.stderr.count("\n") == 1
    assert 0 < len(tensors(tmp_path / "taps")) < 200


def test_taps_can_be_compiled_away(tmp_path: Path) -> None:
    source = HERE / "tapped_too.cpp"
    command = ["c++", *WARNINGS, "-DGOLDENCTL_TAP_OFF", f"-I{TAP}", "-O1", "-S", str(source)]
    subprocess.run([*command, "-o", str(tmp_path / "off.s")], check=True)
    assert "open" not in (tmp_path / "off.s").read_text()


def test_cmake_finds_the_header(tmp_path: Path) -> None:
    lists = (
        "cmake_minimum_required(VERSION 3.18)\nproject(engine CXX)\n"
        "find_package(goldenctl REQUIRED)\n"
        f'add_library(engine "{HERE / "tapped_too.cpp"}")\n'
        "target_link_libraries(engine PRIVATE goldenctl::tap)\n"
    )
    (tmp_path / "CMakeLists.txt").write_text(lists)
    command = ["cmake", "-S", ".", "-B", "build", f"-Dgoldenctl_DIR={TAP / 'cmake'}"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", "build"], cwd=tmp_path, check=True, capture_output=True)
