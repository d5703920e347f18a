"""What a golden of modules costs: time beside hooks that copy, memory beside the model debugger.

    python benchmarks/modules.py [--layers 6] [--tokens 64] [--rounds 1]

A random Qwen3 of the shape of the 0.6B (hidden 1024, 16 heads of 128 over 8, 3072 inside) with few
layers and a small vocabulary. In turn, each round: the forward pass with hooks that copy every
module's inputs and outputs, as transformers' users write them, and ``record_modules`` into a
file. Then the memory that each of ``record_modules`` and transformers' own
``model_addition_debugger_context`` adds to a process that has loaded and run the model once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from goldenctl.reference.modules.record import ModuleRecording, record_modules
from goldenctl.reference.modules.subject import Subject, fixed
from goldenctl.reference.modules.values import Given, tensors_of


def model(layers: int) -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        hidden_size=1024, num_hidden_layers=layers, num_attention_heads=16, num_key_value_heads=8,
        head_dim=128, intermediate_size=3072, vocab_size=4096, attn_implementation="eager",
    )  # fmt: skip
    return transformers.Qwen3ForCausalLM(config).eval()


def ids(tokens: int) -> torch.Tensor:
    return torch.arange(tokens)[None] % 4096


def with_copying_hooks(made: Any, tokens: int) -> int:
    """Run the model with hooks that copy, and return how many bytes they copied."""
    kept: dict[str, list[torch.Tensor]] = {}

    def hook(name: str) -> Any:
        def copy(_module: Any, args: Any, kwargs: Any, output: Any) -> None:
            parts = [*Given(args, kwargs).tensors(), *tensors_of(output, "output")]
            kept[name] = [tensor.detach().clone() for _, tensor in parts]

        return copy

    hooks = [
        module.register_forward_hook(hook(name), with_kwargs=True)
        for name, module in made.named_modules()
    ]
    with torch.no_grad():
        made(input_ids=ids(tokens), use_cache=False)
    for each in hooks:
        each.remove()
    return sum(tensor.nbytes for tensors in kept.values() for tensor in tensors)


def record(made: Any, tokens: int, path: Path) -> None:
    given = Given((), {"input_ids": ids(tokens), "use_cache": False})
    subject = Subject(made, {"default": fixed([given])}, {"function": "benchmark"})
    record_modules(ModuleRecording(subject), path)


def timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def memory(what: str, layers: int, tokens: int) -> None:
    """Print how far the peak of memory is above that of a plain pass."""
    made = model(layers)
    with torch.no_grad():
        made(input_ids=ids(tokens), use_cache=False)
    forget_peak()
    before = peak_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if what == "record":
            record(made, tokens, Path(folder) / "g.h5")
        elif what == "debugger":
            from transformers.model_debugging_utils import model_addition_debugger_context

            with (
                torch.no_grad(),
                model_addition_debugger_context(
                    made, debug_path=folder, do_prune_layers=False, use_repr=False
                ),
            ):
                made.forward(input_ids=ids(tokens), use_cache=False)
        written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        sys.stderr.write(f"{what} wrote {written >> 20} MiB\n")
    sys.stdout.write(f"{peak_bytes() - before}\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--memory", choices=["record", "debugger"])
    options = parser.parse_args()
    if options.memory:
        memory(options.memory, options.layers, options.tokens)
        return
    made = model(options.layers)
    with_copying_hooks(made, options.tokens)  # warms up
    ratios = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            copied_s = timed(lambda: with_copying_hooks(made, options.tokens))
            path = Path(folder) / "g.h5"
            recorded_s = timed(lambda path=path: record(made, options.tokens, path))  # type: ignore[misc]
            size = path.stat().st_size
        ratios.append(recorded_s / copied_s)
        sys.stdout.write(
            f"hooks that copy {copied_s:.2f} s, recording {recorded_s:.2f} s of "
            f"{size >> 20} MiB: {ratios[-1]:.2f} times\n"
        )
    sys.stdout.write(f"median of {options.rounds}: {sorted(ratios)[len(ratios) // 2]:.2f} times\n")
    sizes = {}
    for what in ("record", "debugger"):
        command = [sys.executable, __file__, "--memory", what]
        command += ["--layers", str(options.layers), "--tokens", str(options.tokens)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        sizes[what] = int(done.stdout.split()[-1])
    said = ", ".join(f"{what} {size >> 20} MiB" for what, size in sizes.items())
    sys.stdout.write(f"memory above a plain pass: {said}\n")


if __name__ == "__main__":
    main()
