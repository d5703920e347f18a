"""Fails every system call that writes as a full, broken or forbidden disk does, fills a real
small disk, and lets two processes write one name.

``python tests/integrity/disk.py [--only NAME] [--every N]`` ends with exit code 1 when a command
said it in more than one line, lost a file, or could not be run again.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forked import Ended, Injection, can_inject, run, warm_up
from kill import MOST_CALLS, Result
from scenarios import Scenario, leftovers, problems, scenarios

# What fails, and how: a disk that is full from then on, one that breaks, one forbidden.
FAILURES = (
    ("pwrite64", "error=ENOSPC", "{}+"),
    ("write", "error=ENOSPC", "{}"),
    ("ftruncate", "error=ENOSPC", "{}+"),
    ("mkdir", "error=EACCES", "{}+"),
    ("fsync", "error=EIO", "{}"),
    ("rename", "error=EACCES", "{}"),
    ("rename", "error=EROFS", "{}"),
)
KEPT = ".pull.part"  # a pull goes on from it
TRACEBACKS = ("Traceback", "internal error", "Exception ignored")


def said_well(ended: Ended) -> list[str]:
    """Return what is wrong with what a failed command said: one line, and an exit code."""
    lines = [line for line in ended.said.splitlines() if line.startswith("goldenctl: ")]
    found = [f"said {ended.said[-300:]!r}"] if any(t in ended.said for t in TRACEBACKS) else []
    if ended.code not in range(6):
        found.append(f"ended with {ended.code}")
    elif ended.code != 0 and len(lines) != 1:
        found.append(f"exit code {ended.code}, and {len(lines)} lines: {ended.said[-300:]!r}")
    return found


def judge(result: Result, how: str, scenario: Scenario, folder: Path, ended: Ended) -> None:
    """Note what the failed command said and left, then run it again."""
    found = said_well(ended)
    if ended.code != 0:
        found += [f"left {name}" for name in leftovers(folder) if not name.endswith(KEPT)]
    found += problems(scenario, folder)
    result.ends["refused" if ended.code else "unharmed"] += 1
    again = run(scenario.arguments, folder)
    if again.code != 0:
        found.append(f"cannot be run again: {again.said.strip()[-300:]}")
    result.bad += [f"{how}: {problem}" for problem in found + problems(scenario, folder)]


def fail_every_write(scenario: Scenario, folder: Path, *, every: int = 1) -> Result:
    """Fail each (``every``-th) call of each kind."""
    result = Result(f"{scenario.name}, every write fails")
    for call, action, pattern in FAILURES:
        for when in range(1, MOST_CALLS, every):
            injection = Injection(call, action, pattern.format(when))
            ended = run(scenario.arguments, scenario.fresh(folder), inject=injection)
            judge(result, f"{call} {action} {injection.when}", scenario, folder, ended)
            if ended.code == 0:
                break
    return result


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[bool]:
    """Mount a small tmpfs on ``folder``; False where that is not allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_disk(scenario: Scenario, folder: Path, *, steps: int) -> Result:
    """Run the command on a disk with less and less free space."""
    result = Result(f"{scenario.name}, full disk")
    size = sum(p.stat().st_size for p in scenario.start.rglob("*") if p.is_file())
    with mounted(folder, f"size={3 * size + (1 << 20)}") as allowed:
        for step in range(steps if allowed else 0):
            work = scenario.fresh(folder / "work")
            free = 2 * size * (steps - 1 - step) // max(steps - 1, 1) // 4096 * 4096
            ballast = _fill(folder, free)
            ended = run(scenario.arguments, work)
            found = [*said_well(ended), *problems(scenario, work)]
            ballast.unlink()
            result.ends["refused" if ended.code else "unharmed"] += 1
            result.bad += [f"{free} bytes free: {problem}" for problem in found]
            assert run(scenario.arguments, work).code == 0
    return result


def _fill(folder: Path, free_bytes: int) -> Path:
    """Fill the disk but for ``free_bytes``."""
    ballast = folder / "ballast"
    size = shutil.disk_usage(folder).free - free_bytes
    with ballast.open("wb") as file:
        file.write(bytes(max(size, 0)))
    return ballast


def read_only(scenario: Scenario, folder: Path) -> Result:
    """Run the command on a disk that is read-only."""
    result = Result(f"{scenario.name}, read-only disk")
    with mounted(folder, "size=64m") as allowed:
        if allowed:
            work = scenario.fresh(folder / "work")
            remount = ["mount", "-o", "remount,ro", str(folder)]
            subprocess.run(remount, check=True)
            ended = run(scenario.arguments, work)
            result.ends["refused" if ended.code else "unharmed"] += 1
            found = [*said_well(ended), *problems(scenario, work)]
            found += [] if ended.code == 2 else [f"exit code {ended.code}"]
            result.bad += found
    return result


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    warm_up()
    bad: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for scenario in scenarios(folder):
            if options.only and scenario.name != options.only:
                continue
            for measure in _measures(scenario, folder, options):
                started = time.monotonic()
                result = measure()
                sys.stdout.write(f"{result} ({time.monotonic() - started:.0f} s)\n")
                sys.stdout.writelines(f"  {line}\n" for line in result.bad[:20])
                sys.stdout.flush()
                bad[scenario.name] += len(result.bad)
    return 1 if bad.total() else 0


def _measures(
    scenario: Scenario, folder: Path, options: argparse.Namespace
) -> Iterator[Callable[[], Result]]:
    if can_inject():
        yield lambda: fail_every_write(scenario, folder / "work", every=options.every)
    yield lambda: fill_disk(scenario, folder / "disk", steps=options.steps)
    yield lambda: read_only(scenario, folder / "disk")


if __name__ == "__main__":
    raise SystemExit(main())
