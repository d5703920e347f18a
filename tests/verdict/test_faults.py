"""Tests the catalogue of faults: where each fits, and that it changes what it should."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from goldenctl.cli import run
from goldenctl.families import PRESETS
from goldenctl.model.config import ModelConfig, preset_config
from goldenctl.model.graph import Op, Sublayer, decoder
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, faulty_op
from goldenctl.reference.faulty import EMULATIONS
from tests.verdict.conftest import Bench

FAMILIES = [name for name in PRESETS if name.endswith("tiny")]
QWEN3 = preset_config("tiny")
NORMS = {"input_layernorm", "post_attention_layernorm", "q_norm", "k_norm", "output"}
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "output"}
ROPES = {"q_rope", "k_rope"}
GEMMA_NORMS = NORMS | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
FLOAT = NORMS | LINEAR | ROPES | {"scores", "probs", "context", "swiglu"}

# The taps of a tiny Qwen3 (epsilon 1e-6, theta 1e6, no bias, untied) that each fault fits.
FITS: dict[str, set[str]] = {
    "eps_1e-5": NORMS,
    "eps_1e-6": set(),
    "eps_outside": NORMS,
    "no_norm": NORMS,
    "norm_swapped": {"q_norm", "k_norm"},
    "norm_after_rope": {"q_norm", "k_norm"} | ROPES,
    "norm_weight_plain": set(),
    "norm_weight_plus_1": NORMS,
    "no_rope": ROPES,
    "theta_1e4": ROPES,
    "theta_1e6": set(),
    "rope_interleaved": ROPES,
    "rope_halves": set(),
    "rope_other_tables": set(),
    "rope_position_plus_1": ROPES,
    "rope_position_minus_1": ROPES,
    "rope_half": ROPES,
    "rope_float64": ROPES,
    "rope_angles_float64": ROPES,
    "rope_restarts": ROPES,
    "no_scale": {"scores"},
    "scale_twice": {"scores"},
    "scale_by_head": set(),
    "scale_by_hidden": {"scores"},
    "mask_plus_1": {"probs"},
    "mask_minus_1": {"probs"},
    "no_mask": {"probs"},
    "mask_without_past": {"probs"},
    "no_padding_mask": {"probs"},
    "no_window": set(),
    "window_plus_1": set(),
    "window_minus_1": set(),
    "kv_modulo": {"scores", "context"},
    "kv_wrong_head": {"scores", "context"},
    "key_value_swapped": {"scores", "context"},
    "keys_before_rope": {"scores"},
    "cache_lost": {"scores", "context"},
    "cache_not_written": {"scores", "context"},
    "cache_one_early": {"scores", "context"},
    "stale_last_token": FLOAT,
    "zero_row": FLOAT,
    "duplicate_row": FLOAT,
    "gate_up_swapped": {"swiglu"},
    "gelu": {"swiglu"},
    "gelu_erf": set(),
    "silu": set(),
    "quick_gelu": {"swiglu"},
    "no_activation": {"swiglu"},
    "no_norm_behind": set(),
    "no_residual": {"output"},
    "residual_doubled": {"output"},
    "softmax_after_topk": set(),
    "routing_not_renormalised": set(),
    "one_expert_fewer": set(),
    "wrong_expert": set(),
    "one_expert_for_all": set(),
    "gate_up_swapped_in_one": set(),
    "experts_not_weighted": set(),
    "no_bias": set(),
    "weight_transposed": {"k_proj", "v_proj"},
    "k_tail_16": LINEAR | {"scores"},
    "k_tail_32": LINEAR,
    "k_tail_64": {"o_proj", "down_proj"},
    "down_proj_before": {"down_proj"},
    "embedding_shifted": {"output"},
    "no_embedding_scale": set(),
    "embedding_scale_exact": set(),
    "untied_head": set(),
    "scale_1.02": FLOAT,
    "scale_2": FLOAT,
    "truncated": FLOAT,
    "biased_2_units": FLOAT,
    "w_int8_channel": LINEAR,
    "w_int8_zero_point": LINEAR,
    "w_int8_tensor": LINEAR,
    "w_fp8_channel": LINEAR,
    "w_fp8_tensor": LINEAR,
    "w_int4_group_32": LINEAR,
    "w_int4_group_128": {"o_proj"},
    "a_int8": LINEAR,
    "a_fp8": LINEAR,
    "w_a_int8": LINEAR,
    "w_zero_point_a_int8": LINEAR,
    "w_a_fp8": LINEAR,
    "bf16_accumulation": LINEAR | {"scores", "context"},
    "fp16_overflow": FLOAT,
    "one_nan": FLOAT,
    "one_inf": FLOAT,
    "nan_row": FLOAT,
}


def _fitting(fault: str, config: ModelConfig) -> list[tuple[Sublayer, Op]]:
    return [
        (sublayer, op)
        for sublayer in decoder(config, past=True, masked=True)
        for op in sublayer.ops
        if faulty_op(FAULTS[fault], op, Context(config, sublayer))
    ]


def test_table_has_every_fault() -> None:
    assert list(FITS) == list(FAULTS)


@pytest.mark.parametrize("fault", FITS)
def test_taps_that_a_fault_fits(fault: str) -> None:
    assert {op.output for _, op in _fitting(fault, QWEN3)} == FITS[fault]


@pytest.mark.parametrize("fault", FITS)
def test_a_fault_fits_some_family(fault: str) -> None:
    models = (*FAMILIES, "qwen3-0.6b")  # groups of 128 weights need wider sums
    assert any(_fitting(fault, preset_config(model)) for model in models)


@pytest.mark.parametrize(
    ("fault", "family", "taps"),
    [
        ("no_bias", "qwen2-tiny", {"q_proj", "k_proj", "v_proj"}),
        ("untied_head", "qwen2-tiny", {"output"}),
        ("eps_1e-6", "llama-tiny", {"input_layernorm", "post_attention_layernorm", "output"}),
        ("eps_1e-5", "llama-tiny", set()),
        ("theta_1e6", "llama-tiny", ROPES),
        ("norm_weight_plain", "gemma3-tiny", GEMMA_NORMS),
        ("rope_other_tables", "gemma3-tiny", ROPES),
        ("scale_by_head", "gemma3-tiny", {"scores"}),
        ("no_window", "mistral-window-tiny", {"probs"}),
        ("window_plus_1", "gemma3-tiny", {"probs"}),
        ("no_norm_behind", "olmo2-tiny", {"output"}),
        ("no_embedding_scale", "gemma3-tiny", {"output"}),
        ("rope_halves", "glm4-tiny", ROPES),
        ("softmax_after_topk", "qwen3-moe-plain-tiny", {"routing"}),
        ("routing_not_renormalised", "qwen3-moe-tiny", {"routing"}),
        ("wrong_expert", "qwen3-moe-tiny", {"expert_gate", "expert_up", "expert_down"}),
        ("gate_up_swapped_in_one", "qwen3-moe-tiny", {"expert_gate", "expert_up"}),
        ("norm_swapped", "llama-tiny", set()),
        ("norm_after_rope", "llama-tiny", set()),
    ],
)
def test_families_differ(fault: str, family: str, taps: set[str]) -> None:
    assert {op.output for _, op in _fitting(fault, preset_config(family))} == taps


def test_emulations_are_those_that_the_catalogue_uses() -> None:
    used = set()
    for fault in FAULTS:
        for family in FAMILIES:
            config = preset_config(family)
            for sublayer, op in _fitting(fault, config):
                changed = faulty_op(FAULTS[fault], op, Context(config, sublayer))
                assert changed is not None
                assert changed.output == op.output
                used.add(changed.attrs.get("fault"))
    assert used - {None} == set(EMULATIONS)


# Recorded for the last token only, the logits have no row but one to take another from.
BLIND = {("duplicate_row", "lm_head")}
# Rounding toward zero is tested below; padding in tests/replay/test_replay_padding.py; what only
# a later step can have in test_cache_faults.py.
OVER_PAST = {"rope_restarts", "mask_without_past", "cache_lost", "cache_not_written"}
OVER_PAST |= {"cache_one_early"}
UNSEEN_HERE = {"truncated", "no_padding_mask"} | OVER_PAST


@pytest.mark.parametrize("fault", [name for name, taps in FITS.items() if taps])
def test_a_fault_changes_the_exact_result(fault: str, bench_of: Callable[[str], Bench]) -> None:
    """In float64 even truncation and a small epsilon are seen."""
    bench = bench_of("float32")
    tried = 0
    for path, sublayer in bench.graph.items():
        if "/layers/" in path and "/layers/01/" not in path:
            continue
        for op in sublayer.ops:
            changed = faulty_op(FAULTS[fault], op, Context(bench.config, sublayer))
            if changed is None or fault == "truncated" or (fault, sublayer.name) in BLIND:
                continue
            right = bench.wide.output(path, sublayer, op)
            wrong = bench.wide.output(path, sublayer, changed)
            assert wrong.shape == right.shape
            assert wrong.dtype == right.dtype
            assert not np.array_equal(wrong, right), f"{fault} at {path}/{op.output}"
            tried += 1
    assert tried or fault in UNSEEN_HERE


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_truncated_points_to_zero(bench_of: Callable[[str], Bench], dtype: str) -> None:
    bench = bench_of(dtype)
    name = "layers.01.mlp.gate_proj"
    path, sublayer, op = bench.place(name)
    exact = bench.wide.output(path, sublayer, op).astype(np.float64).reshape(-1)
    cut = bench.faulty(name, "truncated").astype(np.float64).reshape(-1)
    spacing = (
        np.finfo(np.float32).eps if dtype == "float32" else {"b": 2**-7, "f": 2**-10}[dtype[0]]
    )
    assert np.all(np.abs(cut) <= np.abs(exact) * (1 + 1e-6))
    assert np.all(np.abs(cut - exact) <= np.abs(exact) * spacing * 1.01 + 1e-7)
    assert np.mean(np.abs(cut) < np.abs(exact)) > 0.9


def test_row_faults_touch_one_token(bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of("float32")
    name = "layers.01.attention.scores"  # [B, H, S, T]
    right = bench.faulty(name)
    middle = right.shape[2] // 2
    zero, twice = bench.faulty(name, "zero_row"), bench.faulty(name, "duplicate_row")
    stale, nan = bench.faulty(name, "stale_last_token"), bench.faulty(name, "nan_row")
    others = [i for i in range(right.shape[2]) if i != middle]
    assert not zero[:, :, middle].any()
    np.testing.assert_array_equal(zero[:, :, others], right[:, :, others])
    np.testing.assert_array_equal(twice[:, :, middle], right[:, :, middle - 1])
    np.testing.assert_array_equal(stale[:, :, -1], right[:, :, -2])
    assert np.isnan(nan[:, :, middle]).all()
    assert np.isfinite(nan[:, :, others]).all()


def test_single_elements(bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of("bfloat16")
    name = "layers.01.mlp.swiglu"
    nan = bench.faulty(name, "one_nan").astype(np.float64)
    inf = bench.faulty(name, "one_inf").astype(np.float64)
    high = bench.faulty(name, "fp16_overflow").astype(np.float64)
    assert np.isnan(nan).sum() == 1
    assert np.isposinf(inf).sum() == 1
    assert 0 < np.isinf(high).sum() < high.size // 2


def test_masks(bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of("float32")
    name = "layers.01.attention.probs"
    count = bench.expected(name).shape[-1]
    for fault, diagonal in (("mask_plus_1", 1), ("mask_minus_1", -1), ("no_mask", count)):
        seen = bench.faulty(name, fault) > 0
        visible = np.tril(np.ones((count, count), bool), diagonal)
        visible[:, 0] = True
        assert not seen[..., ~visible].any()
        assert seen[..., visible].mean() > 0.9
        np.testing.assert_allclose(bench.faulty(name, fault).sum(-1), 1.0, rtol=1e-5)


def test_kv_heads(bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of("float32")
    path, _, _ = bench.place("layers.01.attention.scores")
    q = bench.golden.map(f"{path}/q_rope").astype(np.float64)
    k = bench.golden.map(f"{path}/k_rope").astype(np.float64)
    for fault, heads in (("kv_modulo", [0, 1, 0, 1]), ("kv_wrong_head", [0, 0, 1, 0])):
        expected = np.einsum("bshd,bthd->bhst", q, k[:, :, heads]) / np.sqrt(q.shape[-1])
        got = bench.faulty("layers.01.attention.scores", fault)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_the_command_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["faults"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[1:] if line[:1].strip()]
    assert names == list(FAULTS)
