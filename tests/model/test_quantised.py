"""Quantised checkpoints: their weights as float32, held to transformers, gguf, and each format's
own description."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from goldenctl.cli import run
from goldenctl.errors import DamagedError, GoldenctlError, UsageError
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.dequantise import Parts, scheme_of
from goldenctl.model.quantised import scheme_in
from goldenctl.model.source import checkpoint_folder

Array = NDArray[Any]
RNG = np.random.default_rng(7)


def quantised(
    tiny: Path, out: Path, config: dict[str, Any], pack: Callable[[Array], dict[str, Array]]
) -> dict[str, Array]:
    """Write tiny's model with its linear layers packed; return every tensor of the file."""
    shutil.copytree(tiny, out)
    tensors: dict[str, Array] = {}
    for name, value in load_file(out / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            stem = name.removesuffix(".weight")
            packed = pack(value.astype(np.float32))
            tensors |= {f"{stem}.{end}": array for end, array in packed.items()}
        else:
            tensors[name] = value.astype(np.float32)
    save_as(out / "model.safetensors", tensors)
    said = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**said, "quantization_config": config}))
    return tensors


def save_as(path: Path, tensors: dict[str, Array]) -> None:
    """Write safetensors, also of 8-bit floats."""
    import torch
    from safetensors.torch import save_file as save_torch

    fp8 = np.dtype(ml_dtypes.float8_e4m3fn)
    save_torch(
        {
            name: torch.from_numpy(a.view(np.uint8)).view(torch.float8_e4m3fn)
            if a.dtype == fp8
            else torch.from_numpy(np.ascontiguousarray(a))
            for name, a in tensors.items()
        },
        path,
    )


def words(numbers: Array, bits: int, axis: int) -> Array:
    """Pack unsigned numbers into 32-bit words along an axis, the first one lowest."""
    moved = np.moveaxis(numbers, axis, -1).astype(np.uint64)
    count = 32 // bits
    split = moved.reshape(*moved.shape[:-1], -1, count)
    packed = (split << (np.arange(count, dtype=np.uint64) * np.uint64(bits))).sum(-1)
    return np.moveaxis(packed.astype(np.uint32).view(np.int32), -1, axis)


# --- against transformers ---


def test_blocks_of_8_bit_floats_are_what_transformers_makes_of_them(
    tiny: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    def pack(weight: Array) -> dict[str, Array]:
        grid = [-(-size // 32) for size in weight.shape]
        scales = RNG.uniform(0.01, 0.1, grid).astype(np.float32)
        return {"weight": (weight * 8).astype(ml_dtypes.float8_e4m3fn), "weight_scale_inv": scales}

    config = {
        "quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic",
        "modules_to_not_convert": ["lm_head"],
    }  # fmt: skip
    quantised(tiny, tmp_path / "fp8", config, pack)
    folder = checkpoint_folder(tmp_path / "fp8")
    assert scheme_in(folder) == "fp8, a scale per block of 32 x 32"
    ours = Checkpoint.open(folder)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "fp8", dtype=torch.float32)
    for name, value in theirs.state_dict().items():
        if name in ours:
            assert np.array_equal(ours.map(name), value.numpy()), name
    assert sum(name.endswith("_proj.weight") for name in ours.names()) == 7 * 4


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_gguf_file_is_read_as_its_library_and_its_names_say(
    tmp_path: Path, architecture: str
) -> None:
    path, expected = gguf_model(tmp_path, architecture)
    folder = checkpoint_folder(path)
    assert scheme_in(folder) == "gguf F32, Q4_0, Q8_0"
    ours = Checkpoint.open(folder)
    assert {name: ours.map(name).shape for name in ours.names()} == {
        name: value.shape for name, value in expected.items()
    }
    for name, value in expected.items():
        assert np.array_equal(ours.map(name), value), name
    assert (ours.config.head_dim, ours.config.rms_norm_eps, ours.config.rope.rope_theta) == (
        32, 1e-5, 5e5,
    )  # fmt: skip
    assert not ours.check_against(ours.config)


def gguf_model(folder: Path, architecture: str) -> tuple[Path, dict[str, Array]]:
    """Write a random model of one layer as GGUF; return it, and its weights by canonical name."""
    path = folder / f"{architecture}.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    for add, value in (
        (writer.add_embedding_length, 64), (writer.add_feed_forward_length, 96),
        (writer.add_block_count, 1), (writer.add_head_count, 4), (writer.add_head_count_kv, 2),
        (writer.add_context_length, 128), (writer.add_key_length, 32),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_freq_base, 5e5),
    ):  # fmt: skip
        add(value)
    wanted = {
        "token_embd": ("model.embed_tokens", (40, 64)), "output_norm": ("model.norm", (64,)),
        "blk.0.attn_norm": ("input_layernorm", (64,)),
        "blk.0.ffn_norm": ("post_attention_layernorm", (64,)),
        "blk.0.attn_q": ("self_attn.q_proj", (128, 64)),
        "blk.0.attn_k": ("self_attn.k_proj", (64, 64)),
        "blk.0.attn_v": ("self_attn.v_proj", (64, 64)),
        "blk.0.attn_output": ("self_attn.o_proj", (64, 128)),
        "blk.0.ffn_gate": ("mlp.gate_proj", (96, 64)), "blk.0.ffn_up": ("mlp.up_proj", (96, 64)),
        "blk.0.ffn_down": ("mlp.down_proj", (64, 96)),
    }  # fmt: skip
    if architecture == "qwen3":
        wanted |= {f"blk.0.attn_{x}_norm": (f"self_attn.{x}_norm", (32,)) for x in "qk"}
    expected = {}
    for stored, (name, shape) in wanted.items():
        kind = gguf.GGMLQuantizationType.F32
        if len(shape) == 2:
            kind = gguf.GGMLQuantizationType.Q4_0 if "ffn" in stored else kind.Q8_0
        raw = gguf.quantize(RNG.standard_normal(shape).astype(np.float32), kind)
        writer.add_tensor(f"{stored}.weight", raw, raw_dtype=kind)
        value = gguf.dequantize(raw, kind)
        if architecture == "llama" and stored.endswith(("attn_q", "attn_k")):
            halves = value.reshape(-1, 16, 2, 64)  # head, pair, its two rows
            value = np.concatenate([halves[:, :, 0], halves[:, :, 1]], axis=1).reshape(shape)
        prefix = "model.layers.0." if stored.startswith("blk") else ""
        expected[f"{prefix}{name}.weight"] = value
    if architecture == "qwen2":
        for x, width in (("q", 128), ("k", 64), ("v", 64)):
            bias = RNG.standard_normal(width).astype(np.float32)
            writer.add_tensor(f"blk.0.attn_{x}.bias", bias)
            expected[f"model.layers.0.self_attn.{x}_proj.bias"] = bias
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, expected


# --- against the formats' descriptions ---

GROUP = 8


@given(
    st.integers(1, 3), st.integers(1, 3), st.sampled_from([2, 4, 8]), st.booleans(), st.integers()
)
def test_gptq(words_in: int, words_out: int, bits: int, first: bool, seed: int) -> None:
    rng = np.random.default_rng(abs(seed))
    into, out = words_in * 32 // bits, words_out * 32 // bits
    groups = -(-into // GROUP)
    q = rng.integers(0, 1 << bits, (into, out))
    # As v1 keeps it, a zero of 0 has no z - 1 of its own: the library writes none below 1.
    zeros = rng.integers(1 if first else 0, 1 << bits, (groups, out))
    scales = rng.uniform(0.01, 1, (groups, out)).astype(np.float16)
    order = rng.permutation(np.arange(into) // GROUP).astype(np.int32)
    config = {
        "quant_method": "gptq", "bits": bits, "group_size": GROUP,
        "checkpoint_format": "gptq" if first else "gptq_v2",
    }  # fmt: skip
    parts = {
        "qweight": words(q, bits, 0), "qzeros": words(zeros - first, bits, 1),
        "scales": scales, "g_idx": order,
    }  # fmt: skip
    scheme = scheme_of(config, "c")
    wanted = (scales[order].astype(np.float32) * (q - zeros[order])).T
    assert np.array_equal(scheme.values(Parts("x", parts)), wanted)
    assert scheme.shape(Parts("x", parts)) == (out, into)


def test_a_zero_point_of_gptq_may_reach_the_next_number_of_its_word() -> None:
    parts = {
        "qweight": np.zeros((1, 8), np.int32), "scales": np.ones((1, 8), np.float16),
        "qzeros": np.array([[0x0000000F]], np.uint32).view(np.int32),
    }  # fmt: skip
    scheme = scheme_of({"quant_method": "gptq", "bits": 4, "group_size": -1}, "c")
    zeros = -scheme.values(Parts("x", parts))[:, 0]
    assert zeros.tolist() == [0, 2, 1, 1, 1, 1, 1, 1]  # 0xF + 1 is 0 and carries


@given(st.integers(1, 4), st.integers(1, 3), st.integers())
def test_awq(groups: int, words_out: int, seed: int) -> None:
    rng = np.random.default_rng(abs(seed))
    into, out = groups * GROUP, words_out * 8
    q, zeros = rng.integers(0, 16, (into, out)), rng.integers(0, 16, (groups, out))
    scales = rng.uniform(0.01, 1, (groups, out)).astype(np.float16)

    def mixed(numbers: Array) -> Array:
        columns = numbers.reshape(len(numbers), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
        return words(columns.reshape(numbers.shape), 4, 1)

    parts = {"qweight": mixed(q), "qzeros": mixed(zeros), "scales": scales}
    scheme = scheme_of({"quant_method": "awq", "bits": 4, "group_size": GROUP}, "c")
    wanted = ((q - zeros.repeat(GROUP, 0)) * scales.repeat(GROUP, 0).astype(np.float32)).T
    assert np.array_equal(scheme.values(Parts("x", parts)), wanted)


@given(st.integers(1, 20), st.integers(1, 40), st.booleans(), st.integers())
def test_compressed_tensors_packed(out: int, into: int, asymmetric: bool, seed: int) -> None:
    rng = np.random.default_rng(abs(seed))
    groups = -(-into // GROUP)
    q, zeros = rng.integers(-8, 8, (out, into)), rng.integers(-8, 8, (out, groups))
    scales = rng.uniform(0.01, 1, (out, groups)).astype(np.float32)

    def packed(numbers: Array, axis: int) -> Array:
        pad = [(0, -size % 8 if at == axis else 0) for at, size in enumerate(numbers.shape)]
        return words(np.pad(numbers + 8, pad), 4, axis)

    parts = {
        "weight_packed": packed(q, 1), "weight_scale": scales,
        "weight_shape": np.array([out, into]),
        **({"weight_zero_point": packed(zeros, 0)} if asymmetric else {}),
    }  # fmt: skip
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP}
    config = {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": weights}},
    }  # fmt: skip
    of_column = np.arange(into) // GROUP
    left = q - zeros[:, of_column] if asymmetric else q
    wanted = left * scales[:, of_column]
    values = scheme_of(config, "c").values(Parts("x", parts))
    assert np.array_equal(values, wanted.astype(np.float32))


# --- as a user meets it ---


def gptq_pack(weight: Array) -> dict[str, Array]:
    out, into = weight.shape
    return {
        "qweight": words(RNG.integers(0, 16, (into, out)), 4, 0),
        "qzeros": words(RNG.integers(1, 16, (1, out)) - 1, 4, 1),
        "scales": RNG.uniform(0.001, 0.01, (1, out)).astype(np.float16),
    }


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": -1}


def test_a_quantised_folder_is_dequantised_once(tiny: Path, tmp_path: Path) -> None:
    stored = quantised(tiny, tmp_path / "q", GPTQ, gptq_pack)
    told: list[str] = []
    folder = checkpoint_folder(tmp_path / "q", notify=told.append)
    assert checkpoint_folder(tmp_path / "q", notify=told.append) == folder
    assert told == [
        f"dequantising {tmp_path / 'q'} (gptq, 4 bits, a scale per column) into {folder}"
    ]
    ours = Checkpoint.open(folder)
    kept = {name for name in stored if not name.rpartition(".")[2].startswith(("q", "s"))}
    assert set(ours.names()) == kept | {
        f"{name.removesuffix('.qweight')}.weight" for name in stored if name.endswith(".qweight")
    }
    assert all(np.array_equal(ours.map(name), stored[name]) for name in kept)
    assert (folder / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quant_method": "bitsandbytes"}, 'quant_method "bitsandbytes" is not supported'),
        ({**GPTQ, "bits": 3}, "bits 3 is not supported"),
        ({**GPTQ, "checkpoint_format": "marlin"}, 'checkpoint_format "marlin" is not supported'),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, 'version "gemv" is not supported'),
        ({"quant_method": "fp8", "weight_block_size": 128}, "weight_block_size 128 is not"),
        ({**GPTQ, "group_size": 0}, "group_size 0 is not supported"),
        ({"quant_method": "awq", "bits": 4}, "quantization_config has no group_size; add it"),
        ("fp8", 'quantization_config "fp8" is not an object'),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    tiny: Path, tmp_path: Path, config: Any, said: str
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "q")
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "quantization_config": config}))
    with pytest.raises(GoldenctlError, match=said) as raised:
        checkpoint_folder(folder)
    assert isinstance(raised.value, UsageError if isinstance(config, dict) else DamagedError)


@pytest.mark.parametrize("end", ["scales", "qzeros"])
@pytest.mark.parametrize("how", ["missing", "misshapen"])
def test_a_part_that_does_not_fit_is_named(tiny: Path, tmp_path: Path, end: str, how: str) -> None:
    tensors = quantised(tiny, tmp_path / "q", GPTQ, gptq_pack)
    name = f"model.layers.1.self_attn.q_proj.{end}"
    if how == "missing":
        del tensors[name]
    else:
        tensors[name] = tensors[name][:, :3].copy()
    save_file(tensors, tmp_path / "q" / "model.safetensors")
    with pytest.raises(DamagedError, match=f"q_proj.{end}|has no {name}"):
        checkpoint_folder(tmp_path / "q")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_file_that_is_no_gguf_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(DamagedError, match="not a GGUF file that can be read"):
        checkpoint_folder(path)


def test_a_recording_of_a_gguf_file_keeps_its_scheme_and_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = gguf_model(tmp_path, "qwen3")
    golden, run_file = tmp_path / "g.h5", tmp_path / "r.h5"
    assert run(["record", str(path), str(golden), "--token-ids", "1,2,3"]) == 0
    assert run(["inspect", str(golden)]) == 0
    shown = capsys.readouterr().out
    assert f"qwen3 from {path}" in shown
    assert "gguf F32, Q4_0, Q8_0" in shown
    assert run(["replay", str(golden), str(run_file), "--backend", "torch"]) == 0
    assert run(["diff", str(golden), str(run_file)]) == 0
