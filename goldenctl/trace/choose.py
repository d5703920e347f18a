"""The part of a golden that a trace is asked for: some layers, some steps."""

from __future__ import annotations

import re
from dataclasses import replace

from goldenctl.errors import UsageError
from goldenctl.golden.file import GoldenFile
from goldenctl.places import layer_of, place, short_name, step_number


def parse_steps(text: str | None) -> frozenset[int] | None:
    """Parse ``0,2-4`` into numbers of steps; None stays None. Raises UsageError."""
    if text is None:
        return None
    steps: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            message = f"--steps {text}: {part!r} is not a step or range"
            raise UsageError(message, hint="0 is the prefill: try 0,2-4")
        steps.update(range(first, last + 1))
    return frozenset(steps)


def chosen_part(
    golden: GoldenFile, layers: frozenset[int] | None, steps: frozenset[int] | None
) -> GoldenFile:
    """Return a golden without the sublayers of other layers and steps; None is all of them.

    What belongs to no layer is kept only where all layers are. Raises UsageError when nothing is
    left.
    """
    kept = {
        path: info for path, info in golden.sublayers.items() if _is_chosen(path, layers, steps)
    }
    if not kept:
        message = f"{golden.path}: has nothing of the layers and steps that were chosen"
        raise UsageError(message)
    dropped = golden.sublayers.keys() - kept.keys()
    tensors = {
        name: info
        for name, info in golden.tensors.items()
        if info.role not in ("tap", "output") or place(name).group not in dropped
    }
    return replace(golden, tensors=tensors, sublayers=kept)


def _is_chosen(path: str, layers: frozenset[int] | None, steps: frozenset[int] | None) -> bool:
    in_layers = layers is None or layer_of(short_name(path)) in layers
    return in_layers and (steps is None or step_number(path) in steps)
