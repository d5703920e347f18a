"""``golden.check`` itself: types, tolerances, NaN, and what it refuses."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from rich.console import Console

from goldenctl.golden.file import open_golden
from goldenctl.pytest_plugin.fixture import Golden
from goldenctl.pytest_plugin.tally import Tally
from goldenctl.report.inspect import file_view
from goldenctl.report.render_console import show

Check = Callable[..., None]


def golden(path: Path, *, update: bool = False, max_bytes: int = 1 << 20) -> Golden:
    return Golden(path / "test_x", nodeid="test.py::test_x", update=update, max_bytes=max_bytes)


def record(path: Path, value: Any, **options: Any) -> None:
    case = golden(path, update=True)
    case.check("x", value, **options)
    case.finish(passed=True, tally=Tally())


def check(path: Path, value: Any, **options: Any) -> None:
    golden(path).check("x", value, **options)


def test_inspect_of_a_tests_golden_names_no_model(tmp_path: Path) -> None:
    record(tmp_path, 7)
    (made,) = tmp_path.rglob("*.h5")
    file = io.StringIO()
    show(file_view(open_golden(made)), Console(file=file, width=200))
    assert "(golden, format 2)" in file.getvalue()
    assert "model" not in file.getvalue()


VALUES = [
    torch.arange(6, dtype=torch.float32).reshape(2, 3),
    torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16),
    torch.ones(3, dtype=torch.float16, requires_grad=True),
    torch.arange(6).reshape(2, 3).T,
    torch.tensor([True, False]),
    torch.tensor(2.5),
    torch.zeros(0, 4),
    torch.arange(5, dtype=torch.uint8),
    torch.tensor([1.0, 0.5]).to(torch.float8_e4m3fn),
    torch.eye(3).to_sparse(),
    np.arange(3, dtype=">i4"),
    np.ones((2, 2), ml_dtypes.bfloat16),
    np.float64(0.1),
    [1.5, 2.5],
    7,
]


@pytest.mark.parametrize(
    "value", VALUES, ids=lambda v: f"{type(v).__name__}-{getattr(v, 'dtype', '')}"
)
def test_what_is_recorded_is_found_again(tmp_path: Path, value: Any) -> None:
    record(tmp_path, value)
    check(tmp_path, value, exact=True)
    check(tmp_path, value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_default_tolerance_follows_the_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    record(tmp_path, x.to(dtype))
    eps = torch.finfo(dtype).eps
    noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    check(tmp_path, (x * (1 + eps * noise)).to(dtype))
    with pytest.raises(AssertionError, match="relative L2 error"):
        check(tmp_path, (x * (1 + 100 * eps * noise)).to(dtype))
    with pytest.raises(AssertionError, match=r"4,0\d\d of 4,096 elements are not equal"):
        check(tmp_path, (x * (1 + 100 * eps * noise)).to(dtype), exact=True)


@pytest.mark.parametrize(
    ("options", "good", "bad", "said"),
    [
        ({"rtol": 0.01}, 1.009, 1.011, "1 of 1 elements are beyond"),
        ({"atol": 0.5}, 1.4, 1.6, r"\|actual - expected\| <= 0.5 \+ 0 \|expected\|"),
        ({"rel_l2": 0.1}, 1.09, 1.2, "relative L2 error 0.2, at most 0.1"),
        ({"max_ulp": 2}, 1 + 2 * 2**-23, 1 + 4 * 2**-23, "ULP distance 4, at most 2"),
        ({"op": "embedding"}, 1.0, 1 + 2**-23, "at most 0 is allowed"),
        ({"exact": True}, 1.0, 1 + 2**-23, "1 of 1 elements are not equal"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_each_tolerance(
    tmp_path: Path, options: dict[str, Any], good: float, bad: float, said: str
) -> None:
    record(tmp_path, np.float32([1.0]))
    check(tmp_path, np.float32([good]), **options)
    with pytest.raises(AssertionError, match=said):
        check(tmp_path, np.float32([bad]), **options)


def test_cosine(tmp_path: Path) -> None:
    record(tmp_path, np.array([1.0, 1.0]))
    check(tmp_path, np.array([2.0, 2.0]), cosine=0.999)
    with pytest.raises(AssertionError, match=r"cosine 0.707, at least 0.99"):
        check(tmp_path, np.array([2.0, 0.0]), cosine=0.99)


def test_non_finite_elements_must_be_where_the_golden_has_them(tmp_path: Path) -> None:
    record(tmp_path, np.array([1.0, -math.inf, math.inf]))
    check(tmp_path, np.array([1.0, -math.inf, math.inf]))
    for wrong in ([1.0, math.inf, math.inf], [1.0, -math.inf, 5.0], [math.inf] * 3):
        with pytest.raises(AssertionError, match="NaN or Inf where the golden has another"):
            check(tmp_path, np.array(wrong), rtol=10.0)


def test_nan_is_refused_unless_meant(tmp_path: Path) -> None:
    value = np.array([1.0, math.nan])
    for update in (True, False):
        with pytest.raises(AssertionError, match="1 of 2 elements are NaN"):
            golden(tmp_path, update=update).check("x", value)
    record(tmp_path, value, allow_nan=True)
    check(tmp_path, value, allow_nan=True)
    with pytest.raises(AssertionError, match="NaN or Inf"):
        check(tmp_path, np.array([math.nan, 1.0]), allow_nan=True)


def test_shape_and_dtype_must_be_equal(tmp_path: Path) -> None:
    record(tmp_path, torch.ones(2, 3))
    with pytest.raises(AssertionError, match=r"has shape \[3, 2\], expected \[2, 3\]"):
        check(tmp_path, torch.ones(3, 2))
    with pytest.raises(AssertionError, match="has dtype bfloat16, expected float32"):
        check(tmp_path, torch.ones(2, 3, dtype=torch.bfloat16))


def test_integers_must_be_equal(tmp_path: Path) -> None:
    record(tmp_path, np.arange(4))
    with pytest.raises(AssertionError, match="1 of 4 elements are not equal"):
        check(tmp_path, np.array([0, 1, 2, 9]), rtol=100.0)


def test_a_mapping_is_checked_by_its_keys(tmp_path: Path) -> None:
    record(tmp_path, {"a": np.ones(2), "b": torch.zeros(3)})
    with pytest.raises(AssertionError, match="golden 'x/b' differs"):
        check(tmp_path, {"a": np.ones(2), "b": torch.ones(3)})


def test_a_tensor_that_changes_later_is_kept_as_it_was(tmp_path: Path) -> None:
    case = golden(tmp_path, update=True)
    value = torch.ones(3)
    case.check("x", value)
    value.zero_()
    case.finish(passed=True, tally=Tally())
    check(tmp_path, torch.ones(3))


def test_integers_too_large_for_values_are_judged_by_digest(tmp_path: Path) -> None:
    case = golden(tmp_path, update=True, max_bytes=8)
    case.check("x", np.arange(9))
    case.finish(passed=True, tally=Tally())
    golden(tmp_path, max_bytes=8).check("x", np.arange(9))
    with pytest.raises(AssertionError, match="its bytes are not those"):
        golden(tmp_path, max_bytes=8).check("x", np.arange(9)[::-1])


@pytest.mark.parametrize(
    ("name", "value", "options", "said"),
    [
        ("../x", 1.0, {}, "expected letters"),
        ("x", 1.0, {"rtol": -1.0}, "rtol=-1.0: expected a finite number"),
        ("x", 1.0, {"rtol": math.nan}, "expected a finite number"),
        ("x", 1.0, {"op": "conv"}, "op='conv': expected one of"),
        ("x", 1.0, {"exact": True, "rtol": 0.1}, "exact=True stands alone"),
        ("x", np.ones(2), {"store": "sketch", "rtol": 0.1}, "need the values"),
    ],
)
def test_senseless_calls_are_refused(
    tmp_path: Path, name: str, value: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        golden(tmp_path, update=True).check(name, value, **options)


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    case = golden(tmp_path, update=True)
    case.check("x", 1.0)
    with pytest.raises(ValueError, match="checked twice"):
        case.check("x", 1.0)


@pytest.mark.parametrize("value", [np.array(["a"]), 1j, np.array([2**64 - 1], np.uint64), object()])
def test_what_a_golden_cannot_keep_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError):
        golden(tmp_path, update=True).check("x", value)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": "other", "tensors": []}'])
def test_damaged_sketches_are_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "test_x.json").write_bytes(damage)
    with pytest.raises(Exception, match=r"test_x.json: not the sketches of a test"):
        check(tmp_path, 1.0)
