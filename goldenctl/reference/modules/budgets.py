"""Budgets of a module's calls: the call again in a wider type, and its twins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from goldenctl.golden.calls import DRAWS
from goldenctl.reference.modules.subject import dtype_of
from goldenctl.reference.modules.values import Given, tensors_of
from goldenctl.reference.modules.watch import Call, Watch
from goldenctl.reference.modules.wide import WIDE, Wide, roundoff, run_wide
from goldenctl.reference.twins import TWINS, own_budget, twin_budget

_SEED = 20_26
CASTS = 16.0
"""From how many times its floor on the reference's own error cannot be rounding alone."""
QUANTISES = 64.0
"""From how many roundoffs on the floor of a module that rounds to whole numbers is due to that."""

Budgets = dict[str, Tensor]


@dataclass
class Held:
    """The budgets of a call by tap, ``[..., 4]``, and why they say little, if they do."""

    budgets: Budgets = field(default_factory=dict)
    unheld: str = ""


class Oracle:
    """Computes every call a second time from what it was given, in a wider type, and as twins.

    ``watch`` is told nothing of these.
    """

    def __init__(self, model: nn.Module, watch: Watch) -> None:
        self._narrow = getattr(torch, dtype_of(model))
        self._watch = watch
        self._open: list[Given] = []
        self._count = 0

    def before(self, given: Given) -> None:
        """Keep what a module is given, since it may change it."""
        self._open.append(given.mapped(lambda _path, tensor: tensor.clone(), objects=True))

    def after(self, call: Call, module: nn.Module, output: Any) -> Held:
        """Return the budgets of a call that is over."""
        given = self._open.pop()
        if not self._open:  # the model itself: what it is from its inputs is what the chain is
            return Held()
        recorded = dict(tensors_of(output, "output"))
        if not recorded:
            return Held()
        self._count += 1
        try:
            with self._watch.paused():
                passes, modes = self._passes(module, given)
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            return Held(unheld=f"cannot be computed in float64: {type(error).__name__}: {said}")
        return held(recorded, passes, modes)

    def _passes(
        self, module: nn.Module, given: Given
    ) -> tuple[list[dict[str, Tensor]], list[Wide]]:
        passes, modes = [], []
        for twin in range(1 + TWINS):
            mode = Wide(self._narrow, twin_noise(self._count, twin))
            passes.append(dict(tensors_of(run_wide(module, given, mode), "output")))
            modes.append(mode)
            if mode.random or (twin and mode.noisy <= 1):
                break
        return passes, modes


def twin_noise(number: int, twin: int) -> torch.Generator | None:
    """Return what a twin draws its noise from; None for the truth."""
    if not twin:
        return None
    return torch.Generator().manual_seed(_SEED + 1000 * number + twin)


def held(
    recorded: Mapping[str, Tensor], passes: list[dict[str, Tensor]], modes: list[Wide]
) -> Held:
    """Return what truth and twins say of the recorded results."""
    if drawn := drawn_in(modes):
        return Held(unheld=drawn)
    budgets = {}
    for path, tensor in recorded.items():
        found = [each.get(path) for each in passes]
        if any(each is None or each.shape != tensor.shape for each in found):
            return Held(unheld="yields other shapes in float64: a choice inside tips")
        values = [each for each in found if each is not None]
        budgets[path] = budget(tensor, values, modes[1].sigma if modes[1].noisy == 1 else None)
    return Held(budgets, doubt(recorded, budgets, modes))


def drawn_in(modes: list[Wide]) -> str:
    """Say that random numbers were drawn; empty where none were."""
    drawn = sorted(set().union(*(mode.random for mode in modes)))
    return f"{DRAWS} ({', '.join(drawn)})" if drawn else ""


def budget(recorded: Tensor, passes: list[Tensor], single: Tensor | None = None) -> Tensor:
    """Return l2, max, floor_l2, floor_max of every row of a result, ``[..., 4]`` float32.

    ``single`` is the noise of the one op that the module is, for which no twins are needed. Of
    integers: how many elements of a row are not those of the truth, and at most, of the twins.
    """
    rows = [each.reshape(1) if each.dim() == 0 else each for each in (recorded, *passes)]
    if not recorded.is_floating_point():
        other, *twins = (
            (rows[0] != each if n == 0 else rows[1] != each).sum(-1)
            for n, each in enumerate(rows[1:])
        )
        most = torch.stack(twins).amax(0)
        return torch.stack([other, other, most, most], dim=-1).float().cpu()
    exact, truth = rows[0].to(WIDE), rows[1].to(WIDE)
    sigma = truth.abs() * (roundoff(recorded.dtype) / 3**0.5)
    if single is not None and single.numel() == truth.numel():
        return own_budget(exact - truth, single.reshape(truth.shape)).float().cpu()
    own = own_budget(exact - truth, sigma)
    if len(rows) < 2 + TWINS:  # nothing rounds on the way
        return own.float().cpu()
    moved = torch.stack(rows[2:]).to(WIDE) - truth
    return twin_budget(exact - truth, moved, own).float().cpu()


def doubt(recorded: Mapping[str, Tensor], budgets: Budgets, modes: list[Wide]) -> str:
    """Say why budgets say little: a choice tips, a cast inside is to fewer bits, or the reference
    errs by more than rounding."""
    if tips := modes[0].tips(modes[1:]):
        return f"makes a choice that rounding tips ({', '.join(tips)})"
    if modes[0].narrowed:
        return f"casts to fewer bits inside ({', '.join(sorted(modes[0].narrowed))})"
    for path, value in budgets.items():
        if recorded[path].is_floating_point() and (
            said := _beyond(recorded[path], value, modes[0])
        ):
            return said
    return ""


def _beyond(recorded: Tensor, value: Tensor, mode: Wide) -> str:
    """Compare the reference's error, and what its twins do, with its type's rounding."""
    own, floor = value[..., 0], value[..., 2]
    finite = own.isfinite() & floor.isfinite()
    l2, expected = float(own[finite].norm()), float(floor[finite].norm())
    norm = float(recorded.double().nan_to_num(0.0, 0.0, 0.0).norm())
    if mode.discrete and expected > QUANTISES * roundoff(recorded.dtype) * norm:
        return f"rounds to whole numbers inside ({', '.join(sorted(mode.discrete))})"
    if l2 > CASTS * expected:
        times = f"{l2 / expected:.0f} times" if expected > 0 else "more than"
        return f"errs {times} what its type's rounding explains"
    return ""
