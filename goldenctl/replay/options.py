"""How a golden is replayed, and how each of it is asked for on the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from goldenctl.flags import flag
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
        "Golden inputs for each op and again for each sublayer, in one pass (where the golden has "
        "taps, the default), for each sublayer, for each op, or only for the first.",
        kind=MODES,
    )
    dtype: str | None = flag(None, "Compute dtype; the golden's unless given.", kind="dtype")
    layers: frozenset[int] | None = flag(
        None, "Only these decoder layers, such as 0-4,10.", kind="layers", metavar="LIST"
    )
    attention: str = flag(
        "eager",
        "Three ops, or one fused op where the backend has it.",
        kind=("eager", "sdpa"),
        shown=True,
    )
    repeat: int = flag(
        1,
        "Timed launches of each op; with --shuffle, rounds of passes.",
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
        "What all workers may take, such as 4GiB.",
        name="--memory",
        kind="size",
        metavar="SIZE",
    )
    resume: bool = flag(False, "Go on where it was interrupted; keep what is done.")
    timeout_s: float = flag(
        600.0,
        "Longest silence of the backend.",
        name="--timeout",
        kind="number",
        least=0.1,
        most=1e6,
        metavar="SECONDS",
        shown=True,
    )
    faults: tuple[Injection, ...] = flag(
        (),
        "Put in a fault, such as no_norm@layers.03.attention.q_norm, or cache_lost@PATH of one "
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
        None, "Seed of --shuffle and of the simulated backend; 0 unless given.", least=0
    )
    only: frozenset[str] | None = None
    grafts: frozenset[str] = frozenset()

    def for_golden(self, golden: GoldenFile) -> Options:
        """Return the options with the mode that this golden is replayed in."""
        from goldenctl.golden.composed import default_mode

        return replace(self, mode=self.mode or default_mode(golden.recipe))
