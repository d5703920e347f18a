"""Rows of padding decide nothing, and everything else still does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from goldenctl.diff.judge import compare
from goldenctl.diff.padding import padding_of
from goldenctl.diff.tolerance import default_policy
from goldenctl.errors import DamagedError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.schema import SublayerInfo, TensorSpec
from goldenctl.golden.writer import GoldenWriter
from goldenctl.records.report import TensorResult

GROUP = "cases/a/steps/00/layers/00/attention"
MASK = np.array([[0, 0, 1], [1, 1, 1]], np.int32)
HIDDEN = ("batch", "token", "hidden")
SCORES = ("batch", "head", "token", "key_token")


def written(
    path: Path,
    kind: str,
    arrays: dict[str, NDArray[np.float32]],
    mask: NDArray[np.int32] = MASK,
    **recipe: object,
) -> GoldenFile:
    """Write a file with a mask, a hidden state and scores."""
    specs, kinds = [], {"output": (HIDDEN, "add"), "scores": (SCORES, "matmul_qk")}
    if kind == "golden":
        dims = ("batch", "key_token")[: mask.ndim]
        name = "cases/a/steps/00/attention_mask"
        specs.append(TensorSpec(name, "int32", mask.shape, dims, "input"))
    for tap, array in arrays.items():
        dims, op = kinds[tap]
        specs.append(TensorSpec(f"{GROUP}/{tap}", "float32", array.shape, dims, "output", op))
    with GoldenWriter(
        path, kind=kind, recipe=recipe, tensors=specs, links={}, groups=[GROUP]
    ) as writer:
        if kind == "golden":
            writer.write("cases/a/steps/00/attention_mask", memoryview(mask))
        for tap, array in arrays.items():
            writer.write(f"{GROUP}/{tap}", memoryview(np.ascontiguousarray(array)))
        writer.seal(sublayers=[SublayerInfo(GROUP, 0)])
    return open_golden(path)


@pytest.fixture
def arrays() -> dict[str, NDArray[np.float32]]:
    generator = np.random.Generator(np.random.PCG64(1))
    shapes = {"output": (2, 3, 4), "scores": (2, 2, 3, 3)}
    return {tap: generator.standard_normal(s).astype("f4") for tap, s in shapes.items()}


@pytest.fixture
def judged(
    tmp_path: Path, arrays: dict[str, NDArray[np.float32]]
) -> Callable[[dict[str, NDArray[np.float32]]], dict[str, TensorResult]]:
    def judge(actual: dict[str, NDArray[np.float32]]) -> dict[str, TensorResult]:
        golden = written(tmp_path / "g.h5", "golden", arrays)
        source = {"content_digest": golden.content_digest, "path": "g.h5"}
        run = written(tmp_path / "r.h5", "run", actual, golden=source, mode="op")
        return {t.tap: t for t in compare(golden, run, default_policy()).tensors}

    return judge


Judged = Callable[[dict[str, NDArray[np.float32]]], dict[str, TensorResult]]


def test_anything_may_stand_in_rows_of_padding(
    judged: Judged, arrays: dict[str, NDArray[np.float32]]
) -> None:
    changed = {tap: array.copy() for tap, array in arrays.items()}
    changed["output"][0, 0], changed["output"][0, 1] = np.nan, 1e9
    changed["scores"][0, :, :2] = np.inf
    changed["scores"][0, 1, 2, 0] = 7.0  # a real query, but a key of padding
    results = judged(changed)
    assert all(result.ok for result in results.values())
    assert (results["output"].padding_rows, results["scores"].padding_rows) == (2, 4)
    assert results["output"].metrics is not None
    assert results["output"].metrics.compared == 16


@pytest.mark.parametrize(
    ("tap", "index", "worst"),
    [
        ("output", (0, 2, 1), "batch 0, token 2, hidden 1"),
        ("output", (1, 0, 3), "batch 1, token 0, hidden 3"),
        ("scores", (0, 1, 2, 2), "batch 0, head 1, token 2, key_token 2"),
        ("scores", (1, 0, 1, 0), "batch 1, head 0, token 1, key_token 0"),
    ],
)
@pytest.mark.parametrize("wrong", [5.0, np.nan])
def test_every_other_element_still_decides(
    judged: Judged,
    arrays: dict[str, NDArray[np.float32]],
    tap: str,
    index: tuple[int, ...],
    worst: str,
    wrong: float,
) -> None:
    changed = {name: array.copy() for name, array in arrays.items()}
    changed[tap][index] += wrong
    result = judged(changed)[tap]
    assert (result.state, result.worst) == ("failed", worst)


def test_equalised_keeps_shape_and_real_errors(
    tmp_path: Path, arrays: dict[str, NDArray[np.float32]]
) -> None:
    golden = written(tmp_path / "g.h5", "golden", arrays)
    for tap, array in arrays.items():
        padding = padding_of(golden, golden.info(f"{GROUP}/{tap}"))
        same = padding.equalised(array + 1, array)
        assert same.shape == array.shape
        assert np.count_nonzero(same != array) == {"output": 16, "scores": 2 * (1 + 9)}[tap]


@pytest.mark.parametrize("shape", [(6,), (3, 2), (2, 2)])
def test_a_mask_that_does_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, NDArray[np.float32]], shape: tuple[int, ...]
) -> None:
    golden = written(tmp_path / "g.h5", "golden", arrays, mask=np.zeros(shape, np.int32))
    with pytest.raises(DamagedError, match=r"attention_mask \[.*\] does not fit"):
        padding_of(golden, golden.info(f"{GROUP}/output"))
