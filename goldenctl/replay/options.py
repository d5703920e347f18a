"""How a golden is replayed, and how each of it is asked for on the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from goldenctl.flags import flag
from goldenctl.golden.calls import MODULE
from goldenctl.golden.modes import MODES

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile
    from goldenctl.ops.inject import Injection


@dataclass(frozen=True)
class Options:
    """How a golden is replayed. ``mode`` is by default the golden's own (golden/composed.py),
    and so is the ``dtype`` None.

    With ``shuffle``, ``repeat`` counts rounds of passes instead of launches
    (replay/determinism.py). ``debug`` names sublayers whose plan is kept for a debugger, though
    they do not fail. ``only`` leaves out every sublayer but those with these paths, ``grafts``
    are taken from the golden. ``resume`` goes on from what an interrupted replay left, and
    leaves such a thing.
    """

    device: str = flag("cpu", "cpu, nvidia, ascend... or TYPE:N.", shown=True)
    mode: str = flag(
        "",
        "Where golden inputs are fed in: to each op and again to each sublayer, in one pass (the "
        "default where the golden has taps); to each sublayer; to each op; only to the first; or "
        "to each call of a module (the default of a golden of modules).",
        kind=(*MODES, MODULE),
    )
    dtype: str | None = flag(None, "Compute dtype; by default the golden's.", kind="dtype")
    layers: frozenset[int] | None = flag(
        None, "Only these decoder layers, such as 0-4,10.", kind="layers", metavar="LIST"
    )
    attention: str = flag(
        "eager",
        "Three ops, or one fused op where the backend has it.",
        kind=("eager", "sdpa"),
        shown=True,
    )
    compiled: bool = flag(
        False, "Of a golden of modules: compute with torch.compile.", name="--compile"
    )
    repeat: int = flag(
        1,
        "Timed launches per op; with --shuffle, rounds of passes.",
        least=1,
        most=1_000_000,
        shown=True,
    )
    shuffle: bool = flag(
        False,
        "Replay again in other orders and over other memory, and say what is not deterministic.",
    )
    workers: int = flag(
        1, "Replay sublayers in this many processes at once.", least=1, most=1024, shown=True
    )
    memory_bytes: int | None = flag(
        None,
        "Memory limit for all workers together, such as 4GiB.",
        name="--memory",
        kind="size",
        metavar="SIZE",
    )
    resume: bool = flag(False, "Continue where it was interrupted.")
    timeout_s: float = flag(
        600.0,
        "Timeout without backend output.",
        name="--timeout",
        kind="number",
        least=0.1,
        most=1e6,
        metavar="SECONDS",
        shown=True,
    )
    faults: tuple[Injection, ...] = flag(
        (),
        "Inject a fault, such as no_norm@layers.03.attention.q_norm, or cache_lost@PATH of one "
        "step (repeatable).",
        name="--inject",
        kind="fault",
        metavar="FAULT[@PLACE]",
        many=True,
    )
    debug: tuple[str, ...] = flag(
        (),
        "Print the command that runs this sublayer alone, for a debugger (repeatable).",
        metavar="SUBLAYER",
        many=True,
    )
    noise: float | None = flag(
        None, "Relative noise of the simulated backend.", kind="number", least=0.0
    )
    seed: int | None = flag(
        None, "Seed of --shuffle and of the simulated backend; 0 by default.", least=0
    )
    only: frozenset[str] | None = None
    grafts: frozenset[str] = frozenset()

    def for_golden(self, golden: GoldenFile) -> Options:
        """Return the options with the mode that this golden is replayed in."""
        from goldenctl.golden.composed import default_mode

        return replace(self, mode=self.mode or default_mode(golden.recipe))
