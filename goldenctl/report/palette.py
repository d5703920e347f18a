"""The colours of figures and page, light and dark, and the colour of a share.

Blue is within tolerance, orange is beyond: told apart with every common colour blindness, and
each wrong cell carries a mark besides. Figures name colours by class only.
"""

from __future__ import annotations

import math
import re

from goldenctl.records.report import NEUTRAL, WARN_SHARE, TensorResult

# name: (light, dark)
_COLOURS = {
    "paper": ("#ffffff", "#12161c"),
    "card": ("#f6f7f9", "#1a2029"),
    "line": ("#d5dae1", "#343d4a"),
    "ink": ("#1b2430", "#e6eaf0"),
    "soft": ("#566273", "#a3afbf"),
    "blue": ("#0b5cad", "#7cb8f2"),
    "orange": ("#b04a00", "#ffa454"),
    "l0": ("#e2ebf4", "#243345"),
    "l1": ("#c1d9ef", "#26496b"),
    "l2": ("#98c3e6", "#2b618f"),
    "l3": ("#5b9bd1", "#4688bf"),
    "l4": ("#1f66ac", "#84bbea"),
    "f1": ("#fbc98d", "#a8590f"),
    "f2": ("#f4943f", "#db7a1e"),
    "f3": ("#cc5a0a", "#ffa04a"),
    "f4": ("#7a2c00", "#ffdcb3"),
    "none": ("#ffffff", "#12161c"),
}
_ON_DARK = ("#ffffff", "#10151b")  # marks on cells of these colours
_FIGURES = """
.fig text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
fill:var(--soft)}
.fig .strong{fill:var(--ink);font-weight:600}
.fig .end{text-anchor:end}.fig .mid{text-anchor:middle}
.fig .axis{stroke:var(--line);fill:none}
.fig .guide{stroke:var(--soft);fill:none;stroke-dasharray:3 3}
.fig .a{stroke:var(--blue);fill:none;stroke-width:1.75}
.fig .b{stroke:var(--orange);fill:none;stroke-width:1.75}
.fig .ad{stroke:var(--blue);stroke-width:5;stroke-linecap:round;fill:none}
.fig .ag{stroke:var(--blue);stroke-width:4;stroke-linecap:round;fill:none;opacity:.55}
.fig .bd{fill:var(--orange);stroke:none}
.fig .bar{fill:var(--l3)}
.fig .x{stroke:var(--orange);stroke-width:2;fill:none}
.fig .cell{stroke:var(--paper);stroke-width:1}
.fig .none{stroke:var(--line);stroke-dasharray:2 2}
.fig .mark{stroke:var(--ink);stroke-width:1.75;fill:none;stroke-linecap:round}
.fig .on{stroke:var(--on)}
"""


def variables(dark: bool) -> str:
    """Return the CSS declarations of all colours of a theme."""
    found = "".join(f"--{name}:{pair[dark]};" for name, pair in _COLOURS.items())
    return f"{found}--on:{_ON_DARK[dark]};"


def figure_css() -> str:
    """Return the rules of figures, colours as variables: for a page, which sets them."""
    levels = "".join(
        f".fig .{name}{{fill:var(--{name})}}" for name in _COLOURS if name[1:].isdigit()
    )
    return f"{_FIGURES}{levels}.fig .none{{fill:var(--none)}}"


def resolved_css(dark: bool) -> str:
    """Return the rules of figures with the colours of one theme put in: for a picture."""
    colours = {name: pair[dark] for name, pair in _COLOURS.items()} | {"on": _ON_DARK[dark]}
    return re.sub(r"var\(--(\w+)\)", lambda match: colours[match[1]], figure_css())


def paper(dark: bool) -> str:
    """Return the colour of the background."""
    return _COLOURS["paper"][dark]


# (upper end of the share, class, words), in order.
LEVELS = (
    (0.0, "l0", "exact"),
    (0.25, "l1", "up to 25%"),
    (0.5, "l2", "up to 50%"),
    (WARN_SHARE, "l3", f"up to {WARN_SHARE:.0%}"),
    (1.0, "l4", "up to 100%"),
    (2.0, "f1", "up to 200%"),
    (10.0, "f2", "up to 1,000%"),
    (math.inf, "f3", "more"),
)
WORST_LEVEL = "f4"
"""The class of what has no number: not finite, crashed, missing."""


def level(share: float) -> str:
    """Return the class of a share of a tolerance."""
    if not math.isfinite(share):
        return WORST_LEVEL
    return next(name for upper, name, _ in LEVELS if share <= upper)


def tensor_level(tensor: TensorResult) -> str:
    """Return the class of a tensor; ``none`` where there was nothing to judge."""
    return "none" if tensor.state in NEUTRAL else level(tensor.share)
