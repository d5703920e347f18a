"""Every exported format gives the same golden back, and says so of no other content."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError, UsageError
from goldenctl.exchange import catalog as catalogs
from goldenctl.exchange.archive import chunk_shape, write_archive
from goldenctl.exchange.bring import restore
from goldenctl.exchange.exports import open_export
from goldenctl.exchange.npz import narrow, widen, write_npz
from goldenctl.exchange.safetensors import write_safetensors
from goldenctl.exchange.select import select
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.recipe import parse_recipe
from goldenctl.golden.schema import TensorSpec
from goldenctl.golden.writer import GoldenWriter

Goldens = Callable[[str], GoldenFile]
WRITERS = {"h5": write_archive, "safetensors": write_safetensors, "npz": write_npz}


def exported(golden: GoldenFile, folder: Path, suffix: str, **chosen: object) -> Path:
    out = folder / f"out.{suffix}"
    WRITERS[suffix](out, golden, select(golden, **chosen))  # type: ignore[arg-type]
    return out


def brought_back(path: Path, out: Path) -> GoldenFile:
    with open_export(path) as opened:
        assert opened is not None
        restore(out, opened[0], opened[1], where=str(path))
    return open_golden(out)


def with_special_values(path: Path) -> GoldenFile:
    """Write a golden of every type, with NaN payloads, infinities, empty and odd shapes."""
    values = {}
    for dtype in DTYPES:
        bits = np.random.default_rng(1).integers(0, 256, 8 * 1000, np.uint8).tobytes()
        values[f"cases/a/steps/00/embedding/{dtype}"] = np.frombuffer(bits, DTYPES[dtype].numpy)[
            :999
        ].reshape(3, 1, 333)
    values["cases/a/steps/00/embedding/none"] = np.empty((0, 4, 2), np.float32)
    values["cases/a/steps/00/embedding/long"] = np.arange(700_000, dtype=np.int32).reshape(7, -1, 5)
    dims = ("batch", "token", "hidden")
    specs = [
        TensorSpec(name, a.dtype.name, a.shape, dims, "tap", "linear") for name, a in values.items()
    ]
    with GoldenWriter(path, kind="golden", recipe={}, tensors=specs, links={}, groups=[]) as writer:
        for name, array in values.items():
            writer.write(name, memoryview(array.tobytes()))
        writer.seal()
    return open_golden(path)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_the_same_file_comes_back(
    golden_in: Goldens, tmp_path: Path, suffix: str, dtype: str
) -> None:
    golden = golden_in(dtype)
    back = brought_back(exported(golden, tmp_path, suffix), tmp_path / "back.h5")
    assert back.content_digest == golden.content_digest
    assert back.path.read_bytes() == golden.path.read_bytes()
    assert back.created_utc == golden.created_utc != ""
    for name, info in golden.tensors.items():
        assert (back.info(name).time_ns, back.info(name).iqr_ns) == (info.time_ns, info.iqr_ns)


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_bit_of_every_type_comes_back(tmp_path: Path, suffix: str) -> None:
    golden = with_special_values(tmp_path / "g.h5")
    back = brought_back(exported(golden, tmp_path, suffix), tmp_path / "back.h5")
    assert back.content_digest == golden.content_digest
    for name in golden.tensors:
        assert back.map(name).tobytes() == golden.map(name).tobytes()


def test_an_archive_is_smaller_and_plain_h5py_reads_it(tmp_path: Path) -> None:
    golden = with_special_values(tmp_path / "g.h5")
    path = exported(golden, tmp_path, "h5", only=["*long", "*bfloat16", "*none"])
    with h5py.File(path) as file:
        long = file["cases/a/steps/00/embedding/long"]
        assert (long.chunks, long.shuffle, long.compression) == ((2, 20_000, 5), True, "gzip")
        assert [dim.label for dim in long.dims] == ["batch", "token", "hidden"]
        assert (long[...].reshape(-1) == np.arange(700_000)).all()
        name = "cases/a/steps/00/embedding/bfloat16"
        expected = np.asarray(golden.map(name), np.float32)
        np.testing.assert_array_equal(file[name][...].astype(np.float32), expected)
        assert file.attrs["format"] == b"goldenctl-archive"
    assert path.stat().st_size < 0.5 * golden.info("cases/a/steps/00/embedding/long").nbytes


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump is not installed")
def test_h5dump_reads_an_archive(golden_in: Goldens, tmp_path: Path) -> None:
    golden = golden_in("bfloat16")
    path = exported(golden, tmp_path, "h5")
    name = next(n for n in golden.tensors if n.endswith("layers/01/attention/q_norm"))
    done = subprocess.run(
        ["h5dump", "-y", "-w", "0", "-m", "%.17g", "-d", f"/{name}", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    numbers = done.stdout.split("DATA {")[1].split("}")[0].replace(",", " ").split()
    expected = np.asarray(golden.map(name), np.float64).reshape(-1)
    assert list(map(float, numbers)) == expected.tolist()


def test_the_safetensors_package_reads_ours(golden_in: Goldens, tmp_path: Path) -> None:
    golden = golden_in("bfloat16")
    path = exported(golden, tmp_path, "safetensors")
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(golden.tensors)
        name = next(n for n in golden.tensors if n.endswith("q_rope"))
        assert str(file.get_tensor(name).dtype) == "torch.bfloat16"
        assert file.get_tensor(name).float().numpy().tolist() == (
            np.asarray(golden.map(name), np.float32).tolist()
        )
        said = file.metadata()
    assert said["goldenctl.source_content_digest"] == golden.content_digest
    assert said["goldenctl.model"] == golden.recipe["model"]["fingerprint"]


def test_numpy_reads_ours(golden_in: Goldens, tmp_path: Path) -> None:
    golden = golden_in("bfloat16")
    with np.load(exported(golden, tmp_path, "npz"), allow_pickle=False) as file:
        name = next(n for n in golden.tensors if n.endswith("q_rope"))
        assert file[name].dtype == np.float32
        np.testing.assert_array_equal(file[name], np.asarray(golden.map(name), np.float32))


def test_widening_bfloat16_is_exact() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    back = narrow(widen(bits))
    assert back is not None
    assert (back == bits).all()
    finite = np.isfinite(bits.view(ml_dtypes.bfloat16).astype(np.float32))
    assert (widen(bits)[finite] == bits.view(ml_dtypes.bfloat16).astype(np.float32)[finite]).all()
    assert narrow(np.array([1.001], np.float32)) is None


def test_a_part_is_a_golden_of_its_own(golden_in: Goldens, tmp_path: Path) -> None:
    golden = golden_in("float32")
    case = next(i.case for i in golden.tensors.values() if i.case)
    path = exported(golden, tmp_path, "h5", only=["layers.01.*"], cases=[case])
    part = brought_back(path, tmp_path / "part.h5")
    assert {i.case for i in part.tensors.values()} == {case}
    assert {i.sublayer for i in part.tensors.values()} >= {"layers.01.attention", "layers.01.mlp"}
    assert len(part.tensors) < len(golden.tensors) / 8
    assert part.recipe["part_of"] == golden.content_digest
    assert parse_recipe(part.recipe, "part").part_of == part.recipe["part_of"]
    for name, info in part.tensors.items():
        assert info.digest == golden.info(name).digest
        assert part.map(name).tobytes() == golden.map(name).tobytes()
    assert part.aliases.items() <= golden.aliases.items()


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"only": ["nothing*"]}, "no tensor's name matches 'nothing*'"),
        ({"cases": ["z"]}, "there is no case 'z'; it has "),
    ],
)
def test_choosing_nothing(golden_in: Goldens, chosen: dict[str, list[str]], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(golden_in("float32"), **chosen)  # type: ignore[arg-type]
    assert said in str(caught.value)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_changed_byte_is_found(golden_in: Goldens, tmp_path: Path, suffix: str) -> None:
    """Wherever the data are damaged, nothing is written."""
    golden = golden_in("float32")
    path = exported(golden, tmp_path, suffix, only=["layers.01.mlp.*"])
    data = bytearray(path.read_bytes())
    out = tmp_path / "back.h5"
    for place in range(len(data) // 2, len(data), len(data) // 16):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            back = brought_back(path, out)
        except DamagedError:
            assert not out.exists()
        else:  # a byte that means nothing: padding of a chunk, a date
            assert all(back.tensors[n].digest == golden.tensors[n].digest for n in back.tensors)
            out.unlink()


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("kept", [0, 20, -5])
def test_a_cut_file(golden_in: Goldens, tmp_path: Path, suffix: str, kept: int) -> None:
    path = exported(golden_in("float32"), tmp_path, suffix)
    path.write_bytes(path.read_bytes()[:kept])
    try:
        with open_export(path) as opened:
            if opened is not None:
                restore(tmp_path / "back.h5", opened[0], opened[1], where="x")
            assert opened is None
    except DamagedError:
        pass
    assert not (tmp_path / "back.h5").exists()


def catalog_with(golden: GoldenFile, old: bytes, new: bytes) -> bytes:
    data = catalogs.encode(select(golden, only=["layers.01.mlp.output"]))
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"catalog_version":2', b'"catalog_version":3', "version 3, expected 2"),
        (b'"kind":"golden"', b'"kind":"other"', "kind 'other'"),
        (b"mlp/output", b"../output", "name "),
        (b"mlp/output", b"/output", "name "),
        (b"mlp/output", b"mlp\\u001b/output", "name "),
        (b'"dtype":"float32","shape"', b'"dtype":"object","shape"', "dtype 'object'"),
        (b'"shape":[1,', b'"shape":[-1,', "shape [-1"),
        (b'"shape":[1,', b'"shape":[1,1,', "dims do not fit"),
        (b'"shape":[1,', b'"shape":[1152921504606846976,', "shape [1152921504606846976"),
        (b'"role":"output"', b'"role":"none"', "role 'none'"),
        (b'"digest":"', b'"digest":"g', "expected blake3 or sha256"),
        (b'"simulated":false', b'"simulated":false,"more":1', "unknown field"),
        (b"{", b"[", "not readable"),
        (b'"taps":"op"', b'"taps":"x"', "recipe: "),
        (b'"sublayers":[{', b'"sublayers":[{"iqr_ns":-1,', "a sublayer's time is out of range"),
    ],
)
def test_wrong_catalogs(golden_in: Goldens, old: bytes, new: bytes, said: str) -> None:
    data = catalog_with(golden_in("float32"), old, new)
    with pytest.raises(DamagedError) as caught:
        catalogs.decode(data, "x.npz")
    assert said in str(caught.value)
    assert str(caught.value).startswith("x.npz: ")


def test_a_bomb_is_not_unpacked(golden_in: Goldens, tmp_path: Path) -> None:
    """A catalog that claims a terabyte for a small member is refused before memory is taken."""
    golden = golden_in("float32")
    small = b'"shape":[1,5,64]'
    huge = b'"shape":[1,4000000000,64]'
    path = exported(golden, tmp_path, "npz", only=["layers.01.mlp.output"])
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == "goldenctl.json":
                data = data.replace(small, huge)
            else:
                head = io.BytesIO()
                header = {"descr": "<f4", "fortran_order": False, "shape": (1, 4_000_000_000, 64)}
                np.lib.format.write_array_header_1_0(head, header)
                data = head.getvalue() + data[128:]
            new.writestr(info.filename, data)
    with pytest.raises(DamagedError, match=r"claims|bytes"):
        brought_back(bomb, tmp_path / "back.h5")


@pytest.mark.parametrize(
    ("shape", "itemsize", "chunk"),
    [
        ((1, 5, 64), 4, (1, 5, 64)),
        ((7, 20_000, 5), 4, (2, 20_000, 5)),
        ((3, 1 << 20), 4, (1, 1 << 18)),
        ((1, 4096, 4096), 2, (1, 128, 4096)),
        ((5,), 8, (5,)),
    ],
)
def test_chunks_are_contiguous_pieces(
    shape: tuple[int, ...], itemsize: int, chunk: tuple[int, ...]
) -> None:
    assert chunk_shape(shape, itemsize) == chunk


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_damaged_golden_is_not_exported(tmp_path: Path, suffix: str) -> None:
    golden = with_special_values(tmp_path / "g.h5")
    data = bytearray(golden.path.read_bytes())
    data[golden.info("cases/a/steps/00/embedding/long").offset + 1000] ^= 1
    golden.path.write_bytes(data)
    with pytest.raises(DamagedError, match="embedding/long"):
        exported(golden, tmp_path, suffix)


@pytest.mark.parametrize(
    ("limit", "said"), [(None, "a group is linked twice"), (5, "more objects or deeper groups")]
)
def test_the_walk_over_an_archive_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, said: str
) -> None:
    path = exported(with_special_values(tmp_path / "g.h5"), tmp_path, "h5")
    with h5py.File(path, "r+") as file:
        if limit is None:  # each level leads to all others: walked again, it would not end
            file["cases/a"]["again"] = file["cases"]
    monkeypatch.setattr("goldenctl.exchange.archive._MAX_OBJECTS", limit or 1000)
    with pytest.raises(DamagedError, match=said):
        brought_back(path, tmp_path / "back.h5")
