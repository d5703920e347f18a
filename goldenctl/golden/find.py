"""Finding a tensor of a golden or run by its full name, a report's name for it, or an ending."""

from __future__ import annotations

import re
from collections import Counter

from goldenctl.errors import UsageError
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.places import place

_LISTED_MATCHES = 4


class NoSuchTensor(UsageError, KeyError):  # noqa: N818 - a KeyError for those who use mappings
    """No tensor, or more than one, has this name."""


def find(golden: GoldenFile, wanted: str) -> TensorInfo:
    """Return the one tensor whose name is ``wanted`` or ends in it.

    ``layers/03/attention/q_rope``, ``layers.03.attention.q_rope`` and
    ``CASE/STEP: layers.03.attention.q_rope`` are all understood; links count as names. Raises
    NoSuchTensor when no name or more than one fits.
    """
    own = golden.aliases.get(wanted, wanted)
    if own in golden.tensors:
        return golden.tensors[own]
    ending = re.sub(r"^(\S+?)/(\d+):\s*", r"cases/\1/steps/\2/", wanted.strip("/"))
    names = [*golden.tensors, *golden.aliases]
    matches = [name for name in names if f"/{name}".endswith(f"/{ending}")]
    if not matches:
        dotted = f".{ending.replace('/', '.')}"
        matches = [name for name in names if f".{name.replace('/', '.')}".endswith(dotted)]
    if len(matches) == 1:
        return golden.info(matches[0])
    raise _unclear(golden, wanted, matches) if matches else _unknown(golden, wanted, names)


def _unknown(golden: GoldenFile, wanted: str, names: list[str]) -> NoSuchTensor:
    endings = sorted(Counter(place(name).tap for name in names))
    message = f"{golden.path}: no tensor's name ends in {wanted}"
    return NoSuchTensor(message, hint=f"names end in {', '.join(endings)}")


def _unclear(golden: GoldenFile, wanted: str, matches: list[str]) -> NoSuchTensor:
    more = ", ..." if len(matches) > _LISTED_MATCHES else ""
    some = ", ".join(matches[:_LISTED_MATCHES]) + more
    message = f"{golden.path}: {len(matches)} tensors end in {wanted}: {some}"
    return NoSuchTensor(message, hint="give more of the name")
