"""Which two files may be compared: a golden with its run, two goldens, two runs of one golden."""

from __future__ import annotations

from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden.file import GoldenFile
from goldenctl.records.structure import MODE


def check_pair(golden: GoldenFile, run: GoldenFile) -> None:
    """Raise UsageError or DamagedError unless the run is one of this golden, or of its like."""
    if golden.kind == run.kind == "run":
        return _check_runs(golden, run)
    if golden.kind != "golden":
        message = f"{golden.path}: expected a golden as the first file, got a {golden.kind} file"
        raise UsageError(message, hint="goldenctl diff GOLDEN RUN")
    recorded = run.recipe.get("golden") or {}
    if run.kind == "run" and recorded.get("content_digest") != golden.content_digest:
        message = f"{run.path}: was replayed from another golden ({recorded.get('path')})"
        raise DamagedError(message, hint=f"replay {golden.path} again")


def _check_runs(first: GoldenFile, second: GoldenFile) -> None:
    """Two runs are a pair when they were replayed from the same inputs."""
    origins = [(file.recipe.get("golden") or {}).get("content_digest") for file in (first, second)]
    if origins[0] != origins[1]:
        message = f"{second.path}: was replayed from another golden than {first.path}"
        raise DamagedError(message, hint="replay both from the same golden")
    modes = [file.recipe.get("mode") for file in (first, second)]
    if modes[0] != modes[1] and set(modes) != {"chain", MODE}:  # an engine is a chain
        message = f"{second.path}: was replayed in mode {modes[1]}, {first.path} in {modes[0]}"
        raise UsageError(message, hint="replay both in the same mode")
    if any(case.get("padding") for case in first.recipe.get("cases") or ()):
        message = f"{first.path}: a run does not tell which rows are padding"
        raise UsageError(message, hint="diff each run with the golden")
