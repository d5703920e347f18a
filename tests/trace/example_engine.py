"""The example engine of docs/examples/engine: built once, and run on token ids."""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from goldenctl.folders import cache_folder
from goldenctl.infini.build import Task, cmake_build, silent
from goldenctl.infini.find import Install, digest_files
from goldenctl.infini.place import log_beside, put, scratch_beside, sole_builder

SOURCES = Path(__file__).parents[2] / "docs" / "examples" / "engine"
MISTAKES: dict[str, str] = dict(
    re.findall(r'MISTAKE_ROW\((\w+), "(.*?)"\)', (SOURCES / "mistakes.h").read_text())
)
TOKENS = tuple(range(3, 300, 19))


def built(install: Install, mistake: str = "any") -> Path:
    """Return the engine with that mistake, or a choice of any, built where it is not yet."""
    parts = [digest_files(SOURCES, sorted(SOURCES.iterdir())), install.headers_digest]
    key = hashlib.sha256("\0".join([*parts, str(install.root), mistake]).encode()).hexdigest()
    folder = cache_folder() / "example-engine" / key[:20]
    with sole_builder(folder, silent):
        if not folder.exists():
            _build(folder, {"INFINI_ROOT": str(install.root), "MISTAKE": mistake})
    return folder / "engine"


def _build(folder: Path, defines: dict[str, str]) -> None:
    with log_beside(folder) as log, scratch_beside(folder) as scratch:
        task = Task("building the example engine", "see the log", log, silent)
        cmake_build(SOURCES, scratch / "build", {**defines, "CMAKE_BUILD_TYPE": "Debug"}, task)
        (scratch / "ready").mkdir()
        (scratch / "build" / "engine").rename(scratch / "ready" / "engine")
        put(scratch / "ready", folder)


@dataclass(frozen=True)
class Printed:
    """The tokens that the engine found, and the five highest logits of each step by token."""

    tokens: list[int]
    logits: list[dict[int, float]]


def words(model: Path, *options: str, tokens: tuple[int, ...] = TOKENS) -> list[str]:
    """Return the arguments that run the engine over a prompt of token ids."""
    return [str(model), "--tokens", ",".join(map(str, tokens)), *options]


def ran(engine: Path, model: Path, *options: str) -> Printed:
    command = [engine, *words(model, "-v", *options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    steps = [re.findall(r"(\d+): (\S+)", line) for line in done.stderr.splitlines()]
    logits = [{int(token): float(value) for token, value in step} for step in steps]
    return Printed([int(token) for token in done.stdout.split()], logits)
