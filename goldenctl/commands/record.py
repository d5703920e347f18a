"""``goldenctl record``: run the reference and write a golden."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldenctl.commands.groups import takes
from goldenctl.commands.options import (
    DTYPES,
    PATH,
    TEXT,
    check_layers,
    existing_folder,
    goldens_option,
    human_bytes,
    human_ns,
    model_folder,
    plural,
    progress_bar,
    was_given,
)
from goldenctl.commands.record_modules import Asked, Modules, record_modules_of
from goldenctl.commands.sets import Destination, Tell
from goldenctl.commands.weights import open_weights
from goldenctl.errors import UsageError, require_torch
from goldenctl.flags import flag
from goldenctl.golden.selection import ORACLES, Selection
from goldenctl.model.inputs import Inputs

if TYPE_CHECKING:
    from goldenctl.model.case import Case
    from goldenctl.model.config import ModelConfig
    from goldenctl.reference.record import Recording


@dataclass(frozen=True)
class Compute:
    """How the reference computes: see ``goldenctl.reference.record.Recording``."""

    dtype: str = flag("float32", "Compute dtype.", kind="dtype", shown=True)
    device: str = flag("cpu", "cpu or cuda[:n].", shown=True)
    repeat: int = flag(
        1,
        "Time each op this many times; the golden keeps the medians.",
        least=1,
        most=10_000,
        shown=True,
    )
    threads: int | None = flag(None, "CPU threads of torch.", least=1, most=4096)

    def use_threads(self) -> None:
        """Have torch use this many threads from now on."""
        import torch

        if self.threads is not None:
            torch.set_num_threads(self.threads)


class _Record(click.Command):
    """Takes ``--oracle`` without a value also where an argument follows it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        pairs = zip(args, [*args[1:], ""], strict=False)
        words = [f"{a}=budget" if a == "--oracle" and _no_choice(b) else a for a, b in pairs]
        return super().parse_args(ctx, words)


def _no_choice(word: str) -> bool:
    """Whether a word is not even meant as a choice: no plain word, or something that is there."""
    return word not in ORACLES and (not word.isalpha() or Path(word).exists())


@click.command("record", cls=_Record, short_help="Run a checkpoint in PyTorch and keep its tensors")
@click.argument("checkpoint", type=PATH, required=False)
@click.argument("golden", type=PATH, required=False)
@click.option("--name", type=TEXT, help="Write the next version of this golden set.")
@click.option(
    "--from-manifest",
    "manifest",
    type=TEXT,
    metavar="NAME|FILE",
    help="Record again what a manifest says, as the next version of its set.",
)
@click.option("--model-path", type=PATH, help="With --from-manifest: where the checkpoint is now.")
@click.option("--note", type=TEXT, default="", help="A line for the set's history.")
@goldens_option(expose=True)
@takes("inputs", Inputs)
@takes("compute", Compute)
@click.option(
    "--dtypes",
    type=DTYPES,
    metavar="LIST",
    help="Record the same inputs in each of these dtypes: GOLDEN.DTYPE.h5, or NAME-DTYPE.",
)
@takes("selection", Selection)
@takes("modules", Modules)
@click.option("--resume", is_flag=True, help="Continue where it was interrupted.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Name every tensor that is not read or does not fit."
)
def record_command(
    checkpoint: Path | None,
    golden: Path | None,
    inputs: Inputs,
    selection: Selection,
    compute: Compute,
    modules: Modules,
    **options: Any,
) -> int:
    """Run CHECKPOINT in PyTorch and write every sublayer's tensors to GOLDEN.

    CHECKPOINT is a Hugging Face folder (config.json, *.safetensors, tokenizer.json), a GGUF
    file, or synth:PRESET?seed=N for random weights. Without an input option the prompt is
    'Hello, this is a test input'.

    With --name in place of GOLDEN the golden is the next version of a set. Compared with the
    version that the set's manifest describes, each tensor is the same, within rounding, closer to
    the truth, or changed in meaning, which ends with exit code 1.

    With --module PACKAGE:FUNCTION (and GOLDEN alone) or --reference transformers, the calls of
    every submodule of any PyTorch model are recorded, by qualified name.
    """
    if modules.wanted() and options["manifest"] is None:
        asked = Asked(modules, inputs, selection, compute)
        return record_modules_of(checkpoint, golden, asked, options)
    if options["manifest"] is not None:
        return _record_again(_only_golden(checkpoint, golden), options, compute)
    if checkpoint is None:
        message = "record needs a CHECKPOINT, or --from-manifest"
        raise UsageError(message)
    if options["model_path"] is not None:
        message = "--model-path goes with --from-manifest; CHECKPOINT is the model here"
        raise UsageError(message)
    prepared = partial(prepare, checkpoint, inputs, selection, compute, verbose=options["verbose"])
    if options["dtypes"] is not None:
        return _record_variants(prepared, golden, options, selection)
    if compute.dtype in selection.budget_dtypes:
        message = f"--budget-dtypes {compute.dtype}: the golden's own dtype has its budget anyway"
        raise UsageError(message)
    destination = _destination(golden, options["name"], options)
    destination.check()
    if destination.was_finished():
        return 0
    recording = prepared()
    return destination.record(partial(run_recording, recording, resume=options["resume"]))


def _record_variants(
    prepared: Callable[[], Recording],
    golden: Path | None,
    options: dict[str, Any],
    selection: Selection,
) -> int:
    """Record the same inputs in every dtype of --dtypes; return the worst exit code."""
    from goldenctl.reference.variants import Variants, variant_name, variant_path

    if was_given("dtype"):
        message = "--dtype and --dtypes: give one of them"
        raise UsageError(message)
    dtypes = options["dtypes"]
    places = {
        dtype: _destination(
            variant_path(golden, dtype), variant_name(options["name"], dtype), options
        )
        for dtype in dtypes
    }
    variants = Variants(prepared(), dtypes, selection.budget_dtypes or None)
    for dtype, place in places.items():
        place.check()
        if not (options["resume"] and place.golden and variants.is_there(dtype, place.golden)):
            place.was_finished()
    codes = []
    for dtype, place in places.items():
        if place.golden is not None and variants.is_there(dtype, place.golden):
            click.echo(f"{place.golden} is there already")
            continue

        def run(path: Path, dtype: str = dtype) -> Tell:
            tell = run_recording(variants.of(dtype), path, resume=options["resume"])
            variants.note(path)
            return tell

        codes.append(place.record(run))
    return max(codes, default=0)


def _destination(golden: Path | None, name: str | None, options: dict[str, Any]) -> Destination:
    how = {key: options[key] for key in ("note", "force", "resume")}
    return Destination(golden, name, options["goldens"], **how)


_WITH_MANIFEST = {"manifest", "name", "model_path", "note", "goldens", "force", "threads"}
_WITH_MANIFEST |= {"repeat", "resume", "verbose", "checkpoint", "golden"}


def _only_golden(checkpoint: Path | None, golden: Path | None) -> Path | None:
    """With --from-manifest the one argument is the golden, and the recipe says the rest."""
    context = click.get_current_context()
    for name, value in context.params.items():
        if was_given(name) and name not in _WITH_MANIFEST:
            option = next(p.opts[0] for p in context.command.params if p.name == name)
            message = f"{option} {value}: the manifest says what is recorded"
            raise UsageError(message, hint="leave it out, or record without --from-manifest")
    if golden is not None:
        message = f"{golden}: with --from-manifest, GOLDEN is the only argument"
        raise UsageError(message, hint="--model-path says where the checkpoint is")
    return checkpoint


def _record_again(golden: Path | None, options: dict[str, Any], compute: Compute) -> int:
    from goldenctl.sets.manifest import find_manifest

    found, path = find_manifest(options["manifest"], options["goldens"])
    name = options["name"]
    if golden is None and name is None:
        name, options = found.name, {**options, "goldens": path.parent.parent}
        if path.parent.name != name:
            message = f"{path}: is not in the folder of its set, {name}"
            raise UsageError(message, hint="give GOLDEN, the file to write, or --name")
    destination = _destination(golden, name, options)
    destination.check()
    if destination.was_finished():
        return 0
    require_torch("record")

    from goldenctl.reference.again import recording_of

    moved = options["model_path"]
    source = str(model_folder(moved)) if moved is not None else ""
    recording = recording_of(found.recipe, str(path), source=source)
    compute.use_threads()
    recording = replace(recording, repeat=compute.repeat)
    return destination.record(partial(run_recording, recording, resume=options["resume"]))


def prepare(
    checkpoint: Path,
    inputs: Inputs | None = None,
    selection: Selection | None = None,
    compute: Compute | None = None,
    *,
    verbose: bool = False,
) -> Recording:
    """Check everything that can be checked before the model runs.

    Raises MissingError without torch and UsageError for what does not fit the model.
    """
    from goldenctl.model.config import load_config
    from goldenctl.model.source import canonical

    inputs, selection = inputs or Inputs(), selection or Selection()
    compute = compute or Compute()
    source = canonical(str(checkpoint))
    checkpoint = existing_folder(checkpoint)
    check_layers(selection.layers, load_config(checkpoint).num_hidden_layers)
    weights = open_weights(checkpoint, selection, verbose=verbose)
    cases = _cases(inputs, checkpoint, weights.config)
    _refuse_contradictions(selection, cases)
    require_torch("record")

    from goldenctl.reference.record import Recording

    compute.use_threads()
    return Recording(
        weights,
        weights.config,
        cases,
        compute.dtype,
        compute.device,
        selection,
        source=source,
        repeat=compute.repeat,
    )


def _cases(inputs: Inputs, checkpoint: Path, config: ModelConfig) -> tuple[Case, ...]:
    from goldenctl.model.tokens import left_out_of_suite, make_cases

    if missing := left_out_of_suite(inputs, checkpoint):
        click.echo(f"suite {inputs.suite}: its texts are left out: {missing}", err=True)
    cases = make_cases(inputs, checkpoint, config)
    for name, note in ((case.name, note) for case in cases for note in case.wording.notes()):
        click.echo(f"case {name}: {note}", err=True)
    return cases


def _refuse_contradictions(selection: Selection, cases: tuple[Case, ...]) -> None:
    if selection.logits == "none" and any(case.generates for case in cases):
        message = "--decode chooses each token by the logits, which --logits none leaves out"
        raise UsageError(message, hint="give --logits last, or the tokens with --force-tokens")
    if selection.budget_dtypes and selection.oracle == "none":
        message = "--budget-dtypes: only --oracle makes budgets"
        raise UsageError(message)


def run_recording(recording: Recording, golden: Path, *, resume: bool = False) -> Tell:
    """Record with a forecast before; return what prints a summary after."""
    from goldenctl.reference.device import check_device
    from goldenctl.reference.record import record

    check_device(recording.device)
    layout = recording.layout()
    tokens = sum(len(case.token_ids) * case.length for case in recording.cases)
    click.echo(
        f"recording {plural(len(recording.cases), 'case')}, {plural(tokens, 'token')}, "
        f"{recording.dtype} on {recording.device}: {human_bytes(layout.nbytes)} of tensors "
        f"to {golden}\n{_forecast(recording, layout.oracle_nbytes)}"
    )
    started = time.monotonic()
    with progress_bar("recording") as progress:
        found = record(recording, golden, progress, resume=resume)
    if found:
        click.echo(f"warning: {found}", err=True)
    return _summary(golden, time.monotonic() - started)


def _forecast(recording: Recording, oracle_nbytes: int) -> str:
    """Say what the oracle costs, or what it costs to be without one."""
    from goldenctl.reference.forecast import oracle_seconds

    seconds = human_ns(1e9 * oracle_seconds(recording))
    if oracle_nbytes:
        return f"of which the oracle takes {human_bytes(oracle_nbytes)}, and about {seconds}"
    return (
        "without --oracle a run is held to a table of tolerances, which lets pass what its own "
        f"rounding budget would not; the budget would take about {seconds} more"
    )


def _summary(golden: Path, seconds: float) -> Tell:
    from rich.table import Table

    from goldenctl.golden.file import open_golden
    from goldenctl.report.render_console import make_console

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
    size = human_bytes(golden.stat().st_size)
    tensors = plural(len(file.tensors), "tensor")
    wrote = f"wrote {golden}: {tensors}, {size}, in {seconds:.1f} s"

    def tell() -> None:
        make_console().print(table)
        click.echo(wrote)

    return tell
