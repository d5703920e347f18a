"""Measures ``goldenctl record``: memory, the cost of writing, and two peers.

    python benchmarks/record.py [--checkpoint DIR] [--large DIR | --no-large] [--json FILE]

Every measurement is a process of its own; imports are not counted, loading is. What is
compared runs in turns, since a machine's speed drifts, and medians are shown. Without
``--checkpoint`` a random bf16 checkpoint of Qwen3-0.6B's shape is made (1.2 GB, temporary),
and one of Qwen3-1.7B's, whose memory alone is measured (3.4 GB). Exits with 1 when a bar is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

THREADS = 2
TOKENS = (32, 512)
GIB = 1 << 30
PEAK_BARS_BYTES = {32: 0.9 * GIB, 512: 1.25 * GIB}
LARGE_PEAK_BAR_BYTES = 1.4 * GIB
WRITING_BAR = {32: 1.4, 512: 1.15}
PEER_BAR = 2.5
PEERS = ("hooks", "debugger")


@dataclass(frozen=True)
class Sample:
    """One process: wall and processor seconds, its resident peak, what it left on disk."""

    seconds_s: float
    cpu_s: float
    peak_bytes: int
    written_bytes: int


@dataclass(frozen=True)
class Bar:
    """One claim: ``actual`` against ``expected``, met when ``ok``."""

    name: str
    actual: float
    expected: str
    ok: bool


# --- the child: one measurement -------------------------------------------------------------


def _record(checkpoint: Path, tokens: int, out: Path) -> Callable[[], None]:
    from goldenctl.commands.record import prepare
    from goldenctl.model.inputs import Inputs
    from goldenctl.reference.record import record

    return lambda: record(prepare(checkpoint, Inputs(random_tokens=tokens)), out / "golden.h5")


def _null(checkpoint: Path, tokens: int, _out: Path) -> Callable[[], None]:
    """The same pass with nothing written."""
    from goldenctl.commands.record import prepare
    from goldenctl.model.inputs import Inputs
    from goldenctl.reference.clock import Clock
    from goldenctl.reference.memory import kept_memory
    from goldenctl.reference.record import Forward

    def run() -> None:
        with kept_memory():
            recording = prepare(checkpoint, Inputs(random_tokens=tokens))
            Forward(recording, lambda *_: None, Clock()).run(lambda *_: None, None)

    return run


def _hooks(checkpoint: Path, tokens: int, out: Path) -> Callable[[], None]:
    """Transformers with a forward hook on every module that saves its tensors to npy."""
    import numpy as np
    import torch

    def run() -> None:
        model, inputs = _peer(checkpoint, tokens)

        def save(name: str, value: Any) -> None:
            values = value if isinstance(value, (tuple, list)) else (value,)
            for index, item in enumerate(values):
                if isinstance(item, torch.Tensor):
                    np.save(out / f"{name}.{index}.npy", item.numpy())

        for name, module in model.named_modules():
            module.register_forward_hook(lambda _m, _i, value, name=name: save(name, value))
        with torch.inference_mode():
            model(**inputs)

    return run


def _debugger(checkpoint: Path, tokens: int, out: Path) -> Callable[[], None]:
    """Transformers' own tool for those who add a model."""
    import torch
    from transformers.model_debugging_utils import model_addition_debugger_context

    def run() -> None:
        model, inputs = _peer(checkpoint, tokens)
        kept = {"do_prune_layers": False, "use_repr": False}
        with torch.inference_mode(), model_addition_debugger_context(model, str(out), **kept):
            model.forward(**inputs)

    return run


def _peer(checkpoint: Path, tokens: int) -> tuple[Any, dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM

    from goldenctl.model.config import load_config
    from goldenctl.model.tokens import random_ids

    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = torch.tensor([random_ids(tokens, load_config(checkpoint).vocab_size, 0)])
    return model, {"input_ids": ids, "logits_to_keep": 1, "use_cache": False}


CHILDREN = {"record": _record, "null": _null, "hooks": _hooks, "debugger": _debugger}


def _child(kind: str, checkpoint: Path, tokens: int, out: Path) -> None:
    run = CHILDREN[kind](checkpoint, tokens, out)
    import torch

    if kind in PEERS:
        import transformers.models.qwen3.modeling_qwen3  # imports are not counted

        assert transformers.AutoModelForCausalLM
        transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    cpu, started = os.times(), time.perf_counter()
    run()
    seconds_s, after = time.perf_counter() - started, os.times()
    cpu_s = after.user - cpu.user + after.system - cpu.system
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    sys.stdout.write(json.dumps(asdict(Sample(seconds_s, cpu_s, peak_bytes, written))) + "\n")


# --- the parent: turns, medians, bars -------------------------------------------------------


def measure(kind: str, checkpoint: Path, tokens: int, scratch: Path) -> Sample:
    """Run one measurement in a process of its own, in an empty folder."""
    out = scratch / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    command = [sys.executable, __file__, "--child", kind, str(checkpoint), str(tokens), str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    shutil.rmtree(out)
    return Sample(**json.loads(done.stdout.splitlines()[-1]))


def rounds(checkpoint: Path, tokens: int, scratch: Path, repeats: int) -> dict[str, list[Sample]]:
    """Measure every kind in turns; recording and its null pass twice as often as the peers."""
    samples: dict[str, list[Sample]] = {kind: [] for kind in CHILDREN}
    for turn in range(repeats):
        kinds = ("null", "record", *(PEERS if turn < (repeats + 1) // 2 else ()))
        for kind in kinds if turn % 2 == 0 else reversed(kinds):
            say(f"{tokens} tokens, turn {turn + 1} of {repeats}: {kind}")
            samples[kind].append(measure(kind, checkpoint, tokens, scratch))
    return samples


def median(samples: list[Sample], field: str) -> float:
    return statistics.median(getattr(sample, field) for sample in samples)


def bars(samples: dict[str, list[Sample]], tokens: int) -> list[Bar]:
    """Judge one number of tokens."""
    peak = max(sample.peak_bytes for sample in samples["record"])
    limit = PEAK_BARS_BYTES[tokens]
    record_s = median(samples["record"], "seconds_s")
    ratio = record_s / median(samples["null"], "seconds_s")
    found = [
        Bar(f"peak GiB, {tokens} tokens", peak / GIB, f"<= {limit / GIB:g}", peak <= limit),
        Bar(
            f"time / null, {tokens} tokens",
            ratio,
            f"<= {WRITING_BAR[tokens]}",
            ratio <= WRITING_BAR[tokens],
        ),
    ]
    for peer in PEERS:
        speed = median(samples[peer], "seconds_s") / record_s
        name = f"{peer} time / ours, {tokens} tokens"
        found.append(Bar(name, speed, f">= {PEER_BAR}", speed >= PEER_BAR))
    return found


def table(samples: dict[str, list[Sample]], tokens: int) -> str:
    lines = [f"{tokens} tokens      wall s    cpu s  peak GiB  written MiB  runs"]
    for kind, ours in samples.items():
        lines.append(
            f"{kind:12} {median(ours, 'seconds_s'):9.2f} {median(ours, 'cpu_s'):8.2f}"
            f" {max(s.peak_bytes for s in ours) / GIB:9.2f}"
            f" {median(ours, 'written_bytes') / (1 << 20):12.0f} {len(ours):5}"
        )
    for peer in PEERS:
        most = median(samples[peer], "seconds_s") / median(samples["null"], "seconds_s")
        lines.append(f"{peer}: {most:.2f} times our pass with nothing written")
    return "\n".join(lines)


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


def run(args: argparse.Namespace, scratch: Path) -> tuple[list[Bar], dict[str, Any]]:
    """Measure everything that was asked for; returns the bars and all samples."""
    checkpoint = args.checkpoint or _synth("qwen3-0.6b", scratch)
    measure("record", checkpoint, TOKENS[0], scratch)  # reads the files, digests them once
    found: list[Bar] = []
    kept: dict[str, Any] = {}
    for tokens in args.tokens:
        samples = rounds(checkpoint, tokens, scratch, args.repeats)
        sys.stdout.write(table(samples, tokens) + "\n\n")
        found += bars(samples, tokens)
        kept[str(tokens)] = {kind: [asdict(s) for s in ours] for kind, ours in samples.items()}
    if not args.no_large:
        large = args.large or _synth("qwen3-1.7b", scratch)
        sample = measure("record", large, TOKENS[0], scratch)
        limit = LARGE_PEAK_BAR_BYTES
        name, ok = f"peak GiB, 1.7B, {TOKENS[0]} tokens", sample.peak_bytes <= limit
        found.append(Bar(name, sample.peak_bytes / GIB, f"<= {limit / GIB:g}", ok))
        kept["1.7B"] = asdict(sample)
    return found, kept


def _synth(preset: str, scratch: Path) -> Path:
    from goldenctl.model.synth import synth

    say(f"making a random {preset} checkpoint")
    return synth(preset, scratch / preset, 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, help="of Qwen3-0.6B's shape")
    parser.add_argument("--large", type=Path, help="of Qwen3-1.7B's shape")
    parser.add_argument("--no-large", action="store_true", help="leave that one out")
    parser.add_argument("--tokens", type=int, nargs="+", choices=TOKENS, default=TOKENS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    parser.add_argument("--json", type=Path, help="write bars and samples here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="record-", dir=args.scratch) as scratch:
        found, samples = run(args, Path(scratch))
    for bar in found:
        verdict = "ok  " if bar.ok else "MISS"
        sys.stdout.write(f"{verdict} {bar.name:34} {bar.actual:8.2f}  {bar.expected}\n")
    if args.json:
        content = {"threads": THREADS, "bars": [asdict(bar) for bar in found], "samples": samples}
        args.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if all(bar.ok for bar in found) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    else:
        sys.exit(main())
