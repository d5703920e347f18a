"""``goldenctl verify``: record, replay and diff in one go."""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.engine import Engine
from goldenctl.commands.groups import takes
from goldenctl.commands.options import os_errors_named, strict_option
from goldenctl.commands.reporting import Outputs, Shown, report_outputs, report_shown
from goldenctl.commands.targets import refuse_other
from goldenctl.errors import MissingError, UsageError
from goldenctl.flags import flag
from goldenctl.replay.options import Options

if TYPE_CHECKING:
    from goldenctl.reference.record import Recording

DEFAULT_MODEL = Path("/home/shared/models/Qwen3-1.7B")


@dataclass(frozen=True)
class Verification:
    """What is recorded, and what it is held against."""

    model_path: Path = flag(DEFAULT_MODEL, "The checkpoint.", kind="path", shown=True)
    device: str = flag("cpu", "The backend's device.", shown=True)
    output: Path | None = flag(None, "The same as --json.", kind="path")
    test_input: str | None = flag(None, "The prompt.", kind="text", metavar="TEXT")
    backend: str = flag("infinicore", "As for replay.", shown=True)
    dtype: str = flag("float32", "Compute dtype.", kind="dtype", shown=True)
    tolerance: str = flag("default", "As for diff.", shown=True)
    keep: Path | None = flag(
        None,
        "Keep golden.h5 and run.h5 in this folder. By default they are in a temporary one, which "
        "stays only if something is wrong.",
        kind="path",
    )


@click.command("verify", short_help="Record, replay and diff in one go")
@takes("wanted", Verification)
@strict_option
@report_outputs
@report_shown
def verify_command(wanted: Verification, strict: bool, outputs: Outputs, shown: Shown) -> int:
    """Record a checkpoint in PyTorch, replay it on a backend, and diff the two."""
    from goldenctl.commands.diff import run_diff
    from goldenctl.commands.record import Compute, prepare
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.model.inputs import Inputs
    from goldenctl.replay.backend import parse_device

    if wanted.model_path == DEFAULT_MODEL and not wanted.model_path.is_dir():
        message = f"{wanted.model_path}: there is no such folder"
        raise MissingError(message, hint="name the checkpoint with --model-path")
    load_policy(wanted.tolerance)
    parse_device(wanted.device)
    if wanted.output is not None and outputs.json is not None:
        message = "--output and --json are the same; give one"
        raise UsageError(message)
    outputs = replace(outputs, json=outputs.json or wanted.output)
    outputs.check()
    inputs = Inputs(prompts=(wanted.test_input,) if wanted.test_input is not None else ())
    compute = Compute(wanted.dtype)
    recording = prepare(wanted.model_path, inputs, compute=compute, verbose=shown.verbose)
    engine = _engine(wanted)
    folder = wanted.keep or Path(tempfile.mkdtemp(prefix="goldenctl-"))
    code = 0
    try:
        with redirect_stdout(io.StringIO()) if shown.quiet or outputs.takes_over else nullcontext():
            pair = _made(recording, folder, engine, wanted.device)
        how = {"tolerance": wanted.tolerance, "strict": strict, "command": "verify"}
        code = run_diff(*pair, outputs=outputs, shown=shown, **how)  # type: ignore[arg-type]
    finally:
        if wanted.keep is None and code == 0:
            shutil.rmtree(folder)
    if wanted.keep is None and code:
        click.echo(f"kept for a closer look: {folder}", err=True)
    return code


def _engine(wanted: Verification) -> Engine:
    """Open the backend and make the folder to keep; raises what is wrong with either."""
    from goldenctl.replay.backend import check_device, check_dtype

    engine = Engine(wanted.backend)
    if not engine.simulated:
        opened = engine.open()
        check_dtype(opened, wanted.dtype)
        check_device(opened, wanted.device)
    if (keep := wanted.keep) is not None:
        with os_errors_named(keep):
            keep.mkdir(parents=True, exist_ok=True)
        if (keep / "golden.h5").exists():
            message = f"{keep / 'golden.h5'}: it exists already, and a golden is never changed"
            raise UsageError(message, hint="give --keep another folder")
        refuse_other(keep / "run.h5", "run")
    return engine


def _made(recording: Recording, folder: Path, engine: Engine, device: str) -> tuple[Path, Path]:
    """Write the golden and its run into ``folder``; return both."""
    from goldenctl.commands.record import run_recording
    from goldenctl.commands.replay import run_replay
    from goldenctl.golden.file import open_golden

    golden, run = folder / "golden.h5", folder / "run.h5"
    run_recording(recording, golden)()
    run_replay(open_golden(golden), run, engine, Options(device=device))
    return golden, run
