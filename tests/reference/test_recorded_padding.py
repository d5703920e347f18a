"""Padded batches against transformers, on both sides, and against each row alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from outside import disagreeing, load_outside, outside_steps, recorded

from goldenctl.golden.steps import attention_mask, position_ids, steps
from goldenctl.model.case import Case
from goldenctl.model.synth import synth
from goldenctl.model.tokens import pad

ROWS = ((11, 12, 13, 14, 15, 16, 17), (401, 7, 402), (9,))


def padded(side: str, name: str = "batch", **changes: object) -> Case:
    padding, rows = pad(ROWS, side)
    return replace(Case(name, rows, padding=padding, padding_side=side), **changes)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth("tiny", tmp_path_factory.mktemp("padding") / "tiny", 1)


def test_positions_and_masks_are_those_of_generate() -> None:
    first, second = steps(padded("left", decode=1))
    assert position_ids(first).tolist() == [
        [0, 1, 2, 3, 4, 5, 6],
        [0, 0, 0, 0, 0, 1, 2],
        [0, 0, 0, 0, 0, 0, 0],
    ]
    assert position_ids(second).tolist() == [[7], [3], [1]]
    mask = attention_mask(second)
    assert mask is not None
    assert mask.tolist() == [[1] * 8, [0] * 4 + [1] * 4, [0] * 6 + [1] * 2]
    first, second = steps(padded("right", decode=1, forced=((1,), (2,), (3,)), position_offset=5))
    assert position_ids(first)[1].tolist() == [5, 6, 7, 0, 0, 0, 0]
    assert position_ids(second).tolist() == [[12], [8], [6]]
    assert attention_mask(steps(Case("whole", ROWS[:1]))[0]) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_tap_on_both_sides(family: Path, dtype: str, tmp_path: Path) -> None:
    """Rows of padding included: what they hold is transformers' own choice."""
    forced = ((8, 300), (9, 301), (10, 302))
    cases = [
        padded("left", "left", decode=1),
        padded("right", "right", decode=2, forced=forced),
        padded("left", "chunked", prefill_chunk=4),
    ]
    golden = recorded(family, cases, tmp_path / "g.h5", dtype)
    model = load_outside(family, getattr(torch, dtype))
    for case in cases:
        assert disagreeing(golden, outside_steps(model, golden, case)) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_greedy_tokens_are_those_of_generate(family: Path, dtype: str, tmp_path: Path) -> None:
    case = padded("left", decode=5)
    golden = recorded(family, [case], tmp_path / "g.h5", dtype, taps="sublayer", logits="last")
    model = load_outside(family, getattr(torch, dtype))
    first = steps(case)[0]
    mask = attention_mask(first)
    assert mask is not None
    generated = model.generate(
        torch.tensor(case.token_ids),
        attention_mask=torch.from_numpy(mask).long(),
        max_new_tokens=5,
        do_sample=False,
    )
    columns = [golden.map(f"{step.path}/token_ids") for step in steps(case)[1:]]
    assert np.hstack(columns).tolist() == generated[:, first.token :].tolist()


def test_logits_of_the_last_token_are_of_every_rows(family: Path, tmp_path: Path) -> None:
    """Where a row ends with padding, all logits are kept: its last token is elsewhere."""
    cases = [padded("left", "left"), padded("right", "right")]
    golden = recorded(family, cases, tmp_path / "g.h5", taps="sublayer", logits="last")
    left, right = (golden.map(f"cases/{c.name}/steps/00/lm_head/output") for c in cases)
    assert left.shape == (3, 1, 512)
    assert right.shape == (3, 7, 512)
    for row, ids in enumerate(ROWS):
        np.testing.assert_allclose(left[row, 0], right[row, len(ids) - 1], rtol=1e-4, atol=1e-5)


def test_a_row_is_what_it_is_alone(family: Path, tmp_path: Path) -> None:
    alone = [Case(f"row-{n}", (ids,)) for n, ids in enumerate(ROWS)]
    cases = [padded("left", "left"), padded("right", "right"), *alone]
    golden = recorded(family, cases, tmp_path / "g.h5")
    for case in cases[:2]:
        together = golden.map(f"cases/{case.name}/steps/00/final_norm/output")
        for row, ids in enumerate(ROWS):
            own = golden.map(f"cases/row-{row}/steps/00/final_norm/output")[0]
            first = case.padding[row] if case.padding_side == "left" else 0
            found = together[row, first : first + len(ids)]
            np.testing.assert_allclose(found, own, rtol=1e-4, atol=1e-5)
