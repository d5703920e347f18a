"""Every tap of every family against Hugging Face's own model of the same checkpoint.

The whole forward pass is compared, so an error would also grow along the layers. 16-bit
types are equal bit by bit. float32 is as well where it was measured (AVX-512, torch 2.13),
but a BLAS may sum in another order for another alignment, so that a bound is asserted.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from outside import load_outside, outside_truth, without_tables
from torch import Tensor

from goldenctl.families import PRESETS
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.selection import Selection
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config, parse_config
from goldenctl.model.graph import decoder
from goldenctl.model.synth import synth_config
from goldenctl.reference.record import Recording, record

STEP = "cases/outside/steps/00"
# One unit more or less in the cosines grows to 4e-6 in four layers; a wrong epsilon is more.
FLOAT32_RELATIVE_L2 = 4e-6
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": PRESETS["tiny"],
    "qwen2": PRESETS["qwen2-tiny"],
    "llama3-rope": PRESETS["llama-tiny"],
    "llama-bias-linear-rope": PRESETS["llama-bias-tiny"],
    "mistral": PRESETS["mistral-tiny"],
    "mistral-window": PRESETS["mistral-window-tiny"],
    "gemma3": PRESETS["gemma3-tiny"],
    "olmo2": PRESETS["olmo2-tiny"],
    "phi3": PRESETS["phi3-tiny"],
    "glm4": PRESETS["glm4-tiny"],
    "qwen3-moe": PRESETS["qwen3-moe-tiny"],
    "qwen3-moe-plain": PRESETS["qwen3-moe-plain-tiny"],
    "qwen3-bias-tied-yarn": {
        **PRESETS["tiny"],
        "attention_bias": True,
        "tie_word_embeddings": True,
        "rope_scaling": YARN,
    },
}
SHAPES = ((1, 1), (2, 33), (1, 200))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = parse_config(FAMILIES[request.param], where=request.param)
    return synth_config(config, tmp_path_factory.mktemp("truth") / request.param, 1)


def random_case(shape: tuple[int, int]) -> Case:
    ids = np.random.Generator(np.random.PCG64(shape)).integers(0, 512, shape)
    return Case("outside", tuple(tuple(int(i) for i in row) for row in ids))


def recorded(checkpoint: Path, case: Case, dtype: str, path: Path, **changes: Any) -> GoldenFile:
    config = replace(load_config(checkpoint), **changes)
    selection = Selection(logits="all")
    record(Recording(Checkpoint.open(checkpoint), config, [case], dtype, selection=selection), path)
    return open_golden(path)


def actual(golden: GoldenFile, name: str, dtype: torch.dtype) -> Tensor:
    array = np.array(golden.map(name))
    bits = array.view(np.uint16) if dtype == torch.bfloat16 else array
    tensor = torch.from_numpy(bits)
    return tensor.view(dtype)


def relative_l2(actual: Tensor, expected: Tensor) -> float:
    difference = (actual.double() - expected.double()).norm()
    return float(difference / expected.double().norm())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_tap_is_transformers_own(family: Path, dtype: str, tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    model = load_outside(family, kind)
    for shape in SHAPES:
        case = random_case(shape)
        golden = recorded(family, case, dtype, tmp_path / "golden.h5")
        truth = outside_truth(model, case.token_ids)
        assert wrong_tables(golden, truth) == []
        truth = without_tables(truth)
        wrong = [name for name, value in truth.items() if not agrees(golden, name, value)]
        assert wrong == []
        stored = {name for name in (*golden.tensors, *golden.aliases) if name.startswith(STEP)}
        assert stored - {f"{STEP}/{name}" for name in truth} == {
            f"{STEP}/position_ids",
            f"{STEP}/embedding/input",
        }


def wrong_tables(golden: GoldenFile, truth: dict[str, Tensor]) -> list[str]:
    """Return the layers whose tables are not those that the golden has for them."""
    positions = golden.map(f"{STEP}/position_ids").max() + 1
    wrong = []
    for sublayer in decoder(golden.config, positions=int(positions)):
        for op in sublayer.ops:
            for name in op.inputs[2:] if op.kind == "rope" else ():
                expected = truth[f"{sublayer.name.replace('.', '/')}/{name[-3:]}"][0]
                half = expected[:, : expected.shape[-1] // 2]
                if not torch.equal(actual(golden, f"constants/{name}", half.dtype), half):
                    wrong.append(f"{sublayer.name} {name}")
    return wrong


def agrees(golden: GoldenFile, name: str, expected: Tensor) -> bool:
    value = actual(golden, f"{STEP}/{name}", expected.dtype)
    if value.shape != expected.shape:
        return False
    if expected.dtype != torch.float32:
        return torch.equal(value, expected)
    return relative_l2(value, expected) <= FLOAT32_RELATIVE_L2


def test_the_float32_bound_sees_a_wrong_epsilon(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    config = parse_config(FAMILIES["qwen3"], where="qwen3")
    checkpoint = synth_config(config, tmp_path_factory.mktemp("epsilon") / "qwen3", 1)
    case = random_case((1, 7))
    golden = recorded(checkpoint, case, "float32", tmp_path / "g.h5", rms_norm_eps=1e-5)
    truth = outside_truth(load_outside(checkpoint, torch.float32), case.token_ids)
    assert agrees(golden, "embedding/output", truth["embedding/output"])
    for name in ("layers/00/attention/input_layernorm", "final_norm/output", "lm_head/output"):
        assert not agrees(golden, name, truth[name]), name


def test_save_pretrained_writes_the_same_model(family: Path, tmp_path: Path) -> None:
    load_outside(family, torch.bfloat16).save_pretrained(tmp_path)
    theirs, ours = Checkpoint.open(tmp_path), Checkpoint.open(family)
    assert theirs.config == ours.config
    assert theirs.fingerprint() == ours.fingerprint()


def test_float64_is_what_float32_rounds(family: Path, tmp_path: Path) -> None:
    """No op of a float64 recording passes through a narrower type."""
    case = random_case((1, 12))
    wide = recorded(family, case, "float64", tmp_path / "wide.h5")
    model = load_outside(family, torch.float32)
    for name, expected in without_tables(outside_truth(model, case.token_ids)).items():
        value = actual(wide, f"{STEP}/{name}", torch.float64)
        assert value.dtype == torch.float64
        assert relative_l2(value, expected) <= 1e-5, name
    scores = actual(wide, f"{STEP}/layers/00/attention/scores", torch.float64)
    assert not torch.equal(scores, scores.float().double())
