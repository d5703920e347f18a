"""Files of many tensors, empty ones too, and what a file says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from golden_files import GROUP, IDS, OUTPUT, bits, small_file, spec, write_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goldenctl.digests import of_bytes
from goldenctl.dtypes import DTYPES
from goldenctl.golden.file import open_golden
from goldenctl.golden.schema import ALIGNMENT_BYTES, SublayerInfo
from goldenctl.golden.writer import GoldenWriter

# NaNs with a payload and a sign, signalling ones, infinities, subnormals, minus zero.
ODD_BITS = {
    "bfloat16": [0x7F81, 0xFFC1, 0x7FFF, 0x7F80, 0xFF80, 0x0001, 0x807F, 0x8000],
    "float16": [0x7C01, 0xFE01, 0x7FFF, 0x7C00, 0xFC00, 0x0001, 0x83FF, 0x8000],
    "float32": [0x7F800001, 0xFFC12345, 0x7F800000, 0x00000001, 0x807FFFFF, 0x80000000],
    "float64": [0x7FF0000000000001, 0xFFF8000000012345, 0x7FF0000000000000, 1, 1 << 63],
}
shapes = st.lists(st.integers(0, 5), min_size=1, max_size=5).map(tuple)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=12)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(shapes)
    count = int(np.prod(shape))
    seed = draw(st.integers(0, 1 << 32))
    raw = np.random.Generator(np.random.PCG64(seed)).bytes(count * DTYPES[dtype].itemsize)
    return np.frombuffer(raw, DTYPES[dtype].numpy).reshape(shape)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.dictionaries(names.map(lambda leaf: f"{GROUP}/{leaf}"), arrays(), min_size=1))
def test_any_tensors_come_back(tmp_path: Path, values: dict[str, np.ndarray[Any, Any]]) -> None:
    path = tmp_path / "any.h5"
    first, *_ = values
    offsets = write_file(path, values, links={"cases/a/link": first})
    golden = open_golden(path)
    assert list(golden.tensors) == list(values)
    assert golden.aliases == {"cases/a/link": first}
    for name, array in values.items():
        info = golden.info(name)
        assert (info.shape, info.nbytes) == (array.shape, array.nbytes)
        assert bytes(bits(golden.map(name))) == array.tobytes()
        assert info.digest == of_bytes(array.tobytes())
        if array.nbytes:  # an empty tensor has no place
            assert info.offset == offsets[name]
            assert info.offset % ALIGNMENT_BYTES == 0


@pytest.mark.parametrize("dtype", sorted(ODD_BITS))
def test_odd_floats_keep_their_bits(tmp_path: Path, dtype: str) -> None:
    kind = DTYPES[dtype]
    array = np.array(ODD_BITS[dtype], f"u{kind.itemsize}").view(kind.numpy)
    write_file(tmp_path / "odd.h5", {OUTPUT: array})
    mapped = open_golden(tmp_path / "odd.h5").map(OUTPUT)
    assert mapped.dtype == kind.numpy
    assert mapped.view(f"u{kind.itemsize}").tolist() == ODD_BITS[dtype]


def test_a_link_is_the_tensor_itself(tmp_path: Path) -> None:
    golden = open_golden(small_file(tmp_path / "g.h5"))
    assert golden.info(f"{GROUP}/input") is golden.info(IDS)
    assert golden.map(f"{GROUP}/input").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_mapped_tensors_are_read_only(tmp_path: Path) -> None:
    mapped = open_golden(small_file(tmp_path / "g.h5")).map(OUTPUT)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1.0


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    failure = {"tap": "output", "reason": "status", "message": "ü\n\x1b"}
    recipe = {
        "text": "prompt " * 20_000,
        "cases": [{"name": "ä"}],
    }  # larger than an HDF5 header may be
    array = np.ones((1, 2), ml_dtypes.bfloat16)
    write_file(
        tmp_path / "run.h5",
        {OUTPUT: array},
        kind="run",
        recipe=recipe,
        sublayers=[SublayerInfo(GROUP, 12, "failed", failure)],
    )
    run = open_golden(tmp_path / "run.h5", kind="run")
    assert (run.kind, run.recipe, run.simulated) == ("run", recipe, False)
    assert run.sublayers == {GROUP: SublayerInfo(GROUP, 12, "failed", failure)}
    info = run.info(OUTPUT)
    assert (info.case, info.step, info.sublayer, info.tap) == ("a", "00", "embedding", "output")
    assert (info.dims, info.role, info.op) == (("batch", "token"), "tap", "linear")


def test_digests_and_times_given_are_those_stored(tmp_path: Path) -> None:
    tensors = [spec(OUTPUT, "int32", (4,)), spec(IDS, "int32", (4,))]
    with GoldenWriter(
        tmp_path / "g.h5", kind="run", recipe={}, tensors=tensors, links={}, groups=[]
    ) as writer:
        for name in writer.tensors:
            writer.write(name, bits(np.arange(4, dtype=np.int32)))
        writer.seal(
            digests={OUTPUT: f"blake3:{'ab' * 32}"},
            times_ns={IDS: 1234},
            recipe={"b": 2},
            simulated=True,
        )
    run = open_golden(tmp_path / "g.h5")
    assert (run.simulated, run.recipe) == (True, {"b": 2})
    assert run.info(OUTPUT).digest == f"blake3:{'ab' * 32}"
    assert run.info(IDS).digest == of_bytes(bytes(bits(np.arange(4, dtype="i4"))))
    assert (run.info(OUTPUT).time_ns, run.info(IDS).time_ns) == (0, 1234)


def test_pieces_written_out_of_order(tmp_path: Path) -> None:
    array = np.arange(100, dtype=np.float64)
    with GoldenWriter(
        tmp_path / "g.h5",
        kind="golden",
        recipe={},
        tensors=[spec(OUTPUT, "float64", (100,))],
        links={},
        groups=[],
    ) as writer:
        writer.write(OUTPUT, bits(array[60:]), 60 * 8)
        writer.write(OUTPUT, bits(array[:60]))
        with pytest.raises(ValueError, match="8 bytes exceed 800"):
            writer.write(OUTPUT, bits(array[:1]), 800)
        writer.seal()
    assert open_golden(tmp_path / "g.h5").map(OUTPUT).tolist() == array.tolist()


def test_equal_content_has_an_equal_digest_and_layout(tmp_path: Path) -> None:
    for name in ("one.h5", "two.h5"):
        small_file(tmp_path / name)
    one, two = (open_golden(tmp_path / name) for name in ("one.h5", "two.h5"))
    assert one.content_digest == two.content_digest
    assert one.tensors == two.tensors
