"""``goldenctl doctor``: check everything that a replay needs, each with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from goldenctl.commands.installed import Finding, cmake, guarded, ninja, package
from goldenctl.commands.options import PATH, human_bytes, model_folder, plural
from goldenctl.errors import EXIT_MISSING, GoldenctlError, MissingError, printable

_MIN_PYTHON = (3, 11)
_LOW_DISK_BYTES = 2 << 30
_LOW_MEMORY_BYTES = 2 << 30


@click.command("doctor", short_help="Check what this machine has")
@click.option("--model-path", type=PATH, help="Also check this checkpoint.")
@click.option("--infini-root", type=PATH, help="InfiniCore's install folder.")
def doctor_command(model_path: Path | None, infini_root: Path | None) -> int:
    """Check what record, replay and diff need on this machine, and say how to fix each problem.

    What only some commands need, such as torch for record, is a note.
    Ends with exit code 3 when something is missing or broken.
    """
    findings = []
    for finding in _check(model_path, infini_root):
        findings.append(finding)
        mark = {True: "✓", False: "✗", None: "·"}[finding.ok]
        click.echo(printable(f"{mark} {finding.topic}: {finding.found}"))
        if finding.remedy:
            click.echo(printable(f"    {finding.remedy}"))
    click.echo(_summary(findings))
    return EXIT_MISSING if any(finding.ok is False for finding in findings) else 0


def _summary(findings: list[Finding]) -> str:
    lacking = sum(finding.ok is False for finding in findings)
    notes = sum(finding.ok is None for finding in findings)
    if lacking:
        return f"{lacking} of {len(findings)} checks failed"
    return f"no check failed, {plural(notes, 'note')}" if notes else "all is in place"


def _check(model_path: Path | None, infini_root: Path | None) -> Iterator[Finding]:
    from goldenctl.folders import writable_harness_cache
    from goldenctl.infini.build import compiler

    yield _python()
    for name, use in (
        ("torch", "record and --backend torch"),
        ("safetensors", "record"),
        ("tokenizers", "record with a text"),
    ):
        yield package(name, use)
    yield _hdf5()
    yield _diff_kernel()
    yield guarded("c++", compiler)
    yield cmake()
    yield ninja()
    yield guarded("cache", lambda: str(writable_harness_cache()))
    yield from _infinicore(infini_root)
    yield _space("disk", shutil.disk_usage(Path.cwd()).free, _LOW_DISK_BYTES)
    yield _space("memory", _free_memory_bytes(), _LOW_MEMORY_BYTES)
    if model_path is not None:
        yield from _checkpoint(model_path)


def _python() -> Finding:
    ok = sys.version_info >= _MIN_PYTHON
    return Finding("python", ok, platform.python_version(), "" if ok else "needs 3.11 or newer")


def _hdf5() -> Finding:
    import h5py

    return Finding("h5py", True, f"{h5py.__version__}, HDF5 {h5py.version.hdf5_version}")


def _diff_kernel() -> Finding:
    from goldenctl.diff.metrics import compiled

    if compiled():
        return Finding("diff kernel", True, "compiled")
    remedy = "slower, with the same numbers; reinstall where there is a C compiler"
    return Finding("diff kernel", None, "NumPy", remedy)


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
        finding = guarded(topic, check)
        yield finding
        if finding.ok is False:
            return


def _space(topic: str, free_bytes: int, low_bytes: int) -> Finding:
    low = free_bytes < low_bytes
    remedy = "little for a large model: record fewer layers, or --taps sublayer" if low else ""
    return Finding(topic, None if low else True, f"{human_bytes(free_bytes)} free", remedy)


def _free_memory_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _checkpoint(source: Path) -> Iterator[Finding]:
    from goldenctl.model.checkpoint import Checkpoint

    def model() -> str:
        folder = model_folder(source)
        checkpoint = Checkpoint.open(folder)
        config = checkpoint.config
        checkpoint.check_against(config)
        return f"{config.model_type}, {config.num_hidden_layers} layers, {config.dtype}"

    finding = guarded("checkpoint", model)
    yield finding
    if finding.ok:
        yield _tokenizer(model_folder(source))


def _tokenizer(folder: Path) -> Finding:
    """Encode the text that record takes without an input option; a lack is a note, as ids do."""
    from goldenctl.model.config import load_config
    from goldenctl.model.inputs import Inputs
    from goldenctl.model.tokens import DEFAULT_PROMPT, make_cases

    try:
        (case,) = make_cases(Inputs(), folder, load_config(folder))
    except MissingError as error:
        return Finding("tokenizer", None, error.message, error.hint)
    except GoldenctlError as error:
        return Finding("tokenizer", False, error.message, "record with --token-ids 1,2,3 works")
    return Finding("tokenizer", True, f"{DEFAULT_PROMPT!r} is {case.length} tokens")
