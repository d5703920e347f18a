"""goldenctl.capture writes what every module of a model yields, and says which it cannot see."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import goldenctl
from goldenctl.errors import UsageError
from goldenctl.exchange.records import read_records


@dataclass
class Yielded:
    hidden: Tensor
    pair: tuple[Tensor, Tensor]


class Block(nn.Module):
    """A linear layer whose output is changed in place behind it, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor, *, scale: Tensor) -> Yielded:
        y = self.linear(x)
        y.mul_(scale)
        z = self.linear(y)
        return Yielded(z, (x, z.to(torch.bfloat16)))


def tensors(path: Path) -> list[tuple[str, Any]]:
    data = path.read_bytes()
    found = []
    for record in read_records(path).records:
        end = record.payload_offset + record.payload_bytes
        raw = data[record.payload_offset : end]
        kind: Any = record.header["dtype"]
        kind = ml_dtypes.bfloat16 if kind == "bfloat16" else kind
        values = np.frombuffer(raw, kind).reshape(record.header["shape"])
        found.append((record.header["name"], values))
    return found


def test_every_output_is_written_as_it_was_when_its_module_returned(tmp_path: Path) -> None:
    model, x = Block(), torch.ones(2, 3)
    with (
        torch.no_grad(),
        pytest.warns(UserWarning, match=r"were not called: 1 \(unused\)"),
        goldenctl.capture(model, tmp_path / "taps") as seen,
    ):
        output = model(x, scale=torch.tensor(2.0))
    found = tensors(tmp_path / "taps")
    assert [name for name, _ in found] == ["linear", "linear", "hidden", "pair.0", "pair.1"]
    assert (seen.tensors, seen.silent) == (5, ("unused",))
    with torch.no_grad():
        np.testing.assert_array_equal(found[0][1], model.linear(x).numpy())
    np.testing.assert_array_equal(found[1][1], output.hidden.numpy())
    assert found[4][1].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found[4][1].astype(np.float32), output.pair[1].float().numpy())


def test_inputs_are_written_when_asked_for(tmp_path: Path) -> None:
    model = Block()
    with torch.no_grad(), goldenctl.capture(model, tmp_path / "t", match="", inputs=True):
        model(torch.ones(1, 3), scale=torch.tensor(2.0))
    names = [name for name, _ in tensors(tmp_path / "t")]
    assert names == ["hidden", "pair.0", "pair.1", "input", "input.scale"]


def test_a_compiled_model_is_captured_under_its_own_names(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    compiled, x = torch.compile(model, backend="eager"), torch.ones(1, 3)
    with torch.no_grad(), goldenctl.capture(compiled, tmp_path / "taps"):
        expected = compiled(x)
    found = dict(tensors(tmp_path / "taps"))
    assert set(found) == {"0", "1", ""}
    np.testing.assert_array_equal(found["1"], expected.numpy())


def test_what_was_compiled_before_runs_no_hooks_and_that_is_said(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    compiled, x = torch.compile(model, backend="eager"), torch.ones(1, 3)
    compiled(x)
    with (
        pytest.warns(UserWarning, match="torch.compile made before the capture"),
        goldenctl.capture(compiled, tmp_path / "taps") as seen,
    ):
        compiled(x)
    assert "_orig_mod.0" in seen.silent


def test_modules_of_exported_code_run_no_hooks_and_that_is_said(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(3, 3)), torch.ones(1, 3)
    exported = torch.export.export(model, (x,)).module()
    with (
        pytest.warns(UserWarning, match="do not run in exported code"),
        goldenctl.capture(exported, tmp_path / "taps") as seen,
    ):
        exported(x)
    assert "0" in seen.silent


def test_hooks_are_gone_behind_the_block_even_after_an_error(tmp_path: Path) -> None:
    model = Block()
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(TypeError),
        goldenctl.capture(model, tmp_path / "taps"),
    ):
        model(torch.ones(1, 3))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_block_in_which_nothing_ran_says_so(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="the model was not called"),
        goldenctl.capture(Block(), tmp_path / "taps"),
    ):
        pass


def test_what_cannot_be_captured_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "taps"
    with (
        pytest.raises(UsageError, match="no module of the model is named 'x'"),
        goldenctl.capture(Block(), path, match="x"),
    ):
        pass
    path.write_text("kept")
    with (
        pytest.raises(UsageError, match="the file exists already"),
        goldenctl.capture(Block(), path),
    ):
        pass
    assert path.read_text() == "kept"
