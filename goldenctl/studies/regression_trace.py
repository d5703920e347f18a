"""A check of an engine of one's own: its program is traced in place of a replay."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from goldenctl.errors import UsageError
from goldenctl.folders import scratch
from goldenctl.golden.file import GoldenFile
from goldenctl.infini.find import find_install
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.studies.local import judge

PREFIX = "trace:"


def trace_engine(
    golden: GoldenFile,
    checkpoint: Checkpoint,
    run_path: Path,
    *,
    spec: str,
    infini_root: Path | None,
    timeout_s: float,
    notify: Callable[[str], None],
) -> None:
    """Run the program of ``trace:COMMAND`` and write what it computed as a run of ``golden``.

    Raises what tracing raises: a program that fails is a failure of the check.
    """
    from goldenctl.trace.run import TraceOptions, write_run
    from goldenctl.trace.session import Wanted, trace

    wanted = Wanted(
        command_of(spec, golden, checkpoint.folder), find_install(infini_root), None, timeout_s
    )
    with scratch() as logs:
        outcome = trace(wanted, checkpoint, Path(logs), notify, lambda *_: None)
        if outcome.error is not None:
            raise outcome.error
        options = TraceOptions(judge, book=outcome.book)
        write_run(golden, checkpoint.folder, outcome.logs, run_path, options=options)


def command_of(spec: str, golden: GoldenFile, folder: Path) -> list[str]:
    """Return the words of ``trace:COMMAND``; ``{model}`` in them is the checkpoint's folder,
    ``{tokens}`` the prompt of the golden's first case, with commas."""
    text = spec.removeprefix(PREFIX)
    try:
        words = shlex.split(text)
    except ValueError as error:
        message = f"--backend {spec}: no command line: {error}"
        raise UsageError(message) from error
    if not words:
        message = f"--backend {spec}: no program is named"
        raise UsageError(message, hint='such as "trace:./engine {model} --tokens {tokens}"')
    case = golden.recipe["cases"][0]["name"]
    tokens = ",".join(map(str, golden.map(f"cases/{case}/token_ids")[0].tolist()))
    return [w.replace("{model}", str(folder)).replace("{tokens}", tokens) for w in words]
