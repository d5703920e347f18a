"""Whether a fault that is put in changes anything: what an input cannot show proves nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from goldenctl.errors import UsageError
from goldenctl.folders import scratch
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.ops.faults import Context
from goldenctl.ops.inject import Injection, injected_into
from goldenctl.replay.backend import Backend
from goldenctl.replay.bind import choose_sublayers
from goldenctl.replay.options import Options
from goldenctl.replay.run import open_source, replay

_FAILED = "failed"


def refuse_without_effect(
    golden: GoldenFile, checkpoint_path: Path, *, backend: Backend, options: Options
) -> None:
    """Raise UsageError when a fault of ``options`` changes no bit of what the backend yields.

    Sublayers that it is put into are replayed with and without it: first one alone, then the
    others, so that as a rule little is computed twice.
    """
    if not options.faults:
        return
    open_source(golden, checkpoint_path, options)
    mode = "op" if golden.recipe["taps"] == "op" else "sublayer"
    tried = replace(options, mode=mode, repeat=1, shuffle=False, resume=False, debug=(), workers=1)

    def outputs(paths: list[str], faults: Iterable[Injection]) -> set[tuple[str, str]]:
        with scratch() as folder:
            run = Path(folder) / "run.h5"
            some = replace(tried, only=frozenset(paths), faults=tuple(faults))
            failed = replay(golden, checkpoint_path, run, backend=backend, options=some).failed
            tensors = open_golden(run).tensors.values()
            return {(t.name, t.digest) for t in tensors} | {(name, _FAILED) for name in failed}

    for injection in options.faults:
        others = [other for other in options.faults if other != injection]
        first, *rest = _hit(golden, injection, options)
        parts = [part for part in ([first], rest) if part]
        if not any(
            _may_differ(outputs(part, options.faults), outputs(part, others)) for part in parts
        ):
            msg = f"--inject {injection}: changes no bit of what it is put into, with this input"
            raise UsageError(msg, hint="record other or more tokens, or put it in elsewhere")


def _may_differ(with_fault: set[tuple[str, str]], without: set[tuple[str, str]]) -> bool:
    """Whether a replay was changed, or did not run to the end and so shows nothing."""
    return with_fault != without or any(what == _FAILED for _, what in with_fault)


def _hit(golden: GoldenFile, injection: Injection, options: Options) -> list[str]:
    """The paths of the sublayers that a fault is put into."""
    config, fused = golden.config, options.attention == "sdpa"
    return [
        path
        for path, sublayer in choose_sublayers(golden, config, options.layers, fused=fused).items()
        for context in [Context(config, sublayer)]
        if any(injected_into(path, sublayer, op, [injection], context) for op in sublayer.ops)
    ]
