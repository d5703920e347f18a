"""Tests the tables of rope that faults derive: other thetas, shifts, halves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldenctl.model.config import preset_config
from goldenctl.model.rope import rope_tables
from goldenctl.ops.derived import derived, derived_table, is_derived

QWEN3 = preset_config("tiny")


def _direct(positions: np.ndarray, theta: float, dim: int) -> tuple[np.ndarray, np.ndarray]:
    angles = positions[:, None] * theta ** (-2.0 * np.arange(dim // 2) / dim)
    return np.cos(angles), np.sin(angles)


positions_counts = st.integers(2, 40)


@given(positions_counts, st.sampled_from([1e4, 5e5, 1e6, 1e7]))
def test_theta_table(count: int, theta: float) -> None:
    cos, sin = _direct(np.arange(count), theta, QWEN3.head_dim)
    np.testing.assert_allclose(
        derived_table(f"rope_cos#theta={theta:g}", QWEN3, count), cos, atol=1e-5
    )
    np.testing.assert_allclose(
        derived_table(f"rope_sin#theta={theta:g}", QWEN3, count), sin, atol=1e-5
    )


@given(positions_counts, st.integers(-3, 3))
def test_shifted_table(count: int, shift: int) -> None:
    if count <= abs(shift):
        return
    cos, sin = _direct(np.arange(count) + shift, QWEN3.rope.rope_theta, QWEN3.head_dim)
    for base, expected in (("rope_cos", cos), ("rope_sin", sin)):
        table = derived_table(f"{base}#shift={shift}", QWEN3, count)
        assert table.shape == expected.shape
        np.testing.assert_allclose(table, expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize("shift", [-1, 1])
def test_a_table_of_any_length_shifts(count: int, shift: int) -> None:
    cos, sin = _direct(np.arange(count) + shift, QWEN3.rope.rope_theta, QWEN3.head_dim)
    for base, expected in (("rope_cos", cos), ("rope_sin", sin)):
        table = derived_table(f"{base}#shift={shift}", QWEN3, count)
        assert table.shape == expected.shape
        np.testing.assert_allclose(table, expected, atol=1e-6)


@given(positions_counts)
def test_half_table(count: int) -> None:
    right = rope_tables(QWEN3, count)
    quarter = QWEN3.head_dim // 4
    for number, (base, still) in enumerate((("rope_cos", 1.0), ("rope_sin", 0.0))):
        table = derived_table(f"{base}#half=1", QWEN3, count)
        np.testing.assert_array_equal(table[:, :quarter], right[number][:, :quarter])
        assert np.all(table[:, quarter:] == still)


def test_derived_names() -> None:
    assert is_derived("rope_cos#half=1")
    assert not is_derived("rope_cos")


def test_changes_of_one_table_are_put_together() -> None:
    """In whichever order, and equal tables have equal names."""
    one = derived(derived(derived("rope_sin", half=1), shift=1), theta=1e4)
    other = derived(derived(derived("rope_sin", theta=1e4), shift=1), half=1)
    assert one == other == "rope_sin#theta=10000#shift=1#half=1"
    assert derived(derived("rope_cos", shift=1), shift=-1) == "rope_cos"
    assert derived(derived("rope_cos", theta=1e4), theta=1e6) == derived("rope_cos", theta=1e6)
    cos, sin = _direct(np.arange(9) + 1, 1e4, QWEN3.head_dim)
    quarter = QWEN3.head_dim // 4
    cos[:, quarter:], sin[:, quarter:] = 1.0, 0.0
    np.testing.assert_allclose(derived_table(one, QWEN3, 9), sin, atol=1e-5)
    np.testing.assert_allclose(derived_table(one.replace("sin", "cos"), QWEN3, 9), cos, atol=1e-5)
