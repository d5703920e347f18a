"""A plan that means harm: the harness refuses it in one line and opens no file that it names."""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SEED = Path(__file__).parents[1] / "fuzz" / "corpus" / "plan" / "p1-embedding.json"
MEMORY_BYTES = 1 << 30
Change = Callable[[dict[str, Any]], None]


def setting(path: str, value: Any) -> Change:
    def change(plan: dict[str, Any]) -> None:
        at: Any = plan
        *folders, last = path.split(".")
        for key in folders:
            at = at[int(key) if key.isdigit() else key]
        at[int(last) if last.isdigit() else last] = value

    return change


TENSOR = "sublayers.0.tensors.0"
VIEW = "sublayers.0.ops.0.out"
HOSTILE: dict[str, tuple[Change, str]] = {
    "offset beyond the file": (setting(f"{TENSOR}.load.offset", 1 << 62), "plan.sublayers[0]"),
    "offset that overflows": (setting(f"{TENSOR}.load.offset", (1 << 63) - 1), "plan.sublayers[0]"),
    "offset too large": (setting(f"{TENSOR}.load.offset", 1 << 64), "offset"),
    "negative offset": (setting(f"{TENSOR}.load.offset", -1), "offset"),
    "file that is not listed": (setting(f"{TENSOR}.load.file", 99), "plan.sublayers[0]"),
    "giant shape": (setting(f"{TENSOR}.shape", [1 << 40, 1 << 40]), "too large"),
    "view beyond its tensor": (setting(f"{VIEW}.offset", 1 << 40), "leave"),
    "view with giant strides": (setting(f"{VIEW}.strides", [1 << 62, 1 << 62]), "strides"),
    "view of no tensor": (setting(f"{VIEW}.tensor", 1 << 32), "plan.sublayers[0]"),
    "unknown op": (setting("sublayers.0.ops.0.op", "system"), "op"),
    "unknown key": (setting("exec", "/bin/sh"), "exec"),
    "deep nesting": (setting("device_id", json.loads("[" * 500 + "]" * 500)), "device_id"),
    "another protocol": (setting("protocol", 2), "protocol"),
}


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


@pytest.fixture
def plan(tmp_path: Path) -> dict[str, Any]:
    """A sound plan over two files of its own."""
    sound: dict[str, Any] = json.loads(SEED.read_text())
    sound["device"], sound["dtype"] = "cpu", sound["dtype"]
    for number, file in enumerate(sound["files"]):
        path = tmp_path / f"secret{number}"
        with path.open("wb") as made:
            made.truncate(file["bytes"])
        file["path"] = str(path)
    return sound


def run(harness: Path, folder: Path, text: bytes) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the harness on a plan under a limit of memory; return it and what it opened."""
    path, trace = folder / "plan.json", folder / "trace"
    path.write_bytes(text)
    strace = shutil.which("strace")
    watch = [strace, "-f", "-qq", "-e", "trace=open,openat", "-o", trace] if strace else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*watch, harness, path], capture_output=True, text=True, preexec_fn=limited,
        env=environment, timeout=60,
    )  # fmt: skip
    return done, trace.read_text() if strace else ""


def refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 4, done
    (event,) = done.stdout.splitlines()
    assert json.loads(event)["reason"] == "plan"
    (line,) = done.stderr.splitlines()
    assert said in line
    assert line.isprintable()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_plan_is_refused(
    harness: Path, tmp_path: Path, plan: dict[str, Any], name: str
) -> None:
    change, said = HOSTILE[name]
    hostile = copy.deepcopy(plan)
    change(hostile)
    done, opened = run(harness, tmp_path, json.dumps(hostile).encode())
    refused(done, said)
    assert "/secret" not in opened


@pytest.mark.parametrize(
    "text",
    [b"", b"[" * 1_000_000, b'{"protocol":1,"protocol":1}', b'{"a":"' + b"x" * 5_000_000,
     b"\xff\xfe", b'{"protocol": ' + b"9" * 100_000, b"{}"],
    ids=["empty", "endless", "twice", "cut", "not-text", "long-number", "nothing"],
)  # fmt: skip
def test_what_is_no_plan_is_refused(harness: Path, tmp_path: Path, text: bytes) -> None:
    done, _ = run(harness, tmp_path, text)
    refused(done, "")
    assert len(done.stderr) < 1000


@pytest.mark.parametrize("place", ["/dev/zero", "FIFO", "FOLDER", "MISSING", "SHORT"])
def test_a_file_that_is_no_plain_file_is_refused(
    harness: Path, tmp_path: Path, plan: dict[str, Any], place: str
) -> None:
    path = Path(place) if place.startswith("/") else tmp_path / place
    if place == "FIFO":
        os.mkfifo(path)
    elif place == "FOLDER":
        path.mkdir()
    elif place == "SHORT":
        path.write_bytes(b"short")
    plan["files"][0]["path"] = str(path)
    done, _ = run(harness, tmp_path, json.dumps(plan).encode())
    refused(done, str(path))


def test_memory_that_is_not_there_fails_the_sublayer_alone(
    harness: Path, tmp_path: Path, plan: dict[str, Any]
) -> None:
    plan["sublayers"][0]["tensors"].append(
        {"name": "scratch", "dtype": plan["dtype"], "shape": [1 << 36]}
    )
    done, _ = run(harness, tmp_path, json.dumps(plan).encode())
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events][-1] == "finished", done
    assert [e["reason"] for e in events if e["event"] == "failed"] == ["memory"]
