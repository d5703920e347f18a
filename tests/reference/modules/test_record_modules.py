"""A golden of modules holds what every call of every submodule was given and yielded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from module_subjects import toy

import goldenctl
from goldenctl.errors import UsageError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.places import short_name
from goldenctl.reference.modules.record import ModuleRecording, record_modules
from goldenctl.reference.modules.subject import from_function


def record(name: str, path: Path, **wanted: object) -> GoldenFile:
    subject = from_function(f"module_subjects:{name}")
    record_modules(ModuleRecording(subject, **wanted), path)  # type: ignore[arg-type]
    return open_golden(path)


def calls(golden: GoldenFile) -> list[str]:
    return [short_name(path) for path in golden.sublayers]


def test_calls_are_in_order_of_completion_and_those_of_one_module_are_numbered(
    tmp_path: Path,
) -> None:
    golden = record("toy", tmp_path / "g.h5")
    block = ["first.norm#0", "first.lin#0", "first.lin#1", "first#0"]
    again = ["first.norm#1", "first.lin#2", "first.lin#3", "first#1"]
    assert calls(golden) == [*block, *again, "out", "Net"]


def test_values_are_those_from_before_they_were_changed_in_place(tmp_path: Path) -> None:
    record("toy", tmp_path / "g.h5")
    file = goldenctl.open(tmp_path / "g.h5")
    model, x = toy()
    with torch.no_grad():
        normed = model.first.norm(x)  # type: ignore[union-attr, operator]
        first = model.first.lin(normed)  # type: ignore[union-attr, operator]
    np.testing.assert_array_equal(file["first.lin#0.output"], first.numpy())
    np.testing.assert_array_equal(file["first.lin#1.input"], (first + 1).numpy())


def test_keyword_arguments_dataclasses_and_dictionaries_are_named(tmp_path: Path) -> None:
    record("toy", tmp_path / "g.h5")
    step = goldenctl.open(tmp_path / "g.h5").step(0)
    assert {"first#0.input", "first#0.input.scale", "first#0.output.a"} <= set(step)
    assert {"first#0.output.pair.0", "Net.output.y", "Net.input"} <= set(step)
    assert step["first#0.output.pair.0"].dtype == np.int64
    assert step["first#0.input.scale"].shape == (1,)


def test_a_tensor_that_was_not_changed_since_is_stored_once(tmp_path: Path) -> None:
    golden = record("toy", tmp_path / "g.h5")
    at = "cases/default/steps/00"
    assert golden.aliases[f"{at}/first.lin#0/input"] == f"{at}/first.norm#0/output"
    assert f"{at}/first.lin#1/input" in golden.tensors  # it was


def test_a_shared_module_has_all_its_names(tmp_path: Path) -> None:
    golden = record("toy", tmp_path / "g.h5")
    at = "cases/default/steps/00"
    assert golden.aliases[f"{at}/again.lin#3/output"] == f"{at}/first.lin#3/output"
    assert golden.recipe["modules"]["shared"]["again.norm"] == "first.norm"


def test_modules_that_are_not_called_are_named(tmp_path: Path) -> None:
    subject = from_function("module_subjects:toy")
    assert record_modules(ModuleRecording(subject), tmp_path / "g.h5") == ("first.unused",)


def test_a_pattern_and_a_depth_choose_modules(tmp_path: Path) -> None:
    matched = record("toy", tmp_path / "m.h5", match=("*.norm",))
    assert calls(matched) == ["first.norm#0", "first.norm#1", "Net"]
    shallow = record("toy", tmp_path / "d.h5", depth=1)
    assert calls(shallow) == ["first#0", "first#1", "out", "Net"]
    with pytest.raises(UsageError, match="--match x: no module of Net has such a name"):
        record("toy", tmp_path / "x.h5", match=("x",))


def test_several_calls_are_steps(tmp_path: Path) -> None:
    golden = record("two_steps", tmp_path / "g.h5")
    shapes = [info.shape for info in golden.tensors.values() if info.name.endswith("0/0/output")]
    assert [golden.info(f"cases/default/steps/0{n}/0/output").shape for n in (0, 1)] == [
        (2, 8),
        (3, 8),
    ], shapes


def test_two_recordings_are_the_same_bytes(tmp_path: Path) -> None:
    record("toy", tmp_path / "a.h5", oracle="budget")
    record("toy", tmp_path / "b.h5", oracle="budget")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "returned nothing, expected a module and its inputs"),
        ("no_module", "returned an int in place of an nn.Module"),
        ("raising", "raised OSError: no weights here"),
        ("missing", "module_subjects has no function missing"),
        ("wrong_shape", "Linear: its forward pass raised RuntimeError: mat1 and mat2"),
        ("of_complex_numbers", "Rotate: output: a golden cannot hold a tensor of torch.complex"),
    ],
)
def test_what_cannot_be_recorded_is_one_line_and_leaves_nothing(
    name: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        record(name, tmp_path / "g.h5")
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []
