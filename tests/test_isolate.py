"""A function run apart: whatever it does, this process goes on and says what happened."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from goldenctl import isolate
from goldenctl.isolate import Refused, Worker, isolated


class Expect(NamedTuple):
    """What the function does, and what is said of it."""

    function: Callable[[Worker], bytes]
    said: str


def crash(_: Worker) -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def spin(_: Worker) -> bytes:
    while True:
        pass


def sleep(_: Worker) -> bytes:
    time.sleep(60)
    return b""


def hoard(_: Worker) -> bytes:
    return bytes(isolate.MEMORY_LIMIT_BYTES + (64 << 20))


def chatter(_: Worker) -> bytes:
    return bytes(2000)


def complain(_: Worker) -> bytes:
    message = "no\nsuch thing"
    raise ValueError(message)


def leave(_: Worker) -> bytes:
    raise SystemExit(3)


class Panic(BaseException):
    """What a library that is written in Rust raises."""


def panic(_: Worker) -> bytes:
    raise Panic


def peek(worker: Worker) -> bytes:
    worker.close_the_door()
    return Path(__file__).read_bytes()


def lie(worker: Worker) -> bytes:
    os.write(worker._descriptor, b"+half an answer")
    return crash(worker)


FAILURES = {
    "crash": Expect(crash, r"crashed on it \(SIGSEGV\)"),
    "hang": Expect(spin, "more than 1 seconds of processor time"),
    "silence": Expect(sleep, "more than 3 seconds"),
    "memory": Expect(hoard, "wants more than 1073741824 bytes of memory"),
    "a long answer": Expect(chatter, "describes more than 1000 bytes"),
    "an error": Expect(complain, "^no\nsuch thing$"),
    "an exit": Expect(leave, r"crashed on it \(SystemExit\)"),
    "a panic": Expect(panic, r"crashed on it \(Panic\)"),
    "another file": Expect(peek, "Too many open files"),
    "a crash in the answer": Expect(lie, "SIGSEGV"),
}


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES)
def test_a_failure_is_said(case: Expect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "CPU_LIMIT_S", 1)
    if case.function is sleep:
        monkeypatch.setattr(isolate, "SILENCE_LIMIT_S", 3)
    monkeypatch.setattr(isolate, "ANSWER_LIMIT_BYTES", 1000)
    children = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    with pytest.raises(Refused, match=case.said):
        isolated(case.function)
    with pytest.raises(ChildProcessError):  # nobody is left behind
        os.waitpid(children[-1], os.WNOHANG)


def test_a_long_answer_comes_whole() -> None:
    answer = os.urandom(3 << 20)
    assert isolated(lambda _: answer) == answer


def test_signs_of_life_are_no_part_of_the_answer() -> None:
    def work(worker: Worker) -> bytes:
        for _ in range(5):
            worker.alive()
        return b"..done"

    assert isolated(work) == b"..done"


def test_what_is_printed_is_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    def work(_: Worker) -> bytes:
        os.write(1, b"a library speaks")
        os.write(2, b"and complains")
        return b"done"

    assert isolated(work) == b"done"
    assert capfd.readouterr() == ("", "")


def test_without_forks_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    pid = str(os.getpid()).encode()
    assert isolated(lambda _: str(os.getpid()).encode()) == pid
    with pytest.raises(Refused, match="no\nsuch thing"):
        isolated(complain)


def test_a_lock_does_not_outlive_the_process_that_holds_it(tmp_path: Path) -> None:
    """The child of a killed process may go on for a while: it has none of its open files."""
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def locks(_: Worker) -> bytes:
            left = (each.resolve().name for each in Path("/proc/self/fd").iterdir())
            return b"held" if "lock" in left else b"free"

        assert isolated(locks) == b"free"
