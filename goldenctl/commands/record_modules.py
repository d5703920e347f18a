"""``goldenctl record --module`` and ``--reference``: goldens of any ``nn.Module``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldenctl.commands.options import (
    existing_folder,
    human_bytes,
    plural,
    progress_bar,
    was_given,
)
from goldenctl.commands.sets import Destination, Tell
from goldenctl.errors import UsageError, require_torch
from goldenctl.flags import flag, flags_of
from goldenctl.golden.selection import Selection
from goldenctl.model.inputs import Inputs

if TYPE_CHECKING:
    from goldenctl.commands.record import Compute
    from goldenctl.reference.modules.record import ModuleRecording

_LISTED = 4
_BOTH = {"checkpoint", "golden", "module", "reference", "match", "depth", "name", "note", "goldens"}
_BOTH |= {"force", "threads", "dtype", "device", "oracle", "verbose"}
_OF_TEXT = {"prompts", "token_ids", "random_tokens", "seed", "decode"}
_OF_CHECKPOINT = {"arguments", *_OF_TEXT}


@dataclass(frozen=True)
class Modules:
    """What makes the module of a golden of modules, and which calls are kept."""

    module: str | None = flag(
        None,
        "Record every submodule of the module that this function returns with its inputs.",
        metavar="PACKAGE:FUNCTION",
    )
    reference: str | None = flag(
        None,
        "Record every submodule of the model that transformers makes of CHECKPOINT.",
        kind=("transformers",),
    )
    match: tuple[str, ...] = flag(
        (),
        "Of modules: only those whose name fits, such as 'layers.0.*' (repeatable).",
        metavar="PATTERN",
        many=True,
    )
    depth: int | None = flag(
        None, "Of modules: only those at most this far below the model.", least=0, most=1000
    )
    arguments: Path | None = flag(
        None,
        "With --reference: the model's arguments by name, .safetensors or .npz.",
        name="--inputs",
        kind="path",
        metavar="FILE",
    )

    def wanted(self) -> bool:
        """Whether a golden of modules is asked for; UsageError for what goes with it alone."""
        if self.module is not None or self.reference is not None:
            return True
        for field, how in flags_of(Modules):
            if getattr(self, field.name) not in (None, ()):
                message = f"{how.option(field.name)}: goes with --module or --reference"
                raise UsageError(message)
        return False


@dataclass(frozen=True)
class Asked:
    """What a command line asks for, beside its arguments."""

    modules: Modules
    inputs: Inputs
    selection: Selection
    compute: Compute


def record_modules_of(
    checkpoint: Path | None, golden: Path | None, asked: Asked, options: dict[str, Any]
) -> int:
    """Record a golden of modules; return the exit code."""
    _refuse_others(asked.modules)
    if asked.modules.module is not None:
        if golden is not None:
            message = f"{golden}: with --module, GOLDEN is the only argument"
            raise UsageError(message)
        golden, checkpoint = checkpoint, None
    elif checkpoint is None:
        message = "--reference transformers needs a CHECKPOINT"
        raise UsageError(message)
    how = {key: options[key] for key in ("note", "force")}
    destination = Destination(golden, options["name"], options["goldens"], **how)
    destination.check()
    destination.was_finished()
    return destination.record(partial(_run, _prepared(checkpoint, asked)))


def _prepared(checkpoint: Path | None, asked: Asked) -> ModuleRecording:
    """Make the module and its inputs; raises UsageError for what is not as it should be."""
    require_torch("record")
    from goldenctl.reference.device import check_device
    from goldenctl.reference.modules.record import ModuleRecording

    check_device(asked.compute.device)
    if asked.selection.oracle == "keep":
        message = "--oracle keep: of modules budgets are kept, not the truth"
        raise UsageError(message, hint="pass --oracle")
    asked.compute.use_threads()
    modules = asked.modules
    return ModuleRecording(
        _subject(checkpoint, asked),
        tuple(modules.match),
        modules.depth,
        asked.selection.oracle,
        asked.compute.device,
    )


def _subject(checkpoint: Path | None, asked: Asked) -> Any:
    device, dtype = asked.compute.device, asked.compute.dtype
    if checkpoint is None:
        from goldenctl.reference.modules.subject import from_function

        assert asked.modules.module is not None
        cast = dtype if was_given("dtype") else None
        return from_function(asked.modules.module, device=device, dtype=cast)
    from goldenctl.model.source import canonical
    from goldenctl.reference.modules import pretrained

    inputs = asked.inputs
    wanted = pretrained.Asked(
        inputs.prompts,
        inputs.token_ids,
        inputs.random_tokens,
        inputs.seed or 0,
        inputs.decode,
        asked.modules.arguments,
    )
    how = pretrained.Loading(device, dtype)
    source = canonical(str(checkpoint))
    return pretrained.from_checkpoint(existing_folder(checkpoint), source, wanted, how)


def _refuse_others(modules: Modules) -> None:
    """Refuse options that a golden of modules would silently ignore."""
    if modules.module is not None and modules.reference is not None:
        message = "--module and --reference: give one of them"
        raise UsageError(message)
    known = _BOTH | (_OF_CHECKPOINT if modules.reference else set())
    kind = "reference" if modules.reference else "module"
    for param in click.get_current_context().command.params:
        if param.name not in known and was_given(str(param.name)):
            message = f"{param.opts[0]}: does not go with --{kind}"
            raise UsageError(message)
        if modules.arguments is not None and param.name in _OF_TEXT and was_given(str(param.name)):
            message = f"{param.opts[0]}: does not go with --inputs, which gives every argument"
            raise UsageError(message)


def _run(recording: ModuleRecording, golden: Path) -> Tell:
    from goldenctl.reference.modules.record import record_modules

    started = time.monotonic()
    with progress_bar("recording") as progress:
        found = record_modules(recording, golden, progress)
    seconds = time.monotonic() - started

    def tell() -> None:
        from goldenctl.golden.file import open_golden

        file = open_golden(golden)
        for call, why in file.recipe["modules"].get("unheld", {}).items():
            click.echo(f"warning: {call}: its budget says little: it {why}", err=True)
        if found:
            named = ", ".join(found[:_LISTED]) + (", ..." if len(found) > _LISTED else "")
            click.echo(f"not called: {plural(len(found), 'module')}: {named}", err=True)
        size = human_bytes(golden.stat().st_size)
        calls, tensors = plural(len(file.sublayers), "call"), plural(len(file.tensors), "tensor")
        click.echo(f"wrote {golden}: {calls}, {tensors}, {size}, in {seconds:.1f} s")

    return tell
