"""Supervision of the programs that execute a plan: their events, crashes, hangs and errors."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from msgspec.structs import replace

from goldenctl.errors import DamagedError, GoldenctlError, MissingError
from goldenctl.folders import scratch
from goldenctl.ops.plan import Plan, write_plan

STDERR_LINES = 12
_EXIT_DAMAGED = 4
_MAX_LINE_BYTES = 1 << 20
_REFUSED = "refused"  # it says that it cannot start


@dataclass
class Outcome:
    """What became of one sublayer: nanoseconds by tap, or why it failed.

    ``iqr_ns`` is how far the quartiles of the times of each tap lie apart, where it was
    launched several times and the program says so.
    ``failure`` has ``reason``, ``message`` and, where known, ``tap``, ``op`` and ``stderr``.
    """

    ns: int = 0
    op_ns: dict[str, int] = field(default_factory=dict)
    iqr_ns: dict[str, int] = field(default_factory=dict)
    failure: dict[str, Any] | None = None


@dataclass
class Execution:
    """A whole plan's outcomes, by sublayer index, and what the program said of itself."""

    program: str = ""
    quirks: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


# Receives the execution so far and the index of a sublayer that has its outcome; once more for
# one whose outcome turned out not to be true.
Finished = Callable[[Execution, int], None]


class _ProtocolError(Exception):
    """The program printed what the protocol does not allow."""


class _CannotRestartError(Exception):
    """After a failed sublayer the program does not start any more."""


def execute(
    command: Sequence[str],
    plan: Plan,
    *,
    timeout_s: float,
    finished: Finished = lambda *_: None,
    shares: Sequence[Sequence[int]] | None = None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
) -> Execution:
    """Run the sublayers of a plan.

    ``shares`` are indices of sublayers: each share is executed in its order by a program of
    its own, all at once; None is one share of all. The programs get ``arguments`` after the
    plan's, ``environment`` beside what there is, and the descriptors ``inherited``.

    A sublayer in which a program crashes, hangs for ``timeout_s`` without an event, breaks
    the protocol or reports an error is marked failed, and its share goes on in a new process;
    with ``stop_on_failure``, or when the program does not start again, the rest of the share
    is marked ``not_run``, and so is what is in no share. Raises MissingError or DamagedError
    when the program cannot start on this plan at all.
    """
    start = _Start(timeout_s, environment or {}, inherited)
    unasked = [_not_run("it was not asked for") for _ in plan.sublayers]
    execution = Execution(outcomes=unasked)

    with scratch() as folder:
        running: dict[int, _Process] = {}
        try:
            for number, indices in enumerate(shares or (range(len(plan.sublayers)),)):
                path = Path(folder) / f"{number}.json"
                share = _Share(
                    [*command, str(path), *arguments], plan, indices, execution, finished
                )
                write_plan(share.plan, path)
                share.start(running, start)
            while running:
                for process in _ready(running):
                    if not process.goes_on():
                        del running[process.descriptor]
                        process.share.ended(process)
                        process.share.start(running, start)
        finally:
            for process in running.values():
                process.stop()
    return execution


def accepts(
    command: Sequence[str], plan: Plan, arguments: Sequence[str], *, timeout_s: float
) -> bool:
    """Whether a program takes these arguments: it is called to run no sublayer."""
    with scratch() as folder:
        path = Path(folder) / "plan.json"
        write_plan(plan, path)
        none = ["--skip", str(len(plan.sublayers))]
        try:
            ran = subprocess.run(
                [*command, str(path), *none, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return ran.returncode == 0


def _ready(running: Mapping[int, _Process]) -> list[_Process]:
    """Wait until a program said something or has been silent for too long; return those."""
    wait_s = max(0.0, min(process.deadline for process in running.values()) - time.monotonic())
    with selectors.DefaultSelector() as selector:
        for descriptor in running:
            selector.register(descriptor, selectors.EVENT_READ)
        spoken = [running[key.fd] for key, _ in selector.select(wait_s)]
    now = time.monotonic()
    silent = [p for p in running.values() if p not in spoken and p.deadline <= now]
    for process in silent:
        process.hangs = True
    return spoken + silent


@dataclass(frozen=True)
class _Start:
    """What every program is started with."""

    timeout_s: float
    environment: Mapping[str, str]
    inherited: Sequence[int]


class _Share:
    """Sublayers of a plan on their way through one program after the other."""

    def __init__(
        self,
        command: Sequence[str],
        plan: Plan,
        indices: Sequence[int],
        execution: Execution,
        finished: Finished,
    ) -> None:
        self.command = command
        self.plan = replace(plan, sublayers=tuple(plan.sublayers[i] for i in indices))
        self.execution = execution
        self.outcomes: list[Outcome] = []
        self._indices = indices
        self._finished = finished

    @property
    def complete(self) -> bool:
        return len(self.outcomes) == len(self._indices)

    def start(self, running: dict[int, _Process], start: _Start) -> None:
        """Start a program on what is left, if anything is."""
        failed = any(outcome.failure for outcome in self.outcomes)
        if failed and self.plan.stop_on_failure:
            self._give_up("an earlier sublayer of the chain failed")
        if not self.complete:
            process = _Process(self, start)
            running[process.descriptor] = process

    def ended(self, process: _Process) -> None:
        """Account for a program that has ended or must be ended."""
        try:
            process.close()
        except _CannotRestartError as error:
            self._give_up(f"the backend did not start again: {error}")

    def finish(self, outcome: Outcome) -> None:
        """Take the next sublayer's outcome."""
        if self.complete:
            message = "it reported more sublayers than were asked"
            raise _ProtocolError(message)
        self.outcomes.append(outcome)
        index = self._indices[len(self.outcomes) - 1]
        self.execution.outcomes[index] = outcome
        self._finished(self.execution, index)

    def _give_up(self, why: str) -> None:
        while not self.complete:
            self.finish(_not_run(why))


def _not_run(why: str) -> Outcome:
    return Outcome(failure={"reason": "not_run", "message": why})


class _Process:
    """One run of the program, from its share's first sublayer without an outcome on."""

    def __init__(self, share: _Share, start: _Start) -> None:
        self.share = share
        self.hangs = False
        self.deadline = time.monotonic() + start.timeout_s
        self._timeout_s = start.timeout_s
        self._first = len(share.outcomes)
        self._ready = False
        self._pending = b""
        self._failure: dict[str, str] | None = None
        self._tap = ""
        self._launch = 0  # of the launches that one tap may take, the one that was started
        self._op_ns: dict[str, int] = {}
        self._iqr_ns: dict[str, int] = {}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop
        try:
            self._process = subprocess.Popen(
                [*share.command, "--skip", str(self._first)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**os.environ, **start.environment},
                pass_fds=start.inherited,
                process_group=0,  # to be ended with all that it started
            )
        except OSError as error:
            self._stderr.close()
            message = f"{share.command[0]}: cannot be run: {error.strerror}"
            raise MissingError(message) from error
        assert self._process.stdout is not None
        self.descriptor = self._process.stdout.fileno()

    def goes_on(self) -> bool:
        """Handle the events that are there; False when the program has ended or must be."""
        if not self.hangs:
            data = os.read(self.descriptor, 1 << 16)
            if data:
                return self._took(data)
            self.hangs = not _exits(self._process, self._timeout_s)
        if self.hangs:
            message = f"no sign of life for {self._timeout_s:g} s"
            self._failure = {"reason": "hang", "message": message}
        return False

    def close(self) -> None:
        """End the program and charge its end, if it was early, to the sublayer it was in."""
        self._kill()
        status = self._process.wait()
        stderr = _tail(self._stderr)
        self.stop()
        if self._failure or not self.share.complete:
            failure = self._failure or {"reason": "crash", "message": _ending(status)}
            self._ended_early(failure, status, stderr)

    def stop(self) -> None:
        """Kill the program, whatever it does, and forget what it said."""
        if self._process.returncode is None:
            self._kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stderr.close()

    def _kill(self) -> None:
        """Kill the program and what it started, also where it has ended itself."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _took(self, data: bytes) -> bool:
        *lines, self._pending = (self._pending + data).split(b"\n")
        try:
            if len(self._pending) > _MAX_LINE_BYTES:
                raise _expected_event(self._pending)
            for line in lines:
                try:
                    self._handle(_event(line))
                except (TypeError, ValueError, OverflowError) as error:
                    raise _expected_event(line) from error
                self.deadline = time.monotonic() + self._timeout_s
        except _ProtocolError as error:
            self._failure = self._failure or {"reason": "protocol", "message": str(error)}
            return False
        return True

    def _handle(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        index = len(self.share.outcomes)
        if event.get("sublayer", index) != index:
            message = f"{kind} of sublayer {event['sublayer']}, expected {index}"
            raise _ProtocolError(message[:200])
        if kind == "ready":
            self._ready = True
            self.share.execution.program = str(event.get("program", ""))
            self.share.execution.quirks = [str(quirk) for quirk in event.get("quirks", [])]
        elif kind == "op_start":
            tap = str(event.get("tap", ""))
            self._launch = self._launch + 1 if tap == self._tap else 0
            self._tap = tap
        elif kind == "op_done":
            tap = str(event.get("tap", ""))
            self._op_ns[tap] = self._op_ns.get(tap, 0) + int(event.get("ns", 0))
            if spread := int(event.get("iqr_ns", 0)):
                self._iqr_ns[tap] = self._iqr_ns.get(tap, 0) + spread
        elif kind == "sublayer_done":
            self._finish(Outcome(int(event.get("ns", 0)), self._op_ns, self._iqr_ns))
        elif kind == "failed" and "sublayer" in event:
            known = ("tap", "op", "reason", "message")
            self._finish(Outcome(failure={key: str(event[key]) for key in known if key in event}))
        elif kind == "failed":
            self._refuse(str(event.get("reason", "")), str(event.get("message", "")))

    def _finish(self, outcome: Outcome) -> None:
        self.share.finish(outcome)
        self._tap, self._launch, self._op_ns, self._iqr_ns = "", 0, {}, {}

    def _refuse(self, reason: str, message: str) -> None:
        if self._first:
            self._failure = {"reason": _REFUSED, "message": message}
            raise _ProtocolError(message)
        error: type[GoldenctlError] = MissingError if reason == "device" else DamagedError
        msg = f"{self.share.command[0]}: {message}"
        raise error(msg)

    def _ended_early(self, failure: dict[str, str], status: int, stderr: list[str]) -> None:
        outcomes = self.share.outcomes
        if any(o.failure for o in outcomes[self._first :]) and self.share.plan.stop_on_failure:
            return
        if not self._ready:
            self._never_started(failure, status, stderr)
        if self.share.complete:
            outcomes.pop()  # what it said of the last one is not to be trusted either
        failure = {**failure, **self._place(), "stderr": "\n".join(stderr)}
        self._finish(Outcome(failure=failure))

    def _place(self) -> dict[str, str]:
        """The tap that was started last and the op that the plan has for it, as far as known."""
        if not self._tap:
            return {}
        ops = self.share.plan.sublayers[len(self.share.outcomes)].ops
        kinds = [op.op for op in ops if op.tap == self._tap][self._launch :]
        return {"tap": self._tap, **({"op": kinds[0]} if kinds else {})}

    def _never_started(self, failure: dict[str, str], status: int, stderr: list[str]) -> NoReturn:
        if failure["reason"] == _REFUSED:
            raise _CannotRestartError(failure["message"])
        said = f": {stderr[-1]}" if stderr else ""
        what = f"{failure['message']}{said}"
        if self._first:
            raise _CannotRestartError(what)
        command = self.share.command[0]
        if failure["reason"] == "protocol":
            msg = f"{command}: {what}"
            raise DamagedError(msg, hint="a backend may print other things to standard error only")
        error = DamagedError if status == _EXIT_DAMAGED else MissingError
        msg = f"{command}: it did not start, {what}"
        raise error(msg)


def _exits(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _event(line: bytes) -> dict[str, Any]:
    """Parse one line; raises ValueError for what is not JSON and TypeError for no event."""
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
