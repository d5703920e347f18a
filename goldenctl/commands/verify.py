"""``goldenctl verify``: record, replay and diff in one go."""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path

import click

from goldenctl.commands.engine import Engine
from goldenctl.commands.options import (
    DTYPE,
    PATH,
    TEXT,
    os_errors_named,
    strict_option,
)
from goldenctl.commands.reporting import Outputs, Shown, report_outputs, report_shown
from goldenctl.commands.targets import refuse_other
from goldenctl.errors import MissingError, UsageError
from goldenctl.replay.options import Options

DEFAULT_MODEL = Path("/home/shared/models/Qwen3-1.7B")


@click.command("verify", short_help="Record, replay and diff in one go")
@click.option(
    "--model-path", type=PATH, default=DEFAULT_MODEL, show_default=True, help="The checkpoint."
)
@click.option("--device", default="cpu", show_default=True, help="The backend's device.")
@click.option("--output", type=PATH, help="The same as --json.")
@click.option("--test-input", type=TEXT, metavar="TEXT", help="The prompt.")
@click.option("--backend", default="infinicore", show_default=True, help="As for replay.")
@click.option("--dtype", type=DTYPE, default="float32", show_default=True, help="Compute dtype.")
@click.option("--tolerance", default="default", show_default=True, help="As for diff.")
@strict_option
@click.option(
    "--keep",
    type=PATH,
    help="Keep golden.h5 and run.h5 in this folder. By default they are in a temporary one, which "
    "stays only if something is wrong.",
)
@report_outputs
@report_shown
def verify_command(
    model_path: Path,
    device: str,
    output: Path | None,
    test_input: str | None,
    backend: str,
    dtype: str,
    tolerance: str,
    strict: bool,
    keep: Path | None,
    outputs: Outputs,
    shown: Shown,
) -> int:
    """Record a checkpoint in PyTorch, replay it on a backend, and diff the two."""
    from goldenctl.commands.diff import run_diff
    from goldenctl.commands.record import Compute, prepare, run_recording
    from goldenctl.commands.replay import run_replay
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.file import open_golden
    from goldenctl.model.tokens import Inputs
    from goldenctl.replay.backend import check_device, check_dtype, parse_device

    if model_path == DEFAULT_MODEL and not model_path.is_dir():
        message = f"{model_path}: there is no such folder"
        raise MissingError(message, hint="name the checkpoint with --model-path")
    load_policy(tolerance)
    parse_device(device)
    if output is not None and outputs.json is not None:
        message = "--output and --json are the same; give one"
        raise UsageError(message)
    outputs = replace(outputs, json=outputs.json or output)
    outputs.check()
    inputs = Inputs(prompts=(test_input,) if test_input is not None else ())
    recording = prepare(model_path, inputs, compute=Compute(dtype), verbose=shown.verbose)
    engine = Engine(backend)
    if not engine.simulated:
        opened = engine.open()
        check_dtype(opened, dtype)
        check_device(opened, device)
    if keep is not None:
        with os_errors_named(keep):
            keep.mkdir(parents=True, exist_ok=True)
        if (keep / "golden.h5").exists():
            message = f"{keep / 'golden.h5'}: it exists already, and a golden is never changed"
            raise UsageError(message, hint="give --keep another folder")
        refuse_other(keep / "run.h5", "run")
    folder = keep or Path(tempfile.mkdtemp(prefix="goldenctl-"))
    code = 0
    try:
        with redirect_stdout(io.StringIO()) if shown.quiet or outputs.takes_over else nullcontext():
            run_recording(recording, folder / "golden.h5")()
            golden = open_golden(folder / "golden.h5")
            run_replay(golden, folder / "run.h5", engine, Options(device=device))
        pair = folder / "golden.h5", folder / "run.h5"
        code = run_diff(
            *pair,
            tolerance=tolerance,
            strict=strict,
            outputs=outputs,
            shown=shown,
            command="verify",
        )
    finally:
        if keep is None and code == 0:
            shutil.rmtree(folder)
    if keep is None and code:
        click.echo(f"kept for a closer look: {folder}", err=True)
    return code
