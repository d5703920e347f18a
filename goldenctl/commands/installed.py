"""Checks of what is installed: packages are imported and programs are run.

Each in a process of its own with a time limit: what is broken or hangs ends only that process.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from goldenctl.errors import GoldenctlError, MissingError

TIMEOUT_S = 60.0
_IMPORT = "import importlib, sys; print(importlib.import_module(sys.argv[1]).__version__)"


@dataclass(frozen=True)
class Finding:
    """One check's result. ``ok`` is None for what is only worth knowing."""

    topic: str
    ok: bool | None
    found: str
    remedy: str = ""


def guarded(topic: str, check: Callable[[], str]) -> Finding:
    """Turn an error's message and hint into a finding."""
    try:
        return Finding(topic, True, check())
    except GoldenctlError as error:
        return Finding(topic, False, error.message, error.hint)
    except OSError as error:
        return Finding(topic, False, f"{error.filename or topic}: {error.strerror or error}")


def package(name: str, use: str) -> Finding:
    """Import a package of ``goldenctl[record]``. A lack is a note: not every machine records."""
    remedy = "run: pip install 'goldenctl[record]'"
    if importlib.util.find_spec(name) is None:
        return Finding(name, None, f"not installed, {use} needs it", remedy)

    def version() -> str:
        again = f"run: pip install --force-reinstall {name}"
        said = _answer([sys.executable, "-P", "-c", _IMPORT, name], "cannot be imported", again)
        return _new_enough(name, said.splitlines()[-1], remedy)

    return guarded(name, version)


def cmake() -> Finding:
    """Run CMake, which builds the harness and InfiniCore."""
    from goldenctl.infini.build import BUILD_HINT, tool

    def version() -> str:
        program = tool("cmake")
        if program is None:
            message = "not found, the harness is built with it"
            raise MissingError(message, hint=BUILD_HINT)
        said = _answer([program, "--version"], f"{program} cannot be run", BUILD_HINT)
        number = said.splitlines()[0].split()[-1]
        return f"{_new_enough('cmake', number, BUILD_HINT)}, {program}"

    return guarded("cmake", version)


def ninja() -> Finding:
    """Run Ninja, which CMake builds with; make does it as well."""
    from goldenctl.infini.build import BUILD_HINT, tool

    program = tool("ninja")
    if program is None and tool("make") is not None:
        return Finding("ninja", None, "not found, make builds in its place")

    def version() -> str:
        if program is None:
            message = "neither it nor make was found, the harness is built with one of them"
            raise MissingError(message, hint=BUILD_HINT)
        said = _answer([program, "--version"], f"{program} cannot be run", BUILD_HINT)
        return f"{said.splitlines()[0]}, {program}"

    return guarded("ninja", version)


def _answer(command: Sequence[str], failed: str, hint: str) -> str:
    """Return what a command printed; MissingError with the last line of its errors, and
    ``failed`` before it, where it printed nothing."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"{failed}: no answer within {TIMEOUT_S:g} s"
        raise MissingError(message, hint=hint) from error
    except OSError as error:
        message = f"{failed}: {error.strerror}"
        raise MissingError(message, hint=hint) from error
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout.strip()
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    message = f"{failed}: {last}"
    raise MissingError(message, hint=hint)


def _new_enough(name: str, version: str, hint: str) -> str:
    """Return the version; MissingError when it is below the one that goldenctl requires."""
    needed = _required(name)
    wanted = _numbers(needed)
    if _numbers(version)[: len(wanted)] >= wanted:
        return version
    message = f"version {version} is installed, {needed} or newer is needed"
    raise MissingError(message, hint=hint)


def _required(name: str) -> str:
    """The lowest version of a package that goldenctl's own metadata accepts; empty if any."""
    try:
        lines = importlib.metadata.requires("goldenctl") or []
    except importlib.metadata.PackageNotFoundError:  # a source tree on PYTHONPATH
        return ""
    found = (re.match(rf"{re.escape(name)}>=([0-9.]+)", line) for line in lines)
    return next((match[1] for match in found if match), "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
