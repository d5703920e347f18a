"""Whether a checkpoint's tensors are the parameters of its config's model, and what is not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from goldenctl.errors import DamagedError, GoldenctlError, UsageError
from goldenctl.model.config import ModelConfig
from goldenctl.model.names import LM_HEAD, parameter_shapes
from goldenctl.model.safetensors_header import DTYPE_OF_TAG, Entry
from goldenctl.model.weight_names import grouped

LISTED = 3
# A layer's tensors, but for the frequencies that older checkpoints hold and nothing reads.
_OF_LAYER = re.compile(r"model\.layers\.(?!\d+\.self_attn\.rotary_emb\.inv_freq$)")
_ADAPTER = re.compile(r"\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\b")


@dataclass(frozen=True)
class Fit:
    """What a checkpoint lacks, has in another shape or in a dtype that is not supported, each
    in words, and the names of what is there that the model does not have."""

    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    unsupported: tuple[str, ...]
    unread: tuple[str, ...]


def of_layers(unread: Iterable[str]) -> tuple[str, ...]:
    """Return those that look like a part of a layer: the config may be another model's."""
    return tuple(name for name in unread if _OF_LAYER.match(name))


def fit(entries: Mapping[str, Entry], config: ModelConfig, read: Iterable[str] | None) -> Fit:
    """Hold the tensors against the parameters of ``config``; only those in ``read``, if it is
    given, have to be there."""
    expected = parameter_shapes(config)
    needed = expected if read is None else {n: s for n, s in expected.items() if n in set(read)}
    missing, misshapen, unsupported = [], [], []
    for name, shape in needed.items():
        entry = entries.get(name)
        if entry is None:
            missing.append(f"{name} {list(shape)} is missing")
        elif entry.shape != shape:
            misshapen.append(f"{name} is {list(entry.shape)}, expected {list(shape)}")
        elif entry.tag not in DTYPE_OF_TAG:
            unsupported.append(f"{name} has dtype {entry.tag}, which is not supported")
    unread = [name for name in entries if name not in expected]
    return Fit(tuple(missing), tuple(misshapen), tuple(unsupported), tuple(unread))


def misfit(found: Fit, where: str, *, verbose: bool) -> GoldenctlError | None:
    """Return the error that says all that does not fit at once, or None when everything does."""
    problems = [*grouped(found.missing), *grouped(found.misshapen), *grouped(found.unsupported)]
    adapter = [name for name in found.unread if _ADAPTER.search(name)]
    if adapter and not problems:
        problems = [f"{name} is an adapter's" for name in grouped(adapter)]
    if not problems:
        return None
    limit = None if verbose else LISTED
    message = f"{where}: the weights do not fit config.json: {listed(problems, limit, sep='; ')}"
    others = grouped(found.unread)
    if found.missing and others:
        message += f"; names that are there: {listed(others, limit)}"
    hint = _hint(found, adapter)
    if not verbose and max(len(problems), len(others)) > LISTED:
        hint = f"{hint}; -v lists them all" if hint else "-v lists them all"
    only_unsupported = not (found.missing or found.misshapen)
    return (UsageError if only_unsupported else DamagedError)(message, hint=hint)


def _hint(found: Fit, adapter: Sequence[str]) -> str:
    if adapter:
        return "merge the adapter into the weights first"
    problems = (*found.missing, *found.misshapen, *found.unsupported)
    if len(problems) == 1 and problems[0].startswith(LM_HEAD) and found.missing:
        return "--logits none needs no head; tie_word_embeddings true makes the embeddings one"
    if found.unsupported and len(found.unsupported) == len(problems):
        return f"supported are {', '.join(DTYPE_OF_TAG.values())}"
    return ""


def listed(names: Sequence[str], limit: int | None = LISTED, *, sep: str = ", ") -> str:
    """Join names, at most ``limit``, and say how many more there are."""
    if limit is None or len(names) <= limit:
        return sep.join(names)
    more = f"and {len(names) - limit} more"
    return f"{sep.join(names[:limit])}{'; ' if sep == '; ' else ' '}{more}"
