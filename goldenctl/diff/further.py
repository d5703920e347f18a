"""What a tensor is held to beside its tolerance: exact facts, and errors that go one way."""

from __future__ import annotations

from dataclasses import dataclass

from goldenctl.diff.bias import measure_bias
from goldenctl.diff.facts import OPS, Broken, broken_fact
from goldenctl.diff.padding import Padding
from goldenctl.diff.sums import RowErrors
from goldenctl.dtypes import DTYPES
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import decoder, recorded_path
from goldenctl.places import layer_of
from goldenctl.records.policy import Check

_EXACT = ("embedding", "copy")
# The checks that are made here, beside those of limits.
NOT_OF_TOLERANCE = ("masked", "probability", "sum", "exact", "bias")


@dataclass(frozen=True)
class Sides:
    """A tensor of a golden and what a run has of it."""

    golden: GoldenFile
    run: GoldenFile
    info: TensorInfo
    actual: TensorInfo


@dataclass(frozen=True)
class Further:
    """Checks that failed, the sentence that says how, and what is odd but no failure."""

    checks: tuple[Check, ...] = ()
    message: str = ""
    note: str = ""


def further_checks(
    sides: Sides, rows: RowErrors | None, padding: Padding, *, scope: str
) -> Further:
    """Hold a tensor to what is exact, and measure its bias where all of it is the op's own."""
    info = sides.info
    checks = []
    broken = _broken(sides, padding)
    if broken is not None:
        checks.append(broken.check)
    bias = None
    if rows is not None and scope == "op" and info.op not in _EXACT:
        eps = max(DTYPES[side.dtype].eps for side in (info, sides.actual))
        bias = measure_bias(rows, eps)
    failed = bias.check(info.op) if bias is not None else None
    if failed is not None:
        checks.append(failed)
    message = broken.message if broken else bias.note if bias and failed else ""
    return Further(tuple(checks), message, bias.note if bias and not failed else "")


def _broken(sides: Sides, padding: Padding) -> Broken | None:
    if sides.info.op not in OPS:
        return None
    folder = sides.info.place.group
    mask = recorded_path(folder, "attention_mask")
    keys = sides.golden.map(mask) != 0 if mask in sides.golden.tensors else None
    values = sides.run.map(sides.actual.name), sides.golden.map(sides.info.name)
    if _is_scaled(sides):
        return None
    window = _window(sides)
    return broken_fact(sides.info.op, *values, rows=padding.rows, keys=keys, window=window)


def _is_scaled(sides: Sides) -> bool:
    """Whether a lookup in another type is scaled there: what it rounds is not the golden's."""
    if sides.info.op != "embedding" or sides.actual.dtype == sides.info.dtype:
        return False
    config = _config(sides)
    embedding = next(decoder(config, logits="none")) if config is not None else None
    return embedding is not None and "scale" in embedding.ops[0].attrs


def _window(sides: Sides) -> int:
    """How many tokens a query of this tensor's layer sees; 0 for all."""
    layer, config = layer_of(sides.info.sublayer), _config(sides)
    return 0 if layer is None or config is None else config.window(layer)


def _config(sides: Sides) -> ModelConfig | None:
    """The model's config; None in a golden of tensors that no model of ours made."""
    known = "config" in (sides.golden.recipe.get("model") or {})
    return sides.golden.config if known else None
