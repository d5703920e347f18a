"""Kills commands at random moments and at every system call that writes.

``python tests/integrity/kill.py [--random N] [--only NAME]`` ends with exit code 1 when a half
file was ever visible, an older one was harmed, or the command could not be run again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forked import WRITES, Ended, Injection, can_inject, moments, run, warm_up
from scenarios import Scenario, leftovers, problems, scenarios

MOST_CALLS = 400  # of one kind in one command


@dataclass
class Result:
    """What killing one command came to. ``left`` counts temporary files after the kill and
    after the command was run again."""

    name: str
    ends: Counter[str] = field(default_factory=Counter)
    left: int = 0
    left_after: int = 0
    bad: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {word}" for word, count in sorted(self.ends.items()))
        return (
            f"{self.name}: {self.ends.total()} runs ({ends}), {self.left} temporary files left, "
            f"{self.left_after} after the next run, {len(self.bad)} bad"
        )

    def judge(self, how: str, scenario: Scenario, folder: Path, ended: Ended) -> None:
        """Check the folder, run the command again, and check again."""
        self.ends["killed" if ended.killed else "ended by itself"] += 1
        self.left += len(leftovers(folder))
        found = problems(scenario, folder)
        again = run(scenario.arguments, folder)
        if again.code != 0:
            found.append(f"cannot be run again: {again.said.strip()[-300:]}")
        found += problems(scenario, folder)
        self.left_after += len(leftovers(folder))
        self.bad += [f"{how}: {problem}" for problem in found]


def kill_at_random(scenario: Scenario, folder: Path, *, count: int, seed: int) -> Result:
    """Kill the command ``count`` times, at moments spread over what it takes unharmed; it is
    run up to twice as often, since some runs end before their moment comes."""
    result = Result(scenario.name)
    unharmed = [run(scenario.arguments, scenario.fresh(folder)) for _ in range(min(3, count))]
    assert all(ended.code == 0 for ended in unharmed), unharmed[0]
    taken = statistics.median(ended.seconds for ended in unharmed)
    for moment in moments(taken, 2 * count, seed=seed):
        if result.ends["killed"] == count:
            break
        ended = run(scenario.arguments, scenario.fresh(folder), kill_after_s=moment)
        result.judge(f"after {moment:.3f} s", scenario, folder, ended)
    return result


def kill_at_every_write(
    scenario: Scenario, folder: Path, *, every: int = 1, calls: Sequence[str] = WRITES
) -> Result:
    """Kill the command at each (``every``-th) call of each kind that writes."""
    result = Result(f"{scenario.name}, at every write")
    for call in calls:
        for when in range(1, MOST_CALLS, every):
            injection = Injection(call, "signal=KILL", str(when))
            ended = run(scenario.arguments, scenario.fresh(folder), inject=injection)
            result.judge(f"{call} {when}", scenario, folder, ended)
            if not ended.killed:
                break
    return result


def _results(
    scenario: Scenario, work: Path, options: argparse.Namespace
) -> Iterator[tuple[Result, float]]:
    started = time.monotonic()
    if options.random:
        result = kill_at_random(scenario, work, count=options.random, seed=options.seed)
        yield result, time.monotonic() - started
    started = time.monotonic()
    if can_inject() and not options.no_writes:
        yield (
            kill_at_every_write(scenario, work, every=options.every, calls=options.calls),
            time.monotonic() - started,
        )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--random", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--calls", nargs="*", default=WRITES)
    parser.add_argument("--only", default="")
    parser.add_argument("--no-writes", action="store_true")
    options = parser.parse_args()
    warm_up()
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for scenario in scenarios(folder):
            if options.only and scenario.name != options.only:
                continue
            for result, seconds in _results(scenario, folder / "work", options):
                sys.stdout.write(f"{result} ({seconds:.0f} s)\n")
                sys.stdout.writelines(f"  {line}\n" for line in result.bad[:20])
                sys.stdout.flush()
                bad += len(result.bad)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
