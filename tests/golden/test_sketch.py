"""Tests of the sketch: it is the same everywhere, it estimates distances, it sees single rows."""

from __future__ import annotations

import math

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from goldenctl.golden.sketch import (
    RESOLUTION,
    Sketch,
    distance,
    group_rows,
    row_budget,
    sketch_of,
)

Floats = NDArray[np.float64]
SHAPE = (1, 24, 4, 32)  # batch, token, head, head_dim: 96 rows, 3 to a group
PROJECTION = (
    "DT6WPZHNOz4NPpa8DT4WvhRd4b0NPpY8DT4Wvg0+Fr2RzTs+DT4WPi3ajL4AAAAAFF1hPQ0+lrwNPhY9DT4WPc8F"
    "KT6Rzbu9kc27PRRdYb0UXWG9FF3hvVKVTr4UXeE9DT4WvQ0+lj0NPpY9kc27PQ0+lj0NPpY9THYDPgAAAACRzbs9"
    "FF1hvQ0+lrwUXWG9DT6WvQ0+lj0NPpa8FF1hPZHNOz5MdgO+kc07Pg0+lr0NPha+FF1hvgAAAAAUXWG9AAAAAJHN"
    "u70NPpY81iR0PhRd4b0NPha9DT6WPZHNu70NPhY9DT6WPQAAAACRzTu+zwUpvhRdYb0AAAAAAAAAAA=="
)
ROWS = "KX7r+C0PLQ8efvId+PSxGDB+Hvb6AfEE"
KINDS = ("dense", "row", "head", "channel", "scaled", "offset", "one", "few")


def error_like(kind: str, x: Floats, rng: np.random.Generator) -> Floats:
    """An error of one kind, of norm 1."""
    error = np.zeros_like(x)
    rows = error.reshape(-1, x.shape[-1])
    if kind == "dense":
        error[:] = rng.standard_normal(x.shape)
    elif kind == "row":
        rows[rng.integers(len(rows))] = rng.standard_normal(x.shape[-1])
    elif kind == "head":
        error[:, :, rng.integers(x.shape[2])] = rng.standard_normal((*x.shape[:2], x.shape[3]))
    elif kind == "channel":
        error[..., rng.integers(x.shape[-1])] = rng.standard_normal(x.shape[:-1])
    elif kind == "scaled":
        error[:] = x
    elif kind == "offset":
        error[:] = 1.0
    elif kind == "one":
        error.reshape(-1)[rng.integers(x.size)] = 1.0
    else:
        error.reshape(-1)[rng.choice(x.size, 8, replace=False)] = rng.standard_normal(8)
    return error / np.linalg.norm(error)


def draw(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Activations whose channels differ in size, as real ones do."""
    return rng.standard_normal(shape) * np.exp(rng.standard_normal(shape[-1]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_95_of_100_estimates_are_within_a_quarter(kind: str, dtype: type) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    within = 0
    for size in np.geomspace(1e-3 if dtype is np.float32 else 1e-2, 0.3, 100):
        x = draw(SHAPE, rng)
        error = size * np.linalg.norm(x) * error_like(kind, x, rng)
        actual, expected = (x + error).astype(dtype), x.astype(dtype)
        true = np.linalg.norm(actual.astype(float) - expected.astype(float))
        true /= np.linalg.norm(expected.astype(float))
        estimate = distance(sketch_of(actual), sketch_of(expected)).rel_l2
        within += abs(estimate / true - 1.0) <= 0.25
    assert within >= 95


def test_a_distance_of_1e_6_is_still_seen() -> None:
    x = np.random.default_rng(3).standard_normal((4, 50, 64))
    error = np.random.default_rng(4).standard_normal(x.shape)
    actual = x + 1e-6 * error
    estimate = distance(sketch_of(actual), sketch_of(x)).rel_l2
    assert abs(estimate / 1e-6 - 1.0) < 0.3


def test_the_resolution_bounds_what_rounding_adds() -> None:
    x = np.random.default_rng(5).standard_normal((40, 64))
    shrunk = distance(sketch_of(x * (1 + 1e-9)), sketch_of(x))
    assert shrunk.rel_l2 < RESOLUTION


@pytest.mark.parametrize("token", [0, 11, 23])
def test_one_wrong_row_of_many_stands_out_of_its_group(token: int) -> None:
    rng = np.random.default_rng(6)
    x = draw(SHAPE, rng).astype(np.float32)
    actual = x + np.float32(3e-3) * x * rng.standard_normal(SHAPE).astype(np.float32)
    actual[0, token, 2] = -actual[0, token, 2]
    gap = distance(sketch_of(actual), sketch_of(x))
    worst = int(np.argmax(gap.row_errors / gap.row_norms))
    first, last = group_rows(SHAPE, worst)
    assert first <= token * 4 + 2 < last
    others = np.delete(gap.row_errors / gap.row_norms, worst)
    assert gap.row_errors[worst] / gap.row_norms[worst] > 10 * others.max()


def test_a_row_of_another_length_shows_in_the_row_norms() -> None:
    x = np.random.default_rng(7).standard_normal((32, 64))
    actual = x.copy()
    actual[17] *= 1.5
    changes = distance(sketch_of(actual), sketch_of(x)).row_norm_changes
    assert int(changes.argmax()) == 17
    true = 0.5 * np.linalg.norm(x[17]) / np.linalg.norm(x)
    assert abs(changes[17] / true - 1) < 0.02
    assert np.delete(changes, 17).max() < 0.02 * changes[17]


def test_a_sketch_is_these_bytes_on_every_machine() -> None:
    values = (np.arange(3 * 70, dtype=np.float32).reshape(3, 70) % 13 - 6) / 4
    assert sketch_of(values) == Sketch(
        norm=13.631305880215585,
        projection=PROJECTION,
        rows=ROWS,
    )


def test_it_does_not_depend_on_memory_layout() -> None:
    x = np.random.default_rng(8).standard_normal((30, 3000)).astype(np.float32)
    assert sketch_of(np.asfortranarray(x)) == sketch_of(x)
    assert sketch_of(x[::-1]) == sketch_of(x[::-1].copy())


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 40), max_size=4).map(tuple),
    scale=st.sampled_from([0.0, 1e-320, 1e-30, 1.0, 1e30, 1e300]),
    seed=st.integers(0, 99),
)
def test_any_shape_and_size_is_sketched_and_read_back(
    shape: tuple[int, ...], scale: float, seed: int
) -> None:
    x = scale * np.random.default_rng(seed).standard_normal(shape)
    sketch = sketch_of(np.asarray(x))
    assert msgspec.json.decode(msgspec.json.encode(sketch), type=Sketch) == sketch
    assert distance(sketch, sketch).rel_l2 == 0.0
    if scale >= 1e-30:
        with np.errstate(over="ignore"):
            true = float(np.max(np.abs(x), initial=0) * np.sqrt(x.size))
        assert sketch.norm <= true * (1 + 1e-12)
    twice = distance(sketch_of(np.asarray(2.0 * x)), sketch)
    # A norm of 1e-320 has but three digits.
    assert twice.norm_ratio == pytest.approx(1.0 if sketch.norm == 0 else 2.0, rel=1e-3)


@pytest.mark.parametrize("where", [0, 5, 63])
def test_non_finite_elements_are_counted_and_placed(where: int) -> None:
    x = np.random.default_rng(9).standard_normal((4, 16))
    clean = sketch_of(x)
    x.reshape(-1)[where] = math.nan
    x.reshape(-1)[40] = -math.inf
    sketch = sketch_of(x)
    assert sketch.non_finite is not None
    counts = sketch.non_finite
    assert (counts.nan, counts.inf, counts.negative_inf) == (1, 0, 1)
    assert not distance(sketch, clean).same_places
    moved = x.copy()
    moved[3, 15], moved[1, 1] = moved[1, 1], math.nan
    assert not distance(sketch_of(moved), sketch).same_places
    assert distance(sketch, sketch).same_places


def test_a_budget_is_kept_for_the_whole_and_for_each_group() -> None:
    x = np.random.default_rng(10).standard_normal((8, 64))
    norms = np.linalg.norm(x, axis=1)
    limits = np.stack([norms * factor for factor in (0.001, 0.01, 0.1)])
    sketch = sketch_of(x, row_limits=limits)
    assert sketch.budget == {"op": 0.001, "sublayer": 0.01, "chain": 0.1}
    stored = row_budget(sketch, "sublayer")
    assert stored is not None
    exact = limits[1] / np.linalg.norm(norms)
    assert (stored >= exact).all()
    assert (stored <= exact * 1.13).all()


def test_logits_keep_their_top_and_margin() -> None:
    logits = np.zeros((1, 6, 50), np.float32)
    logits[0, 5, [7, 3, 9]] = [4.0, 2.5, 1.0]
    logits[0, 5, 11] = math.nan
    top = sketch_of(logits, top=True).top
    assert [row.row for row in top] == [2, 3, 4, 5]
    assert top[-1].ids[:3] == (7, 3, 9)
    assert top[-1].margin == 1.5


@pytest.mark.parametrize(
    "damage",
    [{"projection": "AAAA"}, {"projection": "%"}, {"rows": "AAAA"}, {"rows": ""}],
    ids=lambda damage: next(iter(damage)),
)
def test_a_damaged_sketch_is_refused(damage: dict[str, str]) -> None:
    good = sketch_of(np.ones((4, 8)))
    with pytest.raises(ValueError, match=next(iter(damage)).rstrip("s")):
        distance(msgspec.structs.replace(good, **damage), good)


def test_integers_are_refused() -> None:
    with pytest.raises(ValueError, match="int32"):
        sketch_of(np.zeros(3, np.int32))


def test_limits_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        sketch_of(np.ones((4, 8)), row_limits=np.ones((3, 5)))


def test_it_is_small() -> None:
    x = np.random.default_rng(11).standard_normal((1, 64, 16, 128)).astype(np.float32)
    limits = np.full((3, 64 * 16), 0.1)
    assert len(msgspec.json.encode(sketch_of(x, row_limits=limits))) < 1000
