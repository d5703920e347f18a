"""The verdict by sketch against the verdict by the tensors, on InfiniCore and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from goldenctl.diff.by_sketch import SketchScorer
from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import Limits, Policy, default_policy
from goldenctl.errors import DamagedError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.schema import TensorInfo
from goldenctl.golden.sketch import Sketch, sketch_of
from goldenctl.ops.inject import parse_injection
from goldenctl.records.report import TensorResult
from goldenctl.replay.backend import Backend
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from goldenctl.sets.against_manifest import compare_with_manifest
from goldenctl.sets.describe import tensor_entries
from goldenctl.sets.environment import full_recipe
from goldenctl.sets.manifest import Manifest, VersionEntry

SHAPE = (1, 8, 64)
WHERE = Path("manifest.json")


def manifest_of(golden: GoldenFile) -> Manifest:
    entry = VersionEntry(
        version=1,
        bytes=golden.path.stat().st_size,
        digest="blake3:" + "0" * 64,
        content_digest=golden.content_digest,
    )
    return Manifest(
        name="tiny",
        version=1,
        versions=(entry,),
        recipe=full_recipe(golden),
        tolerance=default_policy(),
        tensors=tensor_entries(golden),
    )


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [
        ("float32", "sublayer"),
        ("float32", "chain"),
        ("bfloat16", "sublayer"),
        ("bfloat16", "chain"),
    ],
)
@pytest.mark.parametrize("fault", [None, "zero_row@layers.00.mlp.up_proj"])
def test_sketches_say_what_the_tensors_say(
    golden_of: Callable[..., GoldenFile],
    checkpoint_folder: Path,
    backend: Backend,
    tmp_path: Path,
    dtype: str,
    mode: str,
    fault: str | None,
) -> None:
    golden = golden_of(dtype)
    faults = (parse_injection(fault),) if fault else ()
    options = Options(mode=mode, faults=faults)
    path = tmp_path / "run.h5"
    replay(golden, checkpoint_folder, path, backend=backend, options=options)
    run = open_golden(path)
    exact = compare(golden, run, default_policy())
    by_sketch = compare_with_manifest(manifest_of(golden), WHERE, run, default_policy(), mode=mode)
    assert by_sketch.ok == exact.ok == (fault is None)
    assert len(by_sketch.compared) == len(exact.compared)
    if fault:
        assert by_sketch.first_wrong is not None
        assert exact.first_wrong is not None
        assert by_sketch.first_wrong.name == exact.first_wrong.name
        assert "token" in by_sketch.first_wrong.worst
    wrongly = [s for s, e in zip(by_sketch.tensors, exact.tensors, strict=True) if e.ok > s.ok]
    assert all(tensor.state == "unsure" for tensor in wrongly)


def test_a_file_whose_bytes_changed_is_refused(
    golden_of: Callable[..., GoldenFile], tmp_path: Path
) -> None:
    golden = golden_of("float32")
    info = next(i for i in golden.tensors.values() if i.tap == "q_proj")
    data = bytearray(golden.path.read_bytes())
    data[info.offset] ^= 1
    path = tmp_path / "changed.h5"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="q_proj does not match its digest"):
        compare_with_manifest(
            manifest_of(golden), WHERE, open_golden(path), default_policy(), mode="chain"
        )


def verdict(
    actual: NDArray[np.float32],
    expected: NDArray[np.float32],
    limits: Limits | None = None,
    budget: float | None = None,
    sketch: Sketch | None = None,
) -> TensorResult:
    """Judge one tensor by a table of one limit, or by a budget relative to each row."""
    norms = np.linalg.norm(expected.astype(float), axis=-1).reshape(-1)
    row_limits = None if budget is None else np.stack([budget * norms] * 3)
    kept = sketch or sketch_of(expected, row_limits=row_limits)
    policy = Policy("mine", {"*/*": limits or Limits(rel_l2=0.01)}, budget=budget is not None)
    scorer = SketchScorer({"x": kept}, lambda _: sketch_of(actual), policy, "sublayer")
    return scorer(info_of("a"), info_of("b"))


def info_of(digest: str) -> TensorInfo:
    dims = ("batch", "token", "hidden")
    return TensorInfo("x", "float32", SHAPE, dims, "tap", "linear", 0, 0, 2048, digest, 0)


def noisy(size: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(SHAPE)
    error = rng.standard_normal(SHAPE)
    error *= size * np.linalg.norm(x) / np.linalg.norm(error)
    return (x + error).astype(np.float32), x.astype(np.float32)


@pytest.mark.parametrize(
    ("size", "state"),
    [(0.001, "passed"), (0.005, "passed"), (0.01, "unsure"), (0.02, "failed"), (0.5, "failed")],
)
@pytest.mark.parametrize("budget", [None, 0.01])
def test_close_to_its_limit_a_sketch_cannot_tell(
    size: float, state: str, budget: float | None
) -> None:
    result = verdict(*noisy(size), budget=budget)
    assert result.state == state
    assert result.ok == (state == "passed")
    assert ("cannot tell" in result.message) == (state == "unsure")


def test_one_row_beyond_its_budget_fails_where_the_whole_is_within() -> None:
    _, expected = noisy(0)
    expected[0, 3] *= 1e-3
    actual = expected.copy()
    actual[0, 3] = -actual[0, 3]
    result = verdict(actual, expected, budget=0.01)
    assert result.checks[0].share < 0.2
    assert result.state == "failed"
    assert result.worst == "batch 0, token 3"


def test_a_scale_is_seen_where_the_error_is_within() -> None:
    _, expected = noisy(0)
    limits = Limits(rel_l2=0.03, scale=0.008)
    assert verdict(expected * np.float32(1.004), expected, limits).state == "passed"
    assert verdict(expected * np.float32(1.015), expected, limits).state == "failed"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_elements_fail(value: float) -> None:
    _, expected = noisy(0)
    actual = expected.copy()
    actual[0, 0, 0] = value
    result = verdict(actual, expected)
    assert (result.state, result.share) == ("failed", math.inf)
    assert verdict(actual, actual).state == "passed"  # where the reference has them too


def test_a_tolerance_that_a_sketch_cannot_estimate_is_no_pass() -> None:
    result = verdict(*noisy(1e-4), limits=Limits(max_ulp=8))
    assert result.state == "unsure"
    assert "nothing that it can estimate" in result.message


def test_equal_digests_need_no_sketch() -> None:
    scorer = SketchScorer({}, lambda _: sketch_of(np.zeros(3)), default_policy(), "sublayer")
    assert scorer(info_of("a"), info_of("a")).rule == "digest"
    assert scorer(info_of("a"), info_of("b")).state == "unsure"


def test_a_damaged_sketch_is_a_damaged_manifest() -> None:
    actual, expected = noisy(0.001)
    good = sketch_of(expected, row_limits=np.ones((3, 8)))
    damaged = Sketch(norm=good.norm, projection=good.projection[:8], rows=good.rows)
    with pytest.raises(DamagedError, match="x: its sketch cannot be read"):
        verdict(actual, expected, sketch=damaged)
