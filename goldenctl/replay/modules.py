"""A replay of a golden of modules as it was asked for: what fits it, and what it is run with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from goldenctl.errors import UsageError, require_torch
from goldenctl.flags import flags_of
from goldenctl.golden.calls import MODULE
from goldenctl.golden.file import GoldenFile
from goldenctl.replay.backend import parse_device
from goldenctl.replay.options import Options

if TYPE_CHECKING:
    from goldenctl.reference.modules.replay import ModuleReplay
    from goldenctl.reference.modules.subject import Subject

MODES = (MODULE, "chain")
# Options that say how a decoder's ops are replayed.
_OF_OPS = (
    "layers", "shuffle", "workers", "memory_bytes", "resume", "faults", "debug", "noise", "seed",
)  # fmt: skip


def prepare(
    golden: GoldenFile,
    options: Options,
    *,
    module: str | None,
    folder: Callable[[], Path],
) -> tuple[ModuleReplay, Subject]:
    """Return how a golden is replayed, and the module that it is replayed with.

    ``module`` is the function that the user named, ``folder`` gives the checkpoint's. Raises
    UsageError for options that do not fit, MissingError for what is not there.
    """
    options = options.for_golden(golden)
    if options.mode not in MODES:
        message = f"--mode {options.mode}: a golden of modules is replayed in {' or '.join(MODES)}"
        raise UsageError(message)
    usual = Options()
    for field, given in flags_of(Options):
        name = field.name
        if name in _OF_OPS and getattr(options, name) != getattr(usual, name):
            message = f"{given.option(name)}: does not go with a golden of modules"
            raise UsageError(message)
    require_torch("backend torch")
    from goldenctl.reference.modules.replay import ModuleReplay, subject_of

    how = ModuleReplay(
        mode=options.mode,
        device=_torch_device(options.device),
        dtype=options.dtype or str(golden.recipe["dtype"]),
        attention=options.attention,
        compiled=options.compiled,
        module=module or "",
    )
    own = golden.recipe["modules"].get("function")
    return how, subject_of(golden, module, None if module or own else folder(), how)


def _torch_device(text: str) -> str:
    from goldenctl.reference.device import check_device

    kind, number = parse_device(text)
    if kind not in ("cpu", "nvidia"):
        message = f"--device {text}: torch has no such device here"
        raise UsageError(message, hint="use cpu or nvidia")
    device = "cpu" if kind == "cpu" else f"cuda:{number}"
    check_device(device)
    return device
