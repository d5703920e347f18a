"""Every tap of every decode step, and every generated token, against transformers with its cache.

As in test_truth.py, 16-bit types are equal bit by bit and float32 has a bound.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from outside import disagreeing, load_outside, outside_steps, recorded

from goldenctl.golden.steps import steps
from goldenctl.model.case import Case
from goldenctl.model.synth import synth

PAIR = ((11, 12, 13, 14, 15, 16, 17), (401, 7, 402, 9, 403, 11, 404))


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a preset to its checkpoint, made once."""
    folder = tmp_path_factory.mktemp("decode")

    def made(preset: str) -> Path:
        return folder / preset if (folder / preset).exists() else synth(preset, folder / preset, 1)

    return made


@pytest.mark.parametrize(
    ("preset", "dtype"),
    [
        ("tiny", "float32"),
        ("tiny", "bfloat16"),
        ("llama-bias-tiny", "float16"),
        ("mistral-tiny", "bfloat16"),
        ("mistral-window-tiny", "float32"),
        ("gemma3-tiny", "float32"),
        ("gemma3-tiny", "bfloat16"),
        ("phi3-tiny", "bfloat16"),  # the second decode step has the tables of long inputs
        ("olmo2-tiny", "bfloat16"),
        ("qwen3-moe-tiny", "bfloat16"),
        ("glm4-tiny", "bfloat16"),
    ],
)
def test_every_tap_of_every_step(
    preset: str, dtype: str, family: Callable[[str], Path], tmp_path: Path
) -> None:
    cases = [
        Case("greedy", PAIR, decode=2),
        Case("forced", PAIR[:1], decode=2, forced=((8, 300),)),
        Case("chunked", PAIR, decode=1, prefill_chunk=4),
    ]
    golden = recorded(family(preset), cases, tmp_path / "g.h5", dtype)
    model = load_outside(family(preset), getattr(torch, dtype))
    for case, count in zip(cases, (3, 3, 3), strict=True):
        truth = outside_steps(model, golden, case)
        assert len(steps(case)) == count
        assert disagreeing(golden, truth) == []
        root = f"cases/{case.name}/steps/"
        taps = {name for name in (*golden.tensors, *golden.aliases) if name.startswith(root)}
        assert {n for n in taps - truth.keys() if not n.endswith("_ids")} == {
            f"{step.path}/embedding/input" for step in steps(case)
        }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_greedy_tokens_are_those_of_generate(
    dtype: str, family: Callable[[str], Path], tmp_path: Path
) -> None:
    case, checkpoint = Case("greedy", PAIR, decode=6), family("tiny")
    golden = recorded(checkpoint, [case], tmp_path / "g.h5", dtype, taps="sublayer", logits="last")
    model = load_outside(checkpoint, getattr(torch, dtype))
    generated = model.generate(torch.tensor(PAIR), max_new_tokens=6, do_sample=False)
    columns = [golden.map(f"{step.path}/token_ids") for step in steps(case)[1:]]
    assert np.hstack(columns).tolist() == generated[:, len(PAIR[0]) :].tolist()
    for step, column in itertools.pairwise(steps(case)):
        logits = golden.map(f"{step.path}/lm_head/output")[:, -1].astype(np.float32)
        assert logits.argmax(-1).tolist() == golden.map(f"{column.path}/token_ids")[:, 0].tolist()
