"""The pytest plugin as its users see it: record, pass, fail, update, what is unused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from goldenctl.golden.file import open_golden
from goldenctl.pytest_plugin.places import file_name
from tests.pytest_plugin.conftest import change, update

# The runs inside load the plugin again in this process, where it is imported already.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestAssertRewriteWarning")


def goldens(pytester: pytest.Pytester, module: str = "test_kernel") -> dict[str, bytes]:
    folder = pytester.path / "goldens" / module
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_was_recorded_passes_and_is_a_golden(project: pytest.Pytester) -> None:
    assert list(goldens(project)) == ["test_out[1].h5", "test_out[2].h5"]
    result = project.runpytest()
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*golden tensors*")
    file = open_golden(project.path / "goldens/test_kernel/test_out[1].h5")
    assert [i.shape for i in file.tensors.values()] == [(4,), (4, 8)]


def test_a_missing_golden_fails_with_the_command(project: pytest.Pytester) -> None:
    (project.path / "goldens/test_kernel/test_out[2].h5").unlink()
    result = project.runpytest()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*golden 'out' is not recorded in *goldens/test_kernel/test_out[[]2[]].h5",
            "E*to record it: pytest --golden-update 'test_kernel.py::test_out[[]2[]]'",
        ]
    )


def test_a_difference_names_the_elements(project: pytest.Pytester) -> None:
    change(
        project,
        '"out", SCALE * x',
        '"out", x + np.float32(0.5) * (np.arange(32).reshape(4, 8) == 13)',
    )
    result = project.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E*golden 'out' differs",
            "E*relative L2 error *, at most 7.6*e-06 is allowed",
            "E*worst at *actual*expected*off by*",
            "E*[[]1, 5[]] * 0.5",
            "E*over all: relative L2 *, cosine *",
            "E*if this is meant: pytest --golden-update 'test_kernel.py::test_out[[]1[]]'",
        ]
    )
    shown = [line for line in result.outlines if line.startswith("E") and "[" in line]
    assert len([line for line in shown if "[1, 5]" in line]) == 2
    assert ">       golden.check" in result.stdout.str()  # the user's line, not ours


def test_update_writes_what_is_beyond_and_keeps_what_is_within(project: pytest.Pytester) -> None:
    before = goldens(project)
    change(project, "SCALE = 1.0", "SCALE = 1.0000001")
    update(project).assert_outcomes(passed=2)
    assert goldens(project) == before
    change(project, "SCALE = 1.0000001", "SCALE = 2.0")
    result = update(project, "-k", "1")
    result.stdout.fnmatch_lines(["wrote goldens/test_kernel/test_out[[]1[]]: out"])
    after = goldens(project)
    assert after["test_out[1].h5"] != before["test_out[1].h5"]
    assert after["test_out[2].h5"] == before["test_out[2].h5"]
    change(project, "SCALE = 2.0", "SCALE = 1.0")
    update(project).assert_outcomes(passed=2)
    assert goldens(project) == before  # the same values are the same bytes


@pytest.mark.parametrize("workers", [None, "2"])
def test_unused_goldens_are_reported(project: pytest.Pytester, workers: str | None) -> None:
    change(project, "[1, 2]", "[1]")
    change(project, 'golden.check("ids", np.arange(4))', "pass")
    stray = project.path / "goldens" / "test_gone" / "test_x.json"
    stray.parent.mkdir()
    stray.write_text("{}")
    arguments = ("-p", "xdist", "-n", workers) if workers else ()
    result = project.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "unused in goldens/test_kernel/test_out[[]1[]]: ids (--golden-update removes them)",
            "unused: goldens/test_gone",
            "unused: goldens/test_kernel/test_out[[]2[]].h5",
        ]
    )
    update(project).stdout.fnmatch_lines(["wrote goldens/test_kernel/*: removed ids"])
    file = open_golden(project.path / "goldens/test_kernel/test_out[1].h5")
    assert list(file.tensors) == ["tensors/out"]


def test_a_pass_that_compared_nothing_says_so(project: pytest.Pytester) -> None:
    change(project, "[1, 2]", "[1]")
    change(project, "def test_out(golden, seed):", "def test_out(golden, seed):\n    return")
    before = goldens(project)
    for run in (project.runpytest(), update(project)):
        run.assert_outcomes(passed=1)
        run.stdout.fnmatch_lines(
            ["nothing was compared with goldens/test_kernel/test_out[[]1[]]: ids, out"]
        )
    assert goldens(project) == before


@pytest.mark.parametrize("selection", [("-k", "1"), ("test_kernel.py::test_out[1]",)])
def test_nothing_is_said_of_tests_that_were_not_chosen(
    project: pytest.Pytester, selection: tuple[str, ...]
) -> None:
    result = project.runpytest(*selection)
    result.assert_outcomes(passed=1, deselected=1 if selection[0] == "-k" else 0)
    result.stdout.no_fnmatch_line("*golden tensors*")


def test_workers_write_without_loss(pytester: pytest.Pytester, installed_plugins: None) -> None:
    pytester.makepyfile(
        test_many="""
        import numpy as np
        import pytest

        @pytest.mark.parametrize("n", range(8))
        def test_it(golden, n):
            golden.check("x", np.full(3, n))
        """
    )
    result = pytester.runpytest_subprocess("-n", "2", "--golden-update")
    result.assert_outcomes(passed=8)
    wrote = [line for line in result.outlines if line.startswith("wrote ")]
    assert len(wrote) == 8
    assert len(goldens(pytester, "test_many")) == 8
    pytester.runpytest("-q").assert_outcomes(passed=8)


def test_a_failing_test_loses_no_golden(project: pytest.Pytester) -> None:
    before = goldens(project)
    change(project, 'golden.check("ids", np.arange(4))', "assert False")
    update(project).assert_outcomes(failed=2)
    assert goldens(project) == before


def test_golden_dir_keeps_all_in_one_folder(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngolden_dir = golden/tensors\n")
    folder = pytester.mkdir("unit")
    (folder / "test_a.py").write_text(
        "class TestA:\n    def test_b(self, golden):\n        golden.check('x', 1.5)\n"
    )
    update(pytester).assert_outcomes(passed=1)
    assert (pytester.path / "golden/tensors/unit/test_a/TestA.test_b.h5").is_file()
    pytester.runpytest().assert_outcomes(passed=1)


def test_a_large_tensor_is_kept_as_a_sketch(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngolden_max_bytes = 1000\n")
    pytester.makepyfile(
        test_kernel="""
        import numpy as np

        def test_large(golden):
            x = np.random.default_rng(0).standard_normal((50, 200)).astype(np.float32)
            golden.check("x", x)
        """
    )
    update(pytester).assert_outcomes(passed=1)
    assert list(goldens(pytester)) == ["test_large.json"]
    pytester.runpytest().assert_outcomes(passed=1)
    change(pytester, '"x", x)', '"x", x * (1 + 1e-7))')
    pytester.runpytest().assert_outcomes(passed=1)
    change(pytester, "x * (1 + 1e-7)", "np.where(x > 3, 0, x)")
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*golden 'x' differs: relative L2 about *, 7.6e-06 is allowed*",
            "E*only a sketch of it is kept; store='values' would tell which element",
        ]
    )
    change(pytester, '"x", np.where(x > 3, 0, x)', '"x", x, rtol=1e-3')
    result = pytester.runpytest()
    result.stdout.fnmatch_lines(["E*rtol, atol and max_ulp need the values*store='values'*"])


@pytest.mark.parametrize("where", ["a tensor", "the metadata", "all of it"])
def test_a_damaged_golden_is_short_and_update_replaces_it(
    project: pytest.Pytester, where: str
) -> None:
    path = project.path / "goldens/test_kernel/test_out[1].h5"
    whole = path.read_bytes()
    data = bytearray(whole)
    if where == "a tensor":
        data[open_golden(path).info("tensors/out").offset] ^= 1
    else:
        data[:200] = b"x" * 200
    path.write_bytes(data if where != "all of it" else b"x")
    result = project.runpytest()
    result.assert_outcomes(passed=1, failed=1)
    said = "out does not match its digest" if where == "a tensor" else "not a usable golden*"
    result.stdout.fnmatch_lines(
        [
            f"E*AssertionError: golden 'out': *test_out[[]1[]].h5: {said}",
            "E*if git has it: git checkout the file; else delete it, or to record it again: "
            "pytest --golden-update *test_out?1??",
        ]
    )
    result.stdout.no_fnmatch_line("*goldenctl/*:[0-9]*: *")  # no frame of goldenctl
    assert path.read_bytes() != whole
    update(project).assert_outcomes(passed=2)
    assert path.read_bytes() == whole
    project.runpytest().assert_outcomes(passed=2)


def test_a_wrong_setting_is_refused(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\ngolden_max_bytes = many\n")
    result = project.runpytest()
    result.stdout.fnmatch_lines(["*golden_max_bytes: expected a number of bytes, got 'many'"])


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, goldenctl.pytest_plugin; "
        "print(*{'torch', 'h5py', 'numpy', 'msgspec', 'ml_dtypes', 'rich'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


@pytest.mark.parametrize(
    ("test", "file"),
    [
        ("test_a", r"test_a"),
        ("TestA::test_b[1-float32]", r"TestA\.test_b\[1-float32\]"),
        ("test_a[x/../y]", r"test_a\[x-\.\.-y\]-[0-9a-f]{8}"),
        ("test_a[x y]", r"test_a\[x-y\]-[0-9a-f]{8}"),
        ("test_a[" + "x" * 300 + "]", r"test_a\[x{93}-[0-9a-f]{8}"),
    ],
)
def test_file_names_are_readable_and_distinct(test: str, file: str) -> None:
    assert re.fullmatch(file, file_name(test))
    assert file_name(test + "x") != file_name(test)


def test_a_folder_that_cannot_be_written_is_one_line(project: pytest.Pytester) -> None:
    shutil.rmtree(project.path / "goldens")
    (project.path / "goldens").write_text("in the way")
    result = update(project)
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["E*goldens/test_kernel: cannot be written: *"])
