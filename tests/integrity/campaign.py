"""Shows many variants of a file to a judge, each in a process of its own, and counts the ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from attempt import Ending, attempt
from mutate import Mutation

from goldenctl.errors import GoldenctlError

REFUSED, SAME, FOUND = "refused", "same", "found"
FINE = (REFUSED, SAME, FOUND)
LIMIT_S = 30.0
MEMORY_BYTES = 1 << 30
Judge = Callable[[Path], str]


@dataclass
class Tally:
    """How many variants ended how; ``bad`` keeps those that should not have."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_bytes: int = 0
    bad: list[tuple[str, Mutation]] = field(default_factory=list)

    def add(self, mutation: Mutation, ending: Ending, word: str, *, fine: bool) -> None:
        self.counts[word] += 1
        self.slowest_s = max(self.slowest_s, ending.seconds)
        self.peak_bytes = max(self.peak_bytes, ending.peak_bytes)
        if not fine:
            self.bad.append((ending.word, mutation))

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {word}" for word, count in self.counts.most_common())
        peak = f"peak {self.peak_bytes >> 20} MiB"
        return f"{self.counts.total()}: {counts}; slowest {self.slowest_s:.2f} s, {peak}"


def run(
    mutations: Iterable[Mutation], path: Path, judge: Judge, *, fine: Iterable[str] = FINE
) -> Tally:
    """Write each variant to ``path`` and judge it there; ``fine`` are the words that may be.

    The judge says SAME when the damage changed nothing that counts, FOUND when what is
    wrong was noticed without an error. A GoldenctlError is REFUSED, if it is one line that
    names the file.
    """
    tally, fine = Tally(), frozenset(fine)
    for mutation in mutations:
        path.write_bytes(mutation.data)
        ending = attempt(partial(judged, judge, path), limit_s=LIMIT_S, memory_bytes=MEMORY_BYTES)
        word = ending.word.split(" ")[0]
        tally.add(mutation, ending, word, fine=word in fine)
    return tally


def judged(judge: Judge, path: Path) -> str:
    """Return the judge's word, or what its error was like."""
    try:
        return judge(path)
    except GoldenctlError as error:
        line = str(error)
        return REFUSED if line.isprintable() and str(path) in line else f"unclear {line}"
    except Exception as error:
        return f"traceback {type(error).__name__}: {error}"
