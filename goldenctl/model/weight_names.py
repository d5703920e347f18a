"""What the names that a checkpoint stores its weights under mean: Hugging Face's own names.

The one home of the mapping: everything behind ``Checkpoint`` knows canonical names only.
transformers 5.24 itself takes weights without ``model.`` (as those of a base model are saved) and
ties in both directions; the prefixes that wrappers leave are taken where they are unambiguous.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from goldenctl.model.config import ModelConfig
from goldenctl.model.names import EMBEDDING, LM_HEAD, parameter_shapes

_BODY = "model."
_ROOTS = ("embed_tokens", "layers", "norm")
# What torch.compile, DDP, FSDP and activation checkpointing put in a name, anywhere in it.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_LAYER = re.compile(r"(?<=[a-z]\.)\d+(?=\.)")

Shapes = Mapping[str, tuple[int, ...]]


def canonical_names(stored: Shapes, config: ModelConfig) -> dict[str, str]:
    """Return the canonical name of each stored one that has another, by the stored one.

    A name that is canonical already keeps its meaning; two stored names never mean the same.
    """
    wanted = {name: shape for name, shape in parameter_shapes(config).items() if name not in stored}
    if not wanted and (LM_HEAD in stored or other_name(LM_HEAD) not in stored):
        return {}
    plain = _without_wrappers(stored)
    body = [name for name in parameter_shapes(config) if name.startswith(_BODY)]
    if any(name in plain.values() for name in body):
        prefix: str | None = _BODY
        renamed = _renamed_each(plain, wanted)
    else:
        prefix = _prefix(stored, plain, wanted)
        below = {name: _below(short, prefix) for name, short in plain.items()}
        renamed = {
            n: _BODY + rest for n, rest in below.items() if rest and _BODY + rest not in stored
        }
    taken = {*stored, *renamed.values()}
    head = _head(plain, prefix)
    if LM_HEAD not in taken and head is not None:
        renamed[head] = LM_HEAD
    if config.tie_word_embeddings and EMBEDDING not in {*stored, *renamed.values()}:
        # As in transformers: the embeddings are tied to the head where only that is stored.
        only = LM_HEAD if LM_HEAD in stored else head
        renamed |= {only: EMBEDDING} if only is not None else {}
    return {name: means for name, means in renamed.items() if name != means}


def other_name(name: str) -> str:
    """Return the second name that transformers 5.24 takes a parameter under; with both there, it
    takes the one that is first in the alphabet."""
    return f"{_BODY}{name}" if name == LM_HEAD else name.removeprefix(_BODY)


def is_known_to_transformers(stored: str, name: str) -> bool:
    """Whether transformers 5.24 itself takes a stored name for that parameter."""
    return stored in (other_name(name), other_name(LM_HEAD), LM_HEAD)


def _without_wrappers(stored: Iterable[str]) -> dict[str, str]:
    """Return each stored name without its wrappers' parts, but for those that become equal."""
    plain = {n: ".".join(p for p in n.split(".") if p not in _WRAPPERS) for n in stored}
    counts = Counter(plain.values())
    return {name: short if counts[short] == 1 else name for name, short in plain.items()}


def _renamed_each(plain: Mapping[str, str], wanted: Collection[str]) -> dict[str, str]:
    """Some names are canonical: of the others each is taken by itself, without its prefix."""
    renamed: dict[str, str] = {}
    for name, short in plain.items():
        means = short if short in wanted else f"{_BODY}{short}"
        if means in wanted and means not in renamed.values():
            renamed[name] = means
    return renamed


def _prefix(stored: Shapes, plain: Mapping[str, str], wanted: Shapes) -> str | None:
    """Return what stands before ``layers.0...`` and the like: that under which most of the
    wanted parameters are found, in their shape; None where no prefix or several do best."""
    found: Counter[str] = Counter()
    for name, short in plain.items():
        for prefix, rest in _splits(short):
            shape = wanted.get(f"{_BODY}{rest}")
            found[prefix] += shape is not None and shape == stored[name]
    best = [prefix for prefix, count in found.items() if count and count == max(found.values())]
    return best[0] if len(best) == 1 else None


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Yield every way to read a name as a prefix and something of a decoder's body."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part in _ROOTS:
            prefix = "".join(f"{p}." for p in parts[:index])
            yield prefix, ".".join(parts[index:])


def _below(name: str, prefix: str | None) -> str:
    """Return what follows the prefix when that is part of a decoder's body, else nothing."""
    if prefix is None or not name.startswith(prefix):
        return ""
    rest = name.removeprefix(prefix)
    return rest if rest.partition(".")[0] in _ROOTS else ""


def _head(plain: Mapping[str, str], prefix: str | None) -> str | None:
    """Return the one stored name of a head that stands at the prefix or above it."""
    parts = (prefix or "").split(".")[:-1]
    places = {"".join(f"{p}." for p in parts[:count]) + LM_HEAD for count in range(len(parts) + 1)}
    found = [name for name, short in plain.items() if short in {*places, LM_HEAD}]
    return found[0] if len(found) == 1 else None


def grouped(names: Iterable[str]) -> list[str]:
    """Return the names with those joined that differ in nothing but the layer's number."""
    layers: dict[str, list[int]] = {}
    for name in names:
        number = _LAYER.search(name)
        pattern = name if number is None else _LAYER.sub("{}", name, count=1)
        layers.setdefault(pattern, []).extend([] if number is None else [int(number[0])])
    return [p if not n else p.replace("{}", _ranges(sorted(n)), 1) for p, n in layers.items()]


def _ranges(numbers: list[int]) -> str:
    """Write [0, 1, 2, 5] as 0-2,5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
