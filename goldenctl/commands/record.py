"""``goldenctl record``: run the reference and write a golden."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldenctl.commands.options import (
    DTYPE,
    PATH,
    human_bytes,
    human_ns,
    input_options,
    parse_layers,
    progress_bar,
    refuse_existing,
    step_options,
)
from goldenctl.errors import UsageError, require_torch

if TYPE_CHECKING:
    from goldenctl.reference.record import Recording


# Measured on random 0.6B-shaped weights, 32 tokens, two cores (docs/budgets.md).
ORACLE_TIMES = "about 4 times as long"


@click.command("record")
@click.argument("checkpoint", type=PATH)
@click.argument("golden", type=PATH)
@input_options
@step_options
@click.option("--dtype", type=DTYPE, default="float32", show_default=True, help="Compute dtype.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda[:n].")
@click.option(
    "--taps",
    type=click.Choice(["op", "sublayer"]),
    default="op",
    show_default=True,
    help="Keep what every op yields, or only what sublayers do.",
)
@click.option("--layers", metavar="LIST", help="Keep only these decoder layers, such as 0-4,10.")
@click.option(
    "--logits",
    type=click.Choice(["last", "all", "none"]),
    default="last",
    show_default=True,
    help="Keep logits of the last token, of all, or of none.",
)
@click.option(
    "--oracle",
    is_flag=False,
    flag_value="budget",
    default="none",
    type=click.Choice(["none", "budget", "keep"]),
    help="Also compute each op in a wider type: keep its rounding budget, or the truth too.",
)
@click.option("--threads", type=click.IntRange(1, 4096), help="CPU threads of torch.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def record_command(checkpoint: Path, golden: Path, **options: Any) -> None:
    """Run CHECKPOINT in PyTorch and write every sublayer's tensors to GOLDEN.

    CHECKPOINT is a Hugging Face folder (config.json, *.safetensors, tokenizer.json).
    Without an input option the prompt is 'Hello, this is a test input'.
    """
    refuse_existing(golden, force=options["force"])
    recording = prepare(checkpoint, **options)
    run_recording(recording, golden)


def prepare(
    checkpoint: Path,
    *,
    prompts: tuple[str, ...] = (),
    prompts_file: Path | None = None,
    token_ids: tuple[str, ...] = (),
    random_tokens: int | None = None,
    seed: int = 0,
    decode: int = 0,
    force_tokens: str | None = None,
    prefill_chunk: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
    taps: str = "op",
    layers: str | None = None,
    logits: str = "last",
    oracle: str = "none",
    threads: int | None = None,
    **_: object,
) -> Recording:
    """Check everything that can be checked before the model runs.

    Raises MissingError without torch and UsageError for what does not fit the model.
    """
    from goldenctl.golden.layout import Selection
    from goldenctl.model.checkpoint import Checkpoint
    from goldenctl.model.config import load_config
    from goldenctl.model.tokens import Inputs, make_cases

    config = load_config(checkpoint)
    weights = Checkpoint.open(checkpoint)
    weights.check_against(config)
    inputs = Inputs(
        prompts,
        prompts_file,
        token_ids,
        random_tokens,
        seed,
        decode=decode,
        force_tokens=force_tokens,
        prefill_chunk=prefill_chunk,
    )
    cases = make_cases(inputs, checkpoint, config)
    if logits == "none" and any(case.generates for case in cases):
        message = "--decode chooses each token by the logits, which --logits none leaves out"
        raise UsageError(message, hint="give --logits last, or the tokens with --force-tokens")
    kept_layers = parse_layers(layers, config.num_hidden_layers)
    selection = Selection(taps, kept_layers, logits, oracle)
    require_torch("record")
    import torch

    from goldenctl.reference.record import Recording

    if threads is not None:
        torch.set_num_threads(threads)
    return Recording(weights, config, cases, dtype, device, selection)


def run_recording(recording: Recording, golden: Path) -> None:
    """Record with a forecast before and a summary after."""
    from goldenctl.reference.record import check_device, record

    check_device(recording.device)
    layout = recording.layout()
    tokens = sum(len(case.token_ids) * case.length for case in recording.cases)
    click.echo(
        f"recording {len(recording.cases)} case(s), {tokens} tokens, {recording.dtype} on "
        f"{recording.device}: {human_bytes(layout.nbytes)} to {golden}"
    )
    if layout.oracle_nbytes:
        click.echo(
            f"of which the oracle takes {human_bytes(layout.oracle_nbytes)}; with it the pass "
            f"takes {ORACLE_TIMES}"
        )
    started = time.monotonic()
    with progress_bar("recording") as progress:
        record(recording, golden, progress)
    _print_summary(golden, time.monotonic() - started)


def _print_summary(golden: Path, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    from goldenctl.golden.file import open_golden

    file = open_golden(golden)
    table = Table(box=None, pad_edge=False)
    for title in ("layer", "attention", "mlp"):
        table.add_column(title, justify="left" if title == "layer" else "right")
    rows: dict[str, dict[str, int]] = {}
    for path, info in file.sublayers.items():
        _, _, name = path.partition("/steps/")
        *layer, part = name.split("/")[1:]
        row = rows.setdefault("/".join(layer) or part, {})
        part = part if layer else "attention"
        row[part] = row.get(part, 0) + info.time_ns
    for name, row in rows.items():
        cells = [human_ns(row[part]) if part in row else "" for part in ("attention", "mlp")]
        table.add_row(name, *cells)
    Console(highlight=False).print(table)
    size = golden.stat().st_size
    click.echo(
        f"wrote {golden}: {len(file.tensors)} tensors, {human_bytes(size)}, in {seconds:.1f} s"
    )
