"""What a traced chain in float16 inherits from truncation is no error of the engine."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from goldenctl.diff.traced import spare_inherited
from goldenctl.records.report import SublayerResult, TensorResult
from goldenctl.records.structure import Coverage, Finding, Local, Trace
from tests.report.reports import sublayer, tensor

NAME = "layers.00.mlp"
RIGHT, WRONG = Local(share=0.5, rel_l2=1e-3), Local(share=1.5, rel_l2=1e-2)
FOUND = Finding(place=NAME, kind="weight", op="up_proj", text="reads layer 5's weights")


def traced(*findings: Finding) -> Trace:
    return Trace(coverage=Coverage(found=2, expected=2), findings=findings)


def failed(dtype: str, local: Local | None) -> TensorResult:
    return replace(tensor(NAME, "output", 2.0), actual_dtype=dtype, local=local)


def verdict(trace: Trace | None, *tensors: TensorResult) -> SublayerResult:
    return spare_inherited([sublayer(NAME, *tensors)], trace)[0]


def test_it_passes_with_a_note_where_every_op_is_right_by_itself() -> None:
    right = replace(tensor(NAME, "up_proj"), local=RIGHT)
    found = verdict(traced(), right, failed("float16", RIGHT))
    assert (found.state, found.tensors[1].share, found.tensors[1].rule) == ("passed", 0.5, "alone")
    assert "what truncation adds up to" in found.tensors[1].note
    assert found.tensors[0] == right


@pytest.mark.parametrize(
    ("trace", "dtype", "local"),
    [
        (traced(), "bfloat16", RIGHT),
        (traced(), "float16", WRONG),
        (traced(), "float16", None),
        (traced(FOUND), "float16", RIGHT),
        (None, "float16", RIGHT),
    ],
    ids=["another type", "wrong by itself", "not judged", "wrong structure", "no trace"],
)
def test_anything_else_stays_wrong(trace: Trace | None, dtype: str, local: Local | None) -> None:
    assert verdict(trace, failed(dtype, local)).state == "failed"


def test_what_is_not_finite_stays_wrong() -> None:
    lost = replace(tensor(NAME, "output", float("nan")), actual_dtype="float16", local=RIGHT)
    assert verdict(traced(), lost).state == "failed"
