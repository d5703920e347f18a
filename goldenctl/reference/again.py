"""Recording again: a recipe becomes the recording that it describes."""

from __future__ import annotations

from typing import NoReturn

import msgspec
import torch

from goldenctl.errors import DamagedError, MissingError
from goldenctl.golden.layout import weights_read
from goldenctl.golden.recipe import CaseRecipe, ModelRecipe, Recipe
from goldenctl.golden.selection import Selection
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import ModelConfig
from goldenctl.model.source import checkpoint_folder
from goldenctl.reference.record import Recording


def recording_of(recipe: Recipe, where: str, *, source: str = "") -> Recording:
    """Return what ``recipe`` recorded, with as many threads; it holds the token ids.

    ``source`` is the checkpoint when it has moved. Raises DamagedError, naming ``where``, for
    a recipe that fits no model and for a checkpoint that is not the one recorded,
    MissingError when the checkpoint is not there.
    """
    if recipe.dtype in recipe.budget_dtypes:
        _fail(where, f"recipe budget_dtypes {list(recipe.budget_dtypes)}: not further dtypes")
    model = recipe.model
    if model is None or not recipe.cases:
        _fail(where, "the recipe names no model or no case, so it cannot be recorded again")
    source = source or model.path
    folder = checkpoint_folder(source)
    if not folder.is_dir():
        message = f"{where}: the checkpoint that was recorded, {source}, is not here"
        raise MissingError(message, hint="--model-path says where it is")
    weights = Checkpoint.open(folder)
    config = weights.config
    selection = Selection.of_recipe(msgspec.structs.asdict(recipe))
    weights.check_against(config, read=weights_read(config, selection))
    check_model(model, weights, where)
    if any(layer >= config.num_hidden_layers for layer in recipe.layers or ()):
        _fail(where, f"recipe layers {recipe.layers}: the model has {config.num_hidden_layers}")
    environment = recipe.reference
    if environment is not None and 1 <= environment.threads <= 4096:
        torch.set_num_threads(environment.threads)
    return Recording(
        weights,
        config,
        tuple(_case(case, config, where) for case in recipe.cases),
        recipe.dtype,
        (environment.device if environment is not None else "") or "cpu",
        selection,
        source=model.path,
    )


def check_model(model: ModelRecipe, weights: Checkpoint, where: str) -> None:
    """Raise DamagedError unless the checkpoint is the one that was recorded."""
    actual = weights.fingerprint()
    if actual != model.fingerprint:
        message = (
            f"{where}: {weights.folder} is not the checkpoint that was recorded: "
            f"expected fingerprint {model.fingerprint}, got {actual}"
        )
        raise DamagedError(message, hint="pass --model-path")


def _case(entry: CaseRecipe, config: ModelConfig, where: str) -> Case:
    case = Case.from_recipe(msgspec.to_builtins(entry), entry.token_ids)
    if problem := case.problem(config):
        _fail(where, f"case {entry.name}: {problem}")
    return case


def _fail(where: str, problem: str) -> NoReturn:
    message = f"{where}: {problem}"
    raise DamagedError(message)
