"""``goldenctl doctor``: check everything that a replay needs, each with its remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from goldenctl.commands.options import PATH, human_bytes
from goldenctl.errors import EXIT_MISSING, GoldenctlError, printable

_MIN_PYTHON = (3, 11)
_LOW_DISK_BYTES = 2 << 30
_LOW_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True)
class Finding:
    """One check's result. ``ok`` is None for what is only worth knowing."""

    topic: str
    ok: bool | None
    found: str
    remedy: str = ""


@click.command("doctor", short_help="Check what this machine has")
@click.option("--model-path", type=PATH, help="Also check this checkpoint.")
@click.option("--infini-root", type=PATH, help="InfiniCore's install folder.")
def doctor_command(model_path: Path | None, infini_root: Path | None) -> int:
    """Check what record, replay and diff need on this machine, with a remedy for each lack.

    Ends with exit code 3 when something is missing.
    """
    findings = list(_check(model_path, infini_root))
    for finding in findings:
        mark = {True: "✓", False: "✗", None: "·"}[finding.ok]
        click.echo(printable(f"{mark} {finding.topic}: {finding.found}"))
        if finding.remedy:
            click.echo(printable(f"    {finding.remedy}"))
    lacking = sum(finding.ok is False for finding in findings)
    click.echo(f"{lacking} of {len(findings)} checks failed" if lacking else "all is in place")
    return EXIT_MISSING if lacking else 0


def _check(model_path: Path | None, infini_root: Path | None) -> Iterator[Finding]:
    yield _python()
    for module, use, remedy in (
        ("torch", "record and --backend torch", "pip install 'goldenctl[record]'"),
        ("tokenizers", "record --prompt", "pip install 'goldenctl[record]'"),
    ):
        yield _package(module, use, remedy)
    yield _hdf5()
    yield _diff_kernel()
    for names, use, remedy in (
        (("c++", "g++", "clang++"), "the harness", "apt-get install g++"),
        (("cmake",), "the harness", "pip install 'goldenctl[build]'"),
    ):
        yield _program(names, use, remedy)
    yield from _infinicore(infini_root)
    yield _space("disk", shutil.disk_usage(Path.cwd()).free, _LOW_DISK_BYTES)
    yield _space("memory", _free_memory_bytes(), _LOW_MEMORY_BYTES)
    if model_path is not None:
        yield _guarded("checkpoint", lambda: _checkpoint(model_path))


def _python() -> Finding:
    ok = sys.version_info >= _MIN_PYTHON
    return Finding("python", ok, platform.python_version(), "" if ok else "needs 3.11 or newer")


def _package(module: str, use: str, remedy: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(module, False, f"not installed, {use} needs it", f"run: {remedy}")
    return Finding(module, True, importlib.metadata.version(module))


def _hdf5() -> Finding:
    import h5py

    return Finding("h5py", True, f"{h5py.__version__}, HDF5 {h5py.version.hdf5_version}")


def _diff_kernel() -> Finding:
    from goldenctl.diff.metrics import compiled

    if compiled():
        return Finding("diff kernel", True, "compiled")
    remedy = "slower, with the same numbers; reinstall where there is a C compiler"
    return Finding("diff kernel", None, "NumPy", remedy)


def _program(names: tuple[str, ...], use: str, remedy: str) -> Finding:
    beside_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = next(filter(None, (shutil.which(name, path=beside_python) for name in names)), None)
    if found is None:
        return Finding(names[0], False, f"not found, {use} is built with it", f"run: {remedy}")
    return Finding(names[0], True, found)


def _infinicore(root: Path | None) -> Iterator[Finding]:
    from goldenctl.infini.find import find_install
    from goldenctl.infini.harness import build_harness, devices

    def install() -> str:
        found = find_install(root)
        return f"{found.root} ({found.source}), version {found.version or 'unknown'}"

    def harness() -> str:
        return str(build_harness(find_install(root)))

    def count() -> str:
        listed = devices(find_install(root))
        return ", ".join(f"{n} {kind}" for kind, n in listed.counts.items() if n) or "none"

    for topic, check in (("InfiniCore", install), ("harness", harness), ("devices", count)):
        finding = _guarded(topic, check)
        yield finding
        if finding.ok is False:
            return


def _space(topic: str, free_bytes: int, low_bytes: int) -> Finding:
    low = free_bytes < low_bytes
    remedy = "little for a large model: record fewer layers, or --taps sublayer" if low else ""
    return Finding(topic, None if low else True, f"{human_bytes(free_bytes)} free", remedy)


def _free_memory_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _checkpoint(folder: Path) -> str:
    from goldenctl.model.checkpoint import Checkpoint
    from goldenctl.model.config import load_config

    config = load_config(folder)
    Checkpoint.open(folder).check_against(config)
    return f"{config.model_type}, {config.num_hidden_layers} layers, {config.dtype}"


def _guarded(topic: str, check: Callable[[], str]) -> Finding:
    """Turn an error's message and hint into a finding."""
    try:
        return Finding(topic, True, check())
    except GoldenctlError as error:
        return Finding(topic, False, error.message, error.hint)
