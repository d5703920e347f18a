"""Owns the running of a plan by a backend's program: its events, crashes, hangs and errors."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from goldenctl.errors import DamagedError, GoldenctlError, MissingError
from goldenctl.replay.plan import Plan, write_plan

STDERR_LINES = 12
_EXIT_DAMAGED = 4
_MAX_LINE_BYTES = 1 << 20
# Receives (index of the sublayer just finished, its name).
Progress = Callable[[int, str], None]


@dataclass
class Outcome:
    """What became of one sublayer: nanoseconds by tap, or why it failed.

    ``failure`` has ``reason``, ``message`` and, where known, ``tap`` and ``stderr``.
    """

    ns: int = 0
    op_ns: dict[str, int] = field(default_factory=dict)
    failure: dict[str, Any] | None = None


@dataclass
class Execution:
    """A whole plan's outcomes, by sublayer index, and what the program said of itself."""

    program: str = ""
    quirks: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


class _ProtocolError(Exception):
    """The program printed what the protocol does not allow."""


class _CannotRestartError(Exception):
    """After a failed sublayer the program does not start any more."""


def execute(
    command: Sequence[str], plan: Plan, *, timeout_s: float, progress: Progress = lambda *_: None
) -> Execution:
    """Run every sublayer of a plan.

    A sublayer in which the program crashes, hangs for ``timeout_s`` without an event,
    breaks the protocol or reports an error is marked failed, and the rest goes on in a new
    process; with ``stop_on_failure``, or when the program does not start again, the rest is
    marked ``not_run``. Raises MissingError or DamagedError when the program cannot start on
    this plan at all.
    """
    execution = Execution()
    why = "an earlier sublayer of the chain failed"
    with tempfile.TemporaryDirectory(prefix="goldenctl-") as folder:
        path = Path(folder) / "plan.json"
        write_plan(plan, path)
        while len(execution.outcomes) < len(plan.sublayers):
            try:
                _Process(command, plan, path, execution, progress).run(timeout_s)
            except _CannotRestartError as error:
                why = f"the backend did not start again: {error}"
                break
            failed = any(outcome.failure for outcome in execution.outcomes)
            if failed and plan.stop_on_failure:
                break
    rest = len(plan.sublayers) - len(execution.outcomes)
    not_run = {"reason": "not_run", "message": why}
    execution.outcomes += [Outcome(failure=dict(not_run)) for _ in range(rest)]
    return execution


class _Process:
    """One run of the program, from the first sublayer without an outcome on."""

    def __init__(
        self,
        command: Sequence[str],
        plan: Plan,
        plan_path: Path,
        execution: Execution,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._execution = execution
        self._progress = progress
        self._first = len(execution.outcomes)
        self._command = [*command, str(plan_path), "--skip", str(self._first)]
        self._ready = False
        self._tap = ""
        self._op_ns: dict[str, int] = {}

    def run(self, timeout_s: float) -> None:
        with tempfile.TemporaryFile() as stderr:
            try:
                process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr
                )
            except OSError as error:
                message = f"{self._command[0]}: cannot be run: {error.strerror}"
                raise MissingError(message) from error
            failure: dict[str, str] | None = None
            with process:
                try:
                    if not self._read(process, timeout_s):
                        message = f"no sign of life for {timeout_s:g} s"
                        failure = {"reason": "hang", "message": message}
                except _ProtocolError as error:
                    failure = {"reason": "protocol", "message": str(error)}
                finally:
                    process.kill()
                status = process.wait()
            if failure or len(self._execution.outcomes) < len(self._plan.sublayers):
                failure = failure or {"reason": "crash", "message": _ending(status)}
                self._ended_early(failure, status, _tail(stderr))

    def _read(self, process: subprocess.Popen[bytes], timeout_s: float) -> bool:
        """Handle events until the program closes its output; False when it hangs."""
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        pending = b""
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return False
                data = os.read(descriptor, 1 << 16)
                if not data:
                    return _exits(process, timeout_s)
                *lines, pending = (pending + data).split(b"\n")
                if len(pending) > _MAX_LINE_BYTES:
                    raise _expected_event(pending)
                for line in lines:
                    try:
                        self._handle(_event(line))
                    except (TypeError, ValueError, OverflowError) as error:
                        raise _expected_event(line) from error
                    deadline = time.monotonic() + timeout_s

    def _handle(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        index = len(self._execution.outcomes)
        if event.get("sublayer", index) != index:
            message = f"{kind} of sublayer {event['sublayer']}, expected {index}"
            raise _ProtocolError(message[:200])
        if kind == "ready":
            self._ready = True
            self._execution.program = str(event.get("program", ""))
            self._execution.quirks = [str(quirk) for quirk in event.get("quirks", [])]
        elif kind == "op_start":
            self._tap = str(event.get("tap", ""))
        elif kind == "op_done":
            tap = str(event.get("tap", ""))
            self._op_ns[tap] = self._op_ns.get(tap, 0) + int(event.get("ns", 0))
        elif kind == "sublayer_done":
            self._finish(Outcome(int(event.get("ns", 0)), self._op_ns))
        elif kind == "failed" and "sublayer" in event:
            known = ("tap", "op", "reason", "message")
            self._finish(Outcome(failure={key: str(event[key]) for key in known if key in event}))
        elif kind == "failed":
            self._refuse(str(event.get("reason", "")), str(event.get("message", "")))

    def _finish(self, outcome: Outcome) -> None:
        index = len(self._execution.outcomes)
        if index >= len(self._plan.sublayers):
            message = "it reported more sublayers than were asked"
            raise _ProtocolError(message)
        self._execution.outcomes.append(outcome)
        self._progress(index, self._plan.sublayers[index].name)
        self._tap, self._op_ns = "", {}

    def _refuse(self, reason: str, message: str) -> None:
        if self._first:
            raise _CannotRestartError(message)
        error: type[GoldenctlError] = MissingError if reason == "device" else DamagedError
        msg = f"{self._command[0]}: {message}"
        raise error(msg)

    def _ended_early(self, failure: dict[str, str], status: int, stderr: list[str]) -> None:
        """Charge the end of the program to the sublayer that it was in."""
        outcomes = self._execution.outcomes
        if any(o.failure for o in outcomes[self._first :]) and self._plan.stop_on_failure:
            return
        if not self._ready:
            self._never_started(failure, status, stderr)
        if len(outcomes) == len(self._plan.sublayers):
            outcomes.pop()  # what it said of the last one is not to be trusted either
        if self._tap:
            failure = {**failure, "tap": self._tap}
        self._finish(Outcome(failure={**failure, "stderr": "\n".join(stderr)}))

    def _never_started(self, failure: dict[str, str], status: int, stderr: list[str]) -> NoReturn:
        said = f": {stderr[-1]}" if stderr else ""
        what = f"{failure['message']}{said}"
        if self._first:
            raise _CannotRestartError(what)
        if failure["reason"] == "protocol":
            msg = f"{self._command[0]}: {what}"
            raise DamagedError(msg, hint="a backend may print other things to standard error only")
        error = DamagedError if status == _EXIT_DAMAGED else MissingError
        msg = f"{self._command[0]}: it did not start, {what}"
        raise error(msg)


def _exits(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _event(line: bytes) -> dict[str, Any]:
    """Parse one line; raises ValueError for what is no JSON and TypeError for no event."""
    event = json.loads(line)
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise TypeError
    return event


def _expected_event(line: bytes) -> _ProtocolError:
    text = line[:80].decode(errors="replace")
    return _ProtocolError(f"expected a JSON event on its output, got {text!r}")


def _tail(stream: IO[bytes]) -> list[str]:
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - (16 << 10)))
    return stream.read().decode(errors="replace").splitlines()[-STDERR_LINES:]


def _ending(status: int) -> str:
    if status < 0:
        known = -status in set(signal.Signals)
        return f"killed by {signal.Signals(-status).name if known else f'signal {-status}'}"
    return f"exit status {status}"
