"""Where a model comes from: a folder, a GGUF file, or ``synth:PRESET?seed=N`` made on demand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from goldenctl.errors import UsageError
from goldenctl.folders import cache_folder, made_once

SYNTH = "synth:"
_SYNTH = re.compile(r"synth:([a-z0-9][a-z0-9.-]*)(?:\?seed=([0-9]{1,9}))?")


@dataclass(frozen=True)
class SynthSource:
    """A random checkpoint, by what it is made from; the same bits on every machine."""

    preset: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{SYNTH}{self.preset}?seed={self.seed}"


def parse_synth(text: str) -> SynthSource | None:
    """Return the source of a random checkpoint; None when ``text`` is a folder.

    Raises UsageError for ``synth:`` with anything else than a preset and a seed after it.
    """
    if not text.startswith(SYNTH):
        return None
    match = _SYNTH.fullmatch(text)
    if match is None:
        message = f"{text}: expected synth:PRESET?seed=N"
        raise UsageError(message, hint="such as synth:tiny?seed=0")
    return SynthSource(match[1], int(match[2] or 0))


def canonical(text: str) -> str:
    """Return a source as a recipe keeps it: the seed spelled out, a folder as it is."""
    return str(parse_synth(text) or text)


def checkpoint_folder(
    source: str | Path, *, notify: Callable[[str], None] = lambda _: None
) -> Path:
    """Return the folder of a source: a random checkpoint, and what a quantised one is in float32,
    are made in the cache when they are not there.

    Raises UsageError for an unknown preset, a scheme that is not supported, and a cache that
    cannot be written; DamagedError and MissingError as ``dequantised`` and ``gguf_folder`` do.
    """
    wanted = parse_synth(str(source))
    if wanted is None:
        return _floats(Path(source), notify)
    from goldenctl.model.synth import SYNTH_VERSION, synth

    folder = synth_cache() / f"{wanted.preset}-{wanted.seed}-{SYNTH_VERSION}"

    def make() -> None:
        notify(f"making {wanted} in {folder}")
        synth(wanted.preset, folder, wanted.seed)

    return made_once(folder, str(wanted), make)


def _floats(path: Path, notify: Callable[[str], None]) -> Path:
    if path.suffix == ".gguf":
        from goldenctl.model.gguf_folder import gguf_folder

        return gguf_folder(path, notify)
    from goldenctl.model.quantised import dequantised

    return dequantised(path, notify)


def synth_cache() -> Path:
    """Return where random checkpoints are kept."""
    return cache_folder() / "synth"
