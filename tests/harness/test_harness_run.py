"""How the harness runs a plan: conversion, order, repeats, skipping, failed sublayers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from harness_plans import NUMPY, Plan

BF16 = np.dtype(ml_dtypes.bfloat16)


def identity(plan: Plan, harness: Path, array: np.ndarray, *options: str) -> np.ndarray:
    """Load ``array`` into the plan's dtype and store it unchanged."""
    layer = plan.sublayer()
    layer.load("x", array, plan.dtype)
    layer.store("y", list(array.shape))
    layer.op("rearrange", "y", "x")
    ran = plan.run(harness, *options)
    assert not ran.failures(), ran.events
    return ran.outputs["y"]


def nearest_even(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return bits of the nearest of the three candidates around NumPy's own cast, ties to even."""
    guess = values.astype(NUMPY[dtype]).view(np.uint16).astype(np.int32)
    with np.errstate(over="ignore", invalid="ignore"):
        candidates = np.stack([guess - 1, guess, guess + 1]).astype(np.uint16)
        error = np.abs(candidates.view(NUMPY[dtype]).astype(np.float64) - values)
    error = np.where(np.isnan(error), np.inf, error)
    best = error.min(axis=0)
    even = (error == best) & (candidates % 2 == 0)
    choice = np.where(even.any(axis=0), even.argmax(axis=0), error.argmin(axis=0))
    return np.take_along_axis(candidates, choice[None], axis=0)[0]


def hard_values(dtype: str) -> np.ndarray:
    """Return float64 values near the midpoints of ``dtype``, where rounding twice goes wrong."""
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 0x7B00 if dtype == "float16" else 0x7F00, 3000).astype(np.uint16)
    low = bits.view(NUMPY[dtype]).astype(np.float64)
    high = (bits + 1).astype(np.uint16).view(NUMPY[dtype]).astype(np.float64)
    middle = (low + high) / 2
    gap = (high - low) * 2.0**-40
    values = np.concatenate([low, middle, middle + gap, middle - gap])
    return np.concatenate([values, -values])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_float64_is_rounded_once(tmp_path: Path, harness: Path, dtype: str) -> None:
    values = hard_values(dtype)
    y = identity(Plan(tmp_path, dtype), harness, values)
    np.testing.assert_array_equal(y.view(np.uint16), nearest_even(values, dtype))


@pytest.mark.parametrize("source", ["float16", "bfloat16"])
@pytest.mark.parametrize("target", ["float16", "bfloat16", "float32"])
def test_every_16_bit_float_converts(
    tmp_path: Path, harness: Path, source: str, target: str
) -> None:
    """All 65,536 patterns: subnormals, infinities and NaNs among them."""
    x = np.arange(65536, dtype=np.uint16).view(NUMPY[source])
    y = identity(Plan(tmp_path, target), harness, x)
    if source == target:
        assert y.tobytes() == x.tobytes()
        return
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(np.float32).astype(NUMPY[target])
    nan = np.isnan(expected.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(y.astype(np.float32)), nan)
    assert y[~nan].tobytes() == expected[~nan].tobytes()


def test_int64_ids_are_narrowed(tmp_path: Path, harness: Path) -> None:
    for value, ok in ((2, True), (2**31, False), (-1, False), (3, False)):
        plan = Plan(tmp_path)
        layer = plan.sublayer()
        layer.load("table", np.arange(6, dtype=np.float32).reshape(3, 2))
        layer.load("ids", np.array([1, value], np.int64), "int32")
        layer.store("y", [2, 2])
        layer.op("gather", "y", "table", "ids")
        ran = plan.run(harness)
        assert ran.status == 0
        if ok:
            assert ran.outputs["y"].tolist() == [[2, 3], [4, 5]]
        else:
            assert ran.failure["reason"] == "bad_input"
            assert str(value) in ran.failure["message"]


@pytest.mark.parametrize("position", [-1, 4])
def test_position_outside_the_table_fails(tmp_path: Path, harness: Path, position: int) -> None:
    plan = Plan(tmp_path)
    layer = plan.sublayer()
    layer.load("x", np.zeros((1, 1, 4), np.float32))
    layer.load("positions", np.array([position], np.int32))
    layer.load("sin", np.zeros((4, 2), np.float32))
    layer.load("cos", np.ones((4, 2), np.float32))
    layer.store("y", [1, 1, 4])
    layer.op("rope", "y", "x", "positions", "sin", "cos", algo="neox")
    failure = plan.run(harness).failure
    assert failure["reason"] == "bad_input"
    assert failure["message"] == f"position 0 is {position}, expected 0 to 3"


def doubling(tmp_path: Path, count: int = 3, **top: object) -> Plan:
    """Return a plan whose sublayer i stores twice of [i, 1, 2]."""
    plan = Plan(tmp_path, top=dict(top))
    for i in range(count):
        layer = plan.sublayer(f"layer{i}")
        layer.load("x", np.array([i, 1, 2], np.float32))
        layer.store("y", [3])
        layer.op("add", "y", "x", "x")
    return plan


@pytest.mark.parametrize(
    ("options", "ran"),
    [
        ((), [0, 1, 2]),
        (("--skip", "1"), [1, 2]),
        (("--skip", "3"), []),
        (("--only", "1"), [1]),
        (("--only", "2"), [2]),
    ],
)
def test_skip_and_only(
    tmp_path: Path, harness: Path, options: tuple[str, ...], ran: list[int]
) -> None:
    done = doubling(tmp_path).run(harness, *options)
    assert done.status == 0
    assert [e["sublayer"] for e in done.events if e["event"] == "sublayer_done"] == ran
    for i in range(3):
        expected = [2 * i, 2, 4] if i in ran else [0, 0, 0]
        assert done.outputs[f"layer{i}/y"].tolist() == expected


@pytest.mark.parametrize("options", [("--only", "3"), ("--skip", "4")])
def test_no_such_sublayer(tmp_path: Path, harness: Path, options: tuple[str, ...]) -> None:
    done = doubling(tmp_path).run(harness, *options)
    assert (done.status, done.failure["reason"]) == (4, "plan")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--only",),
        ("p", "--only", "x"),
        ("p", "q"),
        ("p", "--skip", "-1"),
        ("--help",),
        ("p", "--poison", "3"),
    ],
)
def test_wrong_usage(harness: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run([harness, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: goldenctl-harness")


@pytest.mark.parametrize("stop", [False, True])
def test_the_next_sublayer_runs_unless_told_to_stop(
    tmp_path: Path, harness: Path, stop: bool
) -> None:
    plan = Plan(tmp_path, top={"stop_on_failure": stop})
    for i, bad_id in enumerate((0, 7, 0)):
        layer = plan.sublayer(f"layer{i}")
        layer.load("table", np.ones((2, 2), np.float32))
        layer.load("ids", np.array([bad_id], np.int32))
        layer.store("y", [1, 2])
        layer.op("gather", "y", "table", "ids")
    ran = plan.run(harness)
    assert ran.failure["sublayer"] == 1
    assert ran.status == (1 if stop else 0)
    assert ("finished" in ran.kinds()) == (not stop)
    done = [e["sublayer"] for e in ran.events if e["event"] == "sublayer_done"]
    assert done == ([0] if stop else [0, 2])


def test_a_later_sublayer_reads_what_an_earlier_stored(tmp_path: Path, harness: Path) -> None:
    plan = doubling(tmp_path, count=1)
    layer = plan.sublayer("chained")
    load = {"file": 1, "offset": 0, "dtype": "float32"}
    layer.tensors.append({"name": "x", "dtype": "float32", "shape": [3], "load": load})
    layer.store("y", [3])
    layer.op("add", "y", "x", "x")
    assert plan.run(harness).outputs["chained/y"].tolist() == [0, 4, 8]


def test_a_failed_write_is_io(tmp_path: Path, harness: Path) -> None:
    """A file size limit of 0 stands for the full disk; Python's processes ignore SIGXFSZ."""
    plan = doubling(tmp_path, count=1)
    (tmp_path / "plan.json").write_text(json.dumps(plan.document()))
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
    command = [sys.executable, "-c", limit + "os.execv(sys.argv[1], sys.argv[1:])"]
    done = subprocess.run(
        [*command, harness, tmp_path / "plan.json"], capture_output=True, text=True, check=False
    )
    failed = json.loads(done.stdout.splitlines()[-2])
    assert (done.returncode, failed["sublayer"], failed["reason"]) == (0, 0, "io")
    assert failed["message"].endswith("write failed: File too large")
    assert "tap" not in failed


@pytest.mark.parametrize("repeat", [1, 2, 5])
def test_repeats_leave_the_result_of_one(tmp_path: Path, harness: Path, repeat: int) -> None:
    """An op that reads its output, by beta or in place, sees the same one each time."""
    plan = Plan(tmp_path, top={"repeat": repeat})
    layer = plan.sublayer()
    layer.load("a", np.eye(2, dtype=np.float32))
    layer.store("y", [2, 2])
    layer.op("add", "y", "a", "a")
    layer.op("gemm", "y", "a", "a", alpha=1, beta=1)
    layer.op("add", "y", "y", "a")
    ran = plan.run(harness)
    assert ran.outputs["y"].tolist() == [[4, 0], [0, 4]]
    done = [event["ns"] for event in ran.events if event["event"] == "op_done"]
    assert len(done) == 3
    assert ran.events[-2]["ns"] == sum(done)
    spreads = [event["iqr_ns"] for event in ran.events if event["event"] == "op_done"]
    assert all(spread == 0 for spread in spreads) if repeat == 1 else min(spreads) >= 0
    assert all(ns > 0 for ns in done)


def test_quirks_are_announced(tmp_path: Path, harness: Path) -> None:
    """InfiniCore 0.1.0 on CPU: float32 gemm reads C at beta 0, float16 results are cut off."""
    expected = {"float32": ["gemm_reads_output"], "bfloat16": [], "float16": ["rounds_to_zero"]}
    for dtype, quirks in expected.items():
        ran = Plan(tmp_path, dtype).run(harness)
        assert ran.events[0]["quirks"] == quirks
        assert ran.events[0]["device"] == "cpu:0"


@pytest.mark.parametrize("poison", "012")
def test_a_copied_poison_pattern_is_not_unwritten(
    tmp_path: Path, harness: Path, poison: str
) -> None:
    x = np.array([0x7FA5, 0x5AA5, 0x4B5A], np.uint16).view(BF16)
    y = identity(Plan(tmp_path, "bfloat16"), harness, x, "--poison", poison)
    assert y.tobytes() == x.tobytes()


def test_old_nan_does_not_leak_through_beta_zero(tmp_path: Path, harness: Path) -> None:
    plan = Plan(tmp_path)
    layer = plan.sublayer()
    layer.load("a", np.ones((2, 2), np.float32))
    layer.store("y", [2, 2])
    layer.op("gemm", "y", "a", "a", alpha=1, beta=0)
    assert plan.run(harness).outputs["y"].tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ({"device": "nvidia"}, "there is no device nvidia:0; the engine sees 0 of type nvidia"),
        ({"device_id": 1}, "there is no device cpu:1; the engine sees 1 of type cpu"),
        ({"device": "tpu"}, 'unknown device "tpu"; there are cpu, nvidia'),
    ],
)
def test_no_such_device(
    tmp_path: Path, harness: Path, top: dict[str, object], message: str
) -> None:
    ran = doubling(tmp_path, **top).run(harness)
    assert (ran.status, ran.failure["reason"]) == (3, "device")
    assert ran.failure["message"].startswith(message)


def test_devices(harness: Path) -> None:
    done = subprocess.run([harness, "--devices"], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    answer = json.loads(line)
    assert answer["counts"]["cpu"] == 1
    assert answer["rope"] == ["neox", "gptj"]
    assert set(answer["quirks"]) == {"cpu"}


def test_a_tensor_of_several_parts(tmp_path: Path, harness: Path) -> None:
    """Parts are converted and put in place; what no part fills holds the poison."""
    plan = Plan(tmp_path)
    layer = plan.sublayer()
    layer.parts("x", [2, 4], {4: np.array([5, 6, 7], np.float16), 0: np.arange(3.0)})
    layer.load("own", np.array([[8.0]], np.float32))
    layer.store("before", [2, 4])
    layer.store("after", [2, 4])
    layer.op("rearrange", "before", "x")
    layer.op("rearrange", layer.view("x", [1, 1], [4, 1], 7), "own")
    layer.op("rearrange", "after", "x")
    ran = plan.run(harness)
    assert ran.status == 0, ran.events
    before, after = ran.outputs["before"], ran.outputs["after"]
    np.testing.assert_array_equal(before[0, :3], [0, 1, 2])
    assert np.isnan(before[0, 3])
    assert np.isnan(before[1, 3])
    np.testing.assert_array_equal(after[1], [5, 6, 7, 8])
