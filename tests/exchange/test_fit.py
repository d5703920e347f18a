"""What a map says of a dump's tensor, undone: for any shape, the golden's values come back."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from goldenctl.errors import UsageError
from goldenctl.exchange.dump_tensor import DumpTensor
from goldenctl.exchange.fit import Fit
from goldenctl.exchange.namemap import Entry, NameMap, encode, fill, load_map, matches
from goldenctl.golden.schema import TensorInfo

Array = NDArray[Any]
SMALL = st.integers(1, 4)
DIMS = ("batch", "token", "head", "head_dim")


def info_of(values: Array, dims: tuple[str, ...], name: str = "output") -> TensorInfo:
    path = f"cases/a/steps/00/layers/07/attention/{name}"
    return TensorInfo(path, "float32", values.shape, dims, "output", "", 0, 0, values.nbytes, "", 0)


def dumped(values: Array, name: str = "x") -> DumpTensor:
    return DumpTensor(name, str(values.dtype), values.shape, "dump", lambda: values)


def fitted(
    entry: Entry, golden: Array, dims: tuple[str, ...], *pieces: Array, **sizes: int
) -> Array:
    start = sizes.pop("start", 0)
    tensors = [dumped(np.ascontiguousarray(piece)) for piece in pieces]
    return Fit(entry, info_of(golden, dims), tensors, sizes, start=start).values()


def numbered(*shape: int) -> Array:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


@given(SMALL, SMALL, SMALL, SMALL, st.integers(1, 3), st.integers(0, 2))
def test_parts_of_a_fused_tensor(
    tokens: int, kv_heads: int, group: int, width: int, ranks: int, part: int
) -> None:
    """Whole, cut into ranks, and interleaved by key/value head, in any number of ranks."""
    kv_heads *= ranks
    heads = kv_heads * group
    sizes = {"head": heads, "kv_head": kv_heads, "head_dim": width, "token": tokens}
    q, k, v = (
        numbered(tokens, n * width) + 1000 * i for i, n in enumerate((heads, kv_heads, kv_heads))
    )
    wanted = (q, k, v)[part]
    golden = wanted.reshape(1, tokens, -1, width)
    dims = ("batch", "token", "head" if part == 0 else "kv_head", "head_dim")
    split = ("head*head_dim", "kv_head*head_dim", "kv_head*head_dim")
    entry = Entry("g", "x{rank}" if ranks > 1 else "x", split=split, part=part, ranks=ranks)
    by_rank = [
        np.concatenate([np.split(a, ranks, axis=1)[rank] for a in (q, k, v)], axis=1)
        for rank in range(ranks)
    ]
    np.testing.assert_array_equal(fitted(entry, golden, dims, *by_rank, **sizes), golden)
    blocks = [a.reshape(tokens, kv_heads, -1) for a in (q, k, v)]
    mixed = np.concatenate(blocks, axis=2).reshape(tokens, -1)
    by_block = Entry("g", entry.dump, split=split, part=part, ranks=ranks, per="kv_head")
    pieces = np.split(mixed, ranks, axis=1)
    np.testing.assert_array_equal(fitted(by_block, golden, dims, *pieces, **sizes), golden)


@given(st.tuples(SMALL, SMALL, SMALL, SMALL), st.integers(2, 4), st.integers(0, 3), st.booleans())
def test_ranks_are_joined_along_an_axis(
    shape: tuple[int, int, int, int], ranks: int, axis: int, from_end: bool
) -> None:
    golden = numbered(*(size * (ranks if at == axis else 1) for at, size in enumerate(shape)))
    entry = Entry("g", "x{rank}", ranks=ranks, join=axis - 4 if from_end else axis)
    pieces = np.split(golden, ranks, axis=axis)
    np.testing.assert_array_equal(fitted(entry, golden, DIMS, *pieces), golden)


def test_ranks_are_added() -> None:
    golden = numbered(1, 2, 3, 4)
    entry = Entry("g", "x{rank}", ranks=2, join="sum")
    np.testing.assert_array_equal(fitted(entry, golden, DIMS, golden * 0.25, golden * 0.75), golden)


@given(SMALL, SMALL, SMALL, SMALL, SMALL, st.booleans())
def test_both_ends_of_an_axis_are_cropped(
    tokens: int, vocab: int, before: int, behind: int, rows: int, named: bool
) -> None:
    golden = numbered(1, tokens, vocab)
    dims = ("batch", "token", "vocab")
    longer = np.pad(golden, ((0, 0), (before, 0), (0, behind)), constant_values=-1)
    axes = dims if named else None
    entry = Entry("g", "x", axes=axes, crop=("vocab",), crop_front=("token",))
    sizes = {"token": tokens, "vocab": vocab, "batch": 1}
    np.testing.assert_array_equal(fitted(entry, golden, dims, longer, **sizes), golden)
    flat = longer.reshape(tokens + before, -1)
    if vocab > 1 or named:
        entry = Entry(
            "g", "x", axes=dims[1:] if named else None, crop=("vocab",), crop_front=("token",)
        )
        np.testing.assert_array_equal(fitted(entry, golden, dims, flat, **sizes), golden)


@given(st.lists(SMALL, min_size=1, max_size=4), SMALL, st.data())
def test_a_step_takes_its_own_tokens_of_all(steps: list[int], width: int, data: Any) -> None:
    whole = numbered(1, sum(steps), width)
    step = data.draw(st.integers(0, len(steps) - 1))
    start = sum(steps[:step])
    golden = whole[:, start : start + steps[step]]
    entry = Entry("g", "x", stacked=True)
    dims = ("batch", "token", "hidden")
    sizes = {"token": steps[step], "hidden": width}
    for dump in (whole, whole[0]):
        if width > 1 or dump.ndim == 3:
            got = fitted(entry, golden, dims, dump, start=start, **sizes)
            np.testing.assert_array_equal(got, golden)


@given(SMALL, SMALL, st.integers(1, 4), st.booleans())
def test_heads_in_the_other_layout(tokens: int, heads: int, half: int, merged: bool) -> None:
    golden = numbered(1, tokens, heads, 2 * half)
    pairs = golden.reshape(1, tokens, heads, 2, half).swapaxes(-1, -2).reshape(golden.shape)
    shape = (tokens, heads * 2 * half) if merged else golden.shape
    got = fitted(Entry("g", "x", head_dim="interleaved"), golden, DIMS, pairs.reshape(shape))
    np.testing.assert_array_equal(got, golden)
    back = fitted(Entry("g", "x", head_dim="halves"), pairs, DIMS, golden.reshape(shape))
    np.testing.assert_array_equal(back, pairs)


@given(st.integers(0, 99_999), st.integers(0, 30), st.sampled_from("+-"), st.integers(1, 9))
def test_numbers_that_count_from_elsewhere(offset: int, layer: int, sign: str, digits: int) -> None:
    info = TensorInfo(
        f"cases/a/steps/02/layers/{layer:02}/mlp/output", "float32", (1,), ("x",), "output", "add",
        0, 0, 4, "", 0,
    )  # fmt: skip
    number = layer + (offset if sign == "+" else -offset)
    assert fill(f"l{{layer{sign}{offset}}}", info) == f"l{number}"
    assert fill(f"l{{layer{sign}{offset}:0{digits}}}", info) == f"l{number:0{digits}d}"
    assert fill("{step+1}.{rank-1}", info, rank=3) == "3.2"


@pytest.mark.parametrize(
    ("entry", "shapes", "said"),
    [
        (Entry("g", "x{rank}", ranks=2), [(2, 3), (3, 3)], "which do not join along axis -1"),
        (Entry("g", "x{rank}", ranks=2, join=5), [(2, 3)] * 2, "which do not join along axis 5"),
        (Entry("g", "x{rank}", ranks=2, join="sum"), [(2, 3), (2, 4)], "they cannot be added"),
        (Entry("g", "x{rank}", ranks=2), [(2, 3)] * 2, "has shape [2, 6], expected [batch 1"),
        (Entry("g", "x", crop=("token",)), [(1, 9)], "expected [batch 1, token 2, head 3"),
        (Entry("g", "x", axes=("token", "head", "head_dim"), crop_front=("token",)),
         [(1, 3, 4)], "expected [token 2, head 3, head_dim 4]"),
        (Entry("g", "x", split=("head", "head"), per="head_dim"), [(2, 7)], "split gives [3, 3]"),
        (Entry("g", "x", split=("head",), per="wrong"), [(2, 3)], "no dimension 'wrong'"),
        (Entry("g", "x", stacked=True), [(1, 3, 4)], "expected [token 2, head 3, head_dim 4]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(
    entry: Entry, shapes: list[tuple[int, ...]], said: str
) -> None:
    golden = numbered(1, 2, 3, 4)
    sizes = dict(zip(DIMS, golden.shape, strict=True))
    with pytest.raises(UsageError) as caught:
        fitted(entry, golden, DIMS, *(numbered(*shape) for shape in shapes), **sizes)
    assert said in str(caught.value)


def test_an_odd_head_dim_has_no_pairs() -> None:
    golden = numbered(1, 2, 3, 3)
    with pytest.raises(UsageError, match="needs a golden with an even head_dim"):
        fitted(Entry("g", "x", head_dim="interleaved"), golden, DIMS, golden)


def test_ranks_of_several_types_are_refused() -> None:
    golden = numbered(1, 2, 3, 4)
    entry = Entry("g", "x{rank}", ranks=2, join=0)
    with pytest.raises(UsageError, match="is float16, float32 in rank 0"):
        fitted(entry, golden, DIMS, golden, golden.astype(np.float16))


def test_shapes_alone_take_no_memory() -> None:
    """A dump may declare what no machine holds: it is refused by its shape."""
    huge = DumpTensor("x", "float32", (1 << 40, 1 << 20), "dump", lambda: numbered(1))
    golden = numbered(1, 2, 3, 4)
    sizes = dict(zip(DIMS, golden.shape, strict=True))
    for entry in (Entry("g", "x"), Entry("g", "x", axes=("token", "head"), crop=("token",))):
        with pytest.raises(UsageError, match="has shape"):
            Fit(entry, info_of(golden, DIMS), [huge], sizes)


def test_a_map_of_every_key_is_written_and_read() -> None:
    entry = Entry(
        "layers.{layer}.attention.k_proj", "r{rank}.{layer+1:02}", split=("head", "head"), part=1,
        axes=("token", "head*head_dim"), crop=("vocab",), plus="y{rank}", dtype="bfloat16",
        per="kv_head", ranks=2, join="sum", crop_front=("token",), stacked=True,
        head_dim="interleaved",
    )  # fmt: skip
    mapping = NameMap(map_version=1, engine='a "name" \\ é', tensor=(entry,))
    assert msgspec.convert(tomllib.loads(encode(mapping)), NameMap) == mapping


@pytest.mark.parametrize("field", ["{case}", "{step}", "{layer}"])
def test_patterns_do_not_search(field: str) -> None:
    """However many fields a pattern has, it is filled once and compared."""
    info = TensorInfo(
        f"cases/{'a' * 120}/steps/00/layers/07/mlp/output", "float32", (1,), ("x",), "output",
        "add", 0, 0, 4, "", 0,
    )  # fmt: skip
    assert not matches("cases/" + field * 5_000 + "/x", info)
    assert matches("cases/{case}/steps/{step}/layers/{layer}/mlp/output", info)


def test_the_maps_in_the_documentation_are_maps(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "moving-goldens.md"
    blocks = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    maps = [block for block in blocks if "[[tensor]]" in block]
    assert len(maps) >= 2
    for block in maps:
        head = "" if "map_version" in block else "map_version = 1\n"
        (tmp_path / "m.toml").write_text(head + block)
        assert load_map(tmp_path / "m.toml").tensor
    for field in msgspec.structs.fields(Entry):
        assert f"`{field.name}`" in page.read_text(encoding="utf-8")
