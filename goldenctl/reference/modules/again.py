"""Recording a golden of modules again: a recipe becomes the recording that it describes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden.recipe import Recipe
from goldenctl.reference.modules.pretrained import Asked, Loading, from_checkpoint
from goldenctl.reference.modules.record import ModuleRecording
from goldenctl.reference.modules.subject import Subject, fingerprint, from_function


def recording_of_modules(
    recipe: Recipe, where: str, *, module: str | None, folder: Callable[[str], Path]
) -> ModuleRecording:
    """Return what ``recipe`` recorded, with as many threads.

    ``module`` is the function that the user named: what a recipe names is not run unasked.
    ``folder`` gives the checkpoint of a path. Raises DamagedError, naming ``where``, when the
    module is not the one recorded.
    """
    modules, model = recipe.modules, recipe.model
    if modules is None or model is None:
        message = f"{where}: the recipe is not one of modules"
        raise DamagedError(message)
    environment = recipe.reference
    if environment is not None and 1 <= environment.threads <= 4096:
        torch.set_num_threads(environment.threads)
    device = (environment.device if environment is not None else "") or "cpu"
    if modules.function:
        subject = _of_function(recipe, where, module, device)
    else:
        how = Loading(device, recipe.dtype)
        subject = from_checkpoint(folder(model.path), model.path, _asked(recipe, where), how)
    if fingerprint(subject.module) != model.fingerprint:
        message = f"{where}: {model.path} does not hold the weights that were recorded"
        raise DamagedError(message)
    return ModuleRecording(subject, modules.match, modules.depth, recipe.oracle, device)


def _of_function(recipe: Recipe, where: str, module: str | None, device: str) -> Subject:
    assert recipe.modules is not None
    if module is None:
        message = f"{where}: was recorded from the function {recipe.modules.function}"
        raise UsageError(message, hint=f"to call it, pass --module {recipe.modules.function}")
    dtype = recipe.dtype if recipe.modules.cast else None
    return from_function(module, device=device, dtype=dtype)


def _asked(recipe: Recipe, where: str) -> Asked:
    assert recipe.modules is not None
    kind, _, rest = recipe.modules.inputs.partition(":")
    if kind == "tokens":
        rows = [";".join(",".join(map(str, row)) for row in c.token_ids) for c in recipe.cases]
        texts = [case.text for case in recipe.cases]
        decode = max((case.decode for case in recipe.cases), default=0)
        names = [case.name for case in recipe.cases]
        return Asked(token_ids=rows, texts=texts, names=names, decode=decode)
    if kind == "random":
        return Asked(seed=int(rest or 0))
    message = f"{where}: its inputs were those of a file, which the recipe does not hold"
    raise UsageError(message, hint="record it again by hand, with --inputs")
