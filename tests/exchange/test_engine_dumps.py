"""Dumps as real engines write them: the suggested map reads each of them, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine import first_case, flat, vllm_like
from numpy.typing import NDArray

from goldenctl.exchange.assign import assign
from goldenctl.exchange.bring import import_run
from goldenctl.exchange.dump import read_dump
from goldenctl.exchange.namemap import Entry, encode, load_map
from goldenctl.exchange.suggest import suggest
from goldenctl.exchange.templates import templates_of
from goldenctl.golden.file import GoldenFile, open_golden

Goldens = Callable[[str], GoldenFile]
Array = NDArray[Any]
LAYERS = 4
OF_LAYERS = {
    "input_layernorm": "attention/input_layernorm",
    "self_attn.q_proj": "attention/q_proj",
    "self_attn.k_proj": "attention/k_proj",
    "self_attn.o_proj": "attention/o_proj",
    "mlp.gate_proj": "mlp/gate_proj",
    "mlp.up_proj": "mlp/up_proj",
    "mlp.down_proj": "mlp/down_proj",
    "": "mlp/output",
}


def values(golden: GoldenFile, name: str) -> Array:
    """A tensor of the first case's prompt, in the golden's own shape."""
    return np.array(golden.map(f"cases/{first_case(golden)}/steps/00/{name}"))


def modules(golden: GoldenFile) -> dict[str, Array]:
    """What forward hooks on Hugging Face modules give, in the golden's shapes."""
    dump = {
        "model.embed_tokens": values(golden, "embedding/output"),
        "model.norm": values(golden, "final_norm/output"),
        "lm_head": values(golden, "lm_head/output"),
    }
    for layer in range(LAYERS):
        for name, place in OF_LAYERS.items():
            full = f"model.layers.{layer}.{name}".rstrip(".")
            dump[full] = values(golden, f"layers/{layer:02}/{place}")
    return dump


def of_layer(golden: GoldenFile, layer: int) -> dict[str, Array]:
    names = {name.rpartition(".")[2] or "output": place for name, place in OF_LAYERS.items()}
    return {name: flat(golden, f"layers/{layer:02}/{place}") for name, place in names.items()}


def saved(tensor: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, tensor)
    else:
        torch.save(tensor, path)


def tensors(dump: dict[str, Array]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in dump.items()}


def torch_file_of_each_layer(golden: GoldenFile, folder: Path) -> None:
    """torch.save of a dict for each layer: the same names in every file."""
    for layer in range(LAYERS):
        saved(tensors(of_layer(golden, layer)), folder / f"layer_{layer}.pt")


def one_nested_torch_file(golden: GoldenFile, folder: Path) -> None:
    layers = [tensors(of_layer(golden, layer)) for layer in range(LAYERS)]
    rest = {"embedding": torch.from_numpy(values(golden, "embedding/output")), "step": 3}
    saved({"layers": layers, **rest, "note": "a text"}, folder / "all.pth")


def legacy_torch_file(golden: GoldenFile, folder: Path) -> None:
    torch.save(tensors(modules(golden)), folder / "dump.bin", _use_new_zipfile_serialization=False)


def msprobe(golden: GoldenFile, folder: Path) -> None:
    """Folders of steps and ranks, module names with their class and direction, JSON beside."""
    inside = folder / "step0" / "rank0" / "dump_tensor_data"
    for name, array in modules(golden).items():
        if name.startswith("model.layers."):
            saved(array, inside / f"Module.{name}.Linear.forward.0.output.0.npy")
    (folder / "step0" / "rank0" / "dump.json").write_text("{}")
    (folder / "step0" / "rank0" / "stack.json").write_text("{}")


def sglang_dumper(golden: GoldenFile, folder: Path) -> None:
    """One file for each tensor, whose name has a running number."""
    for index, (name, array) in enumerate(modules(golden).items()):
        stem = f"forward_pass_id=1___rank=0___name={name}___dump_index={index}"
        saved(torch.from_numpy(array), folder / f"{stem}.pt")


def sglang_passes(golden: GoldenFile, folder: Path) -> None:
    """One file for each pass and rank: tokens without a batch, fused projections."""
    saved(tensors(vllm_like(golden)), folder / "TP0_PP0_Rank0_pid7" / "Pass00000.pt")


def tensorrt_llm(golden: GoldenFile, folder: Path) -> None:
    inside = folder / "PP_1" / "TP_1" / "iteration_0"
    for layer in range(LAYERS):
        for name, array in of_layer(golden, layer).items():
            saved(array, inside / f"transformer.layers.{layer}.{name}.npy")


def layers_from_one(golden: GoldenFile, folder: Path) -> None:
    """A small C++ engine's: flat names, layers counted from one, two digits."""
    for layer in range(LAYERS):
        for name, array in of_layer(golden, layer).items():
            saved(array, folder / f"layer_{layer + 1:02}_{name}.npy")


def hidden_states(golden: GoldenFile, folder: Path) -> None:
    """transformers' output_hidden_states: the embedding, all layers but the last, the norm."""
    last = values(golden, "final_norm/output")
    inner = [values(golden, f"layers/{layer:02}/mlp/output") for layer in range(LAYERS - 1)]
    states = [values(golden, "embedding/output"), *inner, last]
    saved({"hidden_states": tuple(map(torch.from_numpy, states))}, folder / "out.pt")


def flattened_npz(golden: GoldenFile, folder: Path) -> None:
    """numpy.savez of [tokens, features]."""
    found = {n: a.reshape(a.shape[0] * a.shape[1], -1) for n, a in modules(golden).items()}
    np.savez(folder / "dump.npz", **found)


def tensor_parallel(golden: GoldenFile, folder: Path) -> None:
    """Two ranks: halves of what is split by columns, everything else in both."""
    for name, array in vllm_like(golden).items():
        for rank in range(2):
            path = folder / f"rank{rank}" / f"{name}.npy"
            saved(half(name, array, golden, rank), path)


def half(name: str, array: Array, golden: GoldenFile, rank: int) -> Array:
    """What one of two ranks holds of a tensor [token, features]."""
    config = golden.recipe["model"]["config"]
    q, kv = (config[n] * config["head_dim"] for n in ("num_attention_heads", "num_key_value_heads"))
    fused = {"qkv_proj": [q, kv, kv], "gate_up_proj": [config["intermediate_size"]] * 2}
    leaf = name.rpartition(".")[2]
    split = "act_fn" in name or "rotary" in name or leaf in ("q_norm", "k_norm", "attn")
    if leaf in fused:
        parts = np.split(array, np.cumsum(fused[leaf])[:-1], axis=1)
        return np.concatenate([np.split(part, 2, axis=1)[rank] for part in parts], axis=1)
    return np.split(array, 2, axis=1)[rank] if split else array


def partial_sums(golden: GoldenFile, folder: Path) -> None:
    """Two ranks before their all-reduce: each has a part of the sum."""
    for layer in range(LAYERS):
        array = flat(golden, f"layers/{layer:02}/attention/o_proj")
        for rank in range(2):
            saved(array * np.float32(0.5), folder / f"layers.{layer}.o_proj.rank{rank}.npy")


def interleaved_by_kv_head(golden: GoldenFile, folder: Path) -> None:
    """Megatron's and InternLM's fused q, k, v: for every key/value head its queries, k, v."""
    kv = golden.recipe["model"]["config"]["num_key_value_heads"]
    for layer in range(LAYERS):
        parts = [
            flat(golden, f"layers/{layer:02}/attention/{x}_proj").reshape(5, kv, -1) for x in "qkv"
        ]
        fused = np.concatenate(parts, axis=2).reshape(5, -1)
        saved(fused, folder / f"model.layers.{layer}.attention.wqkv.npy")
        pair = [flat(golden, f"layers/{layer:02}/mlp/{x}_proj") for x in ("gate", "up")]
        mixed = np.stack(pair, axis=-1).reshape(5, -1)
        saved(mixed, folder / f"model.layers.{layer}.mlp.gate_up_proj.npy")


def llama_cpp(golden: GoldenFile, folder: Path) -> None:
    """Names of its graph; q and k of its permuted weights, pairs beside each other."""
    found = {}
    for layer in range(LAYERS):
        for name, place in (("Qcur", "q_proj"), ("Kcur", "k_proj"), ("Qcur_rope", "q_rope")):
            array = values(golden, f"layers/{layer:02}/attention/{place}")
            array = array.reshape(*array.shape[:2], -1, 2, 16).swapaxes(-1, -2)
            found[f"{name}-{layer}"] = array.reshape(5, -1, 32)
        found[f"l_out-{layer}"] = flat(golden, f"layers/{layer:02}/mlp/output")
        found[f"kqv_out-{layer}"] = flat(golden, f"layers/{layer:02}/attention/context")
    np.savez(folder / "graph.npz", **found)


def heads_first(golden: GoldenFile, folder: Path) -> None:
    """[batch, head, token, head_dim], as SDPA takes it."""
    for layer in range(LAYERS):
        for name, place in (("q_rope", "q_rope"), ("k_rope", "k_rope"), ("v_proj", "v_proj")):
            array = values(golden, f"layers/{layer:02}/attention/{place}")
            saved(array.swapaxes(1, 2), folder / f"layers.{layer}.{name}.npy")


def padded_vocabulary(golden: GoldenFile, folder: Path) -> None:
    logits = values(golden, "lm_head/output")
    padding = np.full((*logits.shape[:-1], 128), -np.inf, np.float32)
    saved(np.concatenate([logits, padding], -1)[0], folder / "logits.npy")


PROJECTIONS = {f"layers.{{layer}}.attention.{name}" for name in ("q_proj", "k_proj", "o_proj")}
MLP = {f"layers.{{layer}}.mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj", "output")}
ENDS = {"embedding.output", "final_norm.output", "lm_head.output"}
QKV = {f"layers.{{layer}}.attention.{name}_proj" for name in "qkv"}
GATE_UP = {"layers.{layer}.mlp.gate_proj", "layers.{layer}.mlp.up_proj"}


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (torch_file_of_each_layer, PROJECTIONS | MLP),
        (one_nested_torch_file, PROJECTIONS | MLP | {"embedding.output"}),
        (legacy_torch_file, PROJECTIONS | MLP | ENDS),
        (msprobe, PROJECTIONS | MLP),
        (sglang_dumper, PROJECTIONS | MLP | ENDS),
        (sglang_passes, QKV | MLP | ENDS),
        (tensorrt_llm, PROJECTIONS | MLP),
        (layers_from_one, PROJECTIONS | MLP),
        (
            hidden_states,
            {"embedding.output", "layers.{layer}.mlp.output", "final_norm.output"},
        ),
        (flattened_npz, PROJECTIONS | MLP | ENDS),
        (tensor_parallel, QKV | MLP | ENDS | {"layers.{layer}.mlp.swiglu"}),
        (partial_sums, {"layers.{layer}.attention.o_proj"}),
        (interleaved_by_kv_head, QKV | GATE_UP),
        (
            llama_cpp,
            {
                "layers.{layer}.attention.q_proj",
                "layers.{layer}.attention.k_proj",
                "layers.{layer}.attention.q_rope",
                "layers.{layer}.attention.context",
                "layers.{layer}.mlp.output",
            },
        ),
        (heads_first, {f"layers.{{layer}}.attention.{n}" for n in ("q_rope", "k_rope", "v_proj")}),
        (padded_vocabulary, {"lm_head.output"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_suggested_map_reads_it(
    golden_in: Goldens,
    tmp_path: Path,
    write: Callable[[GoldenFile, Path], None],
    found: set[str],
) -> None:
    golden = golden_in("float32")
    dump = tmp_path / "dump"
    dump.mkdir()
    write(golden, dump)
    read = read_dump(dump)
    mapping = suggest(read, golden)
    assert found <= {entry.golden for entry in mapping.tensor}
    (tmp_path / "map.toml").write_text(encode(mapping))
    assert load_map(tmp_path / "map.toml") == mapping
    assignment = assign(golden, read, mapping, cases=[first_case(golden)])
    import_run(tmp_path / "run.h5", golden, mapping, assignment, dump=dump)
    run = open_golden(tmp_path / "run.h5", kind="run")
    assert run.tensors
    for name in run.tensors:
        np.testing.assert_array_equal(run.map(name), golden.map(name), err_msg=name)


def test_what_is_chosen_by_values_is_said(golden_in: Goldens, tmp_path: Path) -> None:
    from goldenctl.exchange.suggest import listing

    golden = golden_in("float32")
    for write, tap, key in (
        (interleaved_by_kv_head, "k_proj", 'per = "kv_head"'),
        (llama_cpp, "q_rope", 'head_dim = "interleaved"'),
    ):
        dump = tmp_path / tap
        dump.mkdir()
        write(golden, dump)
        said = list(listing(read_dump(dump), golden))
        assert f"# layers.{{layer}}.attention.{tap}: its values chose {key}." in said


def test_steps_in_folders_are_steps() -> None:
    """Counted from one where they are; a single one is a part of the name."""
    names = [f"iteration_{n}/rank0/model.layers.{k}" for n in (1, 2) for k in range(2)]
    assert [t.pattern for t in templates_of(names, LAYERS)] == [
        "iteration_{step+1}/rank0/model.layers.{layer}"
    ]
    assert [t.pattern for t in templates_of(names[:2], LAYERS)] == [
        "iteration_1/rank0/model.layers.{layer}"
    ]


def test_the_last_hidden_state_is_not_a_layers(golden_in: Goldens, tmp_path: Path) -> None:
    golden = golden_in("float32")
    hidden_states(golden, tmp_path)
    mapping = suggest(read_dump(tmp_path), golden)
    assert f"layers.{LAYERS - 1:02}.mlp.output" in mapping.not_computed
    assert Entry("final_norm.output", f"hidden_states.{LAYERS}") in mapping.tensor
    assert Entry("layers.{layer}.mlp.output", "hidden_states.{layer+1}") in mapping.tensor
