"""``goldenctl.open``: the tensors of a golden by name, read when they are asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from golden_files import bits, spec, write_file

import goldenctl
from goldenctl.errors import DamagedError, GoldenctlError
from goldenctl.golden.lazy import TensorFile
from goldenctl.golden.schema import SublayerInfo, TensorSpec
from goldenctl.golden.writer import GoldenWriter

LAYERS, STEPS, TAPS = 4, 2, ("q_proj", "output")
VALUES = np.arange(24).reshape(1, 3, 8).astype(ml_dtypes.bfloat16)
RECIPE = {"dtype": "bfloat16", "model": {"config": {"model_type": "qwen3"}}, "faults": []}


def groups() -> list[str]:
    return [
        f"cases/a/steps/{step:02d}/layers/{n:02d}/mlp"
        for step in range(STEPS)
        for n in range(LAYERS)
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a golden of two steps over four layers, with links and one budget."""
    out = tmp_path_factory.mktemp("open") / "golden.h5"
    tensors = [
        spec(f"{group}/{tap}", "bfloat16", VALUES.shape) for group in groups() for tap in TAPS
    ]
    budget = TensorSpec(
        f"{groups()[0]}/budget/q_proj", "float32", (1, 1, 3, 4), ("scope", "a", "b", "c"), "budget"
    )
    links = {f"{later}/input": f"{group}/output" for group, later in pairwise(groups())}
    with GoldenWriter(
        out, kind="golden", recipe=RECIPE, tensors=[*tensors, budget], links=links, groups=groups()
    ) as writer:
        for tensor in tensors:
            writer.write(tensor.name, bits(VALUES))
        writer.write(budget.name, bits(np.arange(12, dtype=np.float32)))
        writer.seal(sublayers=[SublayerInfo(group, 7) for group in groups()])
    return out


@pytest.fixture
def file(path: Path) -> TensorFile:
    return goldenctl.open(path)


def test_a_tensor_is_found_by_the_names_that_reports_use(file: TensorFile) -> None:
    full = "cases/a/steps/01/layers/03/mlp/q_proj"
    for name in (full, "a/01: layers.03.mlp.q_proj", "01/layers/03/mlp/q_proj"):
        assert file[name].name == full
        assert name in file
    assert file.step(1)["layers.03.mlp.q_proj"].name == full
    assert file.step(1, "a")["layers.03.mlp.input"].name.endswith("layers/02/mlp/output")


def test_iteration_is_in_the_order_of_computation_and_leaves_budgets_out(file: TensorFile) -> None:
    assert list(file) == [f"{group}/{tap}" for group in groups() for tap in TAPS]
    assert len(file) == LAYERS * STEPS * len(TAPS)
    assert (file.cases, [(s.case, s.number) for s in file.steps]) == (("a",), [("a", 0), ("a", 1)])
    assert list(file.step(0))[:2] == ["layers.00.mlp.q_proj", "layers.00.mlp.output"]
    assert file.recipe["dtype"] == "bfloat16"
    assert file.kind == "golden"


def test_values_are_numpy_arrays_of_the_stored_type(file: TensorFile) -> None:
    tensor = file.step(0)["layers.02.mlp.output"]
    assert (tensor.shape, tensor.dtype, tensor.op, tensor.size) == (
        (1, 3, 8),
        VALUES.dtype,
        "linear",
        24,
    )
    np.testing.assert_array_equal(tensor.numpy(), VALUES)
    np.testing.assert_array_equal(np.asarray(tensor, np.float32), VALUES.astype(np.float32))
    np.testing.assert_array_equal(tensor[0, -1, 2:4], VALUES[0, -1, 2:4])
    part = tensor[:, 1]
    part[...] = 0  # a copy: the file stays
    np.testing.assert_array_equal(tensor[:, 1], VALUES[:, 1])
    with pytest.raises(ValueError, match="read-only"):
        tensor.numpy()[0, 0, 0] = 1


def test_budgets_are_named_numbers_a_row(file: TensorFile) -> None:
    budget = file.step(0)["layers.00.mlp.q_proj"].budget
    assert budget is not None
    np.testing.assert_array_equal(budget("max"), [[1.0, 5.0, 9.0]])
    assert budget.scopes == ("op",)
    assert file.step(0)["layers.00.mlp.output"].budget is None


def test_what_a_notebook_shows(file: TensorFile, path: Path) -> None:
    tensor = file.step(1)["layers.00.mlp.q_proj"]
    assert repr(tensor) == "<layers.00.mlp.q_proj: bfloat16 [batch 1, token 3, head 8], op linear>"
    assert repr(file).splitlines() == [
        f"golden {path}: qwen3, bfloat16, 16 tensors, 2 steps, 816 B",
        "cases/a/steps/00:",
        "  layers.00.mlp  1×3×8  q_proj output",
        "  layers.01-03.mlp  1×3×8  q_proj output",
        "cases/a/steps/01:",
        "  layers.00-03.mlp  1×3×8  q_proj output",
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            lambda file: file["mlp.q_proj"],
            "8 tensors end in mlp.q_proj: cases/a/steps/00/layers/00",
        ),
        (
            lambda file: file["nothing"],
            "no tensor's name ends in nothing; names end in input, output, q",
        ),
        (lambda file: file.step(1)["x"], "step a/01 has no tensor x"),
        (lambda file: file.step(2), "there is no step 2 of case a"),
        (
            lambda file: file.step(0)["layers.00.mlp.q_proj"].budget("l3"),
            "there is no 'l3'; it has l2,",
        ),
        (lambda file: goldenctl.open("missing.h5"), "missing.h5: there is no such file"),
        (lambda file: goldenctl.open(__file__), "not a usable golden or run file"),
    ],
)
def test_an_error_is_one_clear_line(
    file: TensorFile, wrong: Callable[[TensorFile], Any], said: str
) -> None:
    with pytest.raises(GoldenctlError) as caught:
        wrong(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_are_key_errors(file: TensorFile) -> None:
    assert file.get("nothing") is None
    assert "mlp.q_proj" not in file  # eight tensors
    with pytest.raises(KeyError):
        file["nothing"]


def test_changed_bytes_are_damage_when_all_are_read(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "changed.h5"
    data = bytearray(path.read_bytes())
    at = data.index(VALUES.tobytes())
    data[at + 2] ^= 1
    copy.write_bytes(data)
    tensor = goldenctl.open(copy).step(0)["layers.00.mlp.q_proj"]
    with pytest.raises(DamagedError, match="does not match its digest"):
        tensor.numpy()


def test_runs_say_what_failed(tmp_path: Path) -> None:
    group = "cases/a/steps/00/final_norm"
    failed = SublayerInfo(group, 0, "failed", {"reason": "crash"})
    write_file(
        tmp_path / "run.h5",
        {f"{group}/output": VALUES},
        sublayers=[failed],
        kind="run",
        recipe={"faults": ["rope-base"]},
    )
    run = goldenctl.open(tmp_path / "run.h5")
    assert run.sublayers[group].failure == {"reason": "crash"}
    assert "faults rope-base, 1 sublayer failed" in repr(run)
    assert "failed: final_norm" in repr(run)


def test_torch_is_not_imported(path: Path) -> None:
    code = (
        "import sys, goldenctl\n"
        f"goldenctl.open({str(path)!r}).step(0)['layers.00.mlp.q_proj'].numpy()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
