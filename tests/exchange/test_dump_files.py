"""The files of a dump: each is read, or named in one line; none spoils another."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from goldenctl.errors import DamagedError, GoldenctlError, MissingError, UsageError
from goldenctl.exchange import dump_torch
from goldenctl.exchange.dump import Dump, read_dump
from goldenctl.exchange.fit import Fit
from goldenctl.exchange.namemap import Entry
from goldenctl.golden.schema import TensorInfo

GOOD = np.arange(6, dtype=np.float32).reshape(2, 3)


def safetensors_of(entries: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A file of these (tag, shape, bytes), of types that no package here writes too."""
    header, data = {}, b""
    for name, (tag, shape, content) in entries.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": tag, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def refused(dump: Dump, name: str) -> str:
    """What asking for a tensor says."""
    info = TensorInfo("a/x", "float32", (2, 3), ("x", "y"), "output", "", 0, 0, 24, "", 0)
    with pytest.raises(GoldenctlError) as caught:
        Fit(Entry("x", name), info, [dump[name]], {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


TAGS = {
    "C64": ([1], bytes(8)),
    "F4": ([4], bytes(2)),
    "F6_E2M3": ([4], bytes(3)),
    "F6_E3M2": ([4], bytes(3)),
    "F8_E4M3": ([4], bytes(4)),
    "F8_E5M2": ([4], bytes(4)),
    "F8_E8M0": ([4], bytes(4)),
    "F8_E4M3FNUZ": ([4], bytes(4)),
    "F8_E5M2FNUZ": ([4], bytes(4)),
    "U64": ([1], bytes(8)),
    "F9_NOT_YET": ([4], bytes(5)),
}


def test_every_type_of_safetensors_is_listed_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    entries = {tag: (tag, *rest) for tag, rest in TAGS.items()}
    path.write_bytes(safetensors_of({**entries, "good": ("F32", [2, 3], GOOD.tobytes())}))
    dump = read_dump(path)
    assert {name: t.dtype for name, t in dump.items()} == {
        **{t: t for t in TAGS},
        "good": "float32",
    }
    np.testing.assert_array_equal(dump["good"].read(), GOOD)
    for tag in TAGS:
        assert f"has type {tag}, which cannot be compared" in refused(dump, tag)


ARRAYS: dict[str, Any] = {
    "e5m2": np.zeros(3, ml_dtypes.float8_e5m2),
    "e4m3fn": np.zeros(3, ml_dtypes.float8_e4m3fn),
    "e4m3fnuz": np.zeros(3, ml_dtypes.float8_e4m3fnuz),
    "int4": np.zeros(3, ml_dtypes.int4),
    "texts": np.array(["a", "bc"]),
    "complex": np.zeros(3, np.complex64),
    "wide": np.zeros(3, np.longdouble),
    "flags": np.zeros(3, np.bool_),
    "objects": np.array([{"a": 1}], dtype=object),
    "records": np.zeros(2, [("a", "<f4"), ("b", "<i4")]),
    "times": np.zeros(2, "datetime64[s]"),
}


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_every_type_of_numpy_is_listed_and_spoils_no_other(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "d.npz"
    if kind == "npz":
        np.savez(path, good=GOOD, big=GOOD.astype(">f4"), **ARRAYS)
    else:
        path = tmp_path / "d"
        path.mkdir()
        for name, array in {"good": GOOD, "big": GOOD.astype(">f4"), **ARRAYS}.items():
            np.save(path / f"{name}.npy", array)
    dump = read_dump(path)
    assert set(dump) == {"good", "big", *ARRAYS}
    for name in ("good", "big"):
        np.testing.assert_array_equal(dump[name].read(), GOOD)
    assert dump["e5m2"].dtype == "float8_e5m2"
    for name in ARRAYS:
        said = refused(dump, name)
        assert "cannot be compared" in said or "Python objects or records" in said


def test_big_endian_bits_of_bfloat16(tmp_path: Path) -> None:
    bits = GOOD.astype(ml_dtypes.bfloat16).view(np.uint16)
    np.savez(tmp_path / "d.npz", x=bits.astype(">u2"))
    info = TensorInfo("a/x", "bfloat16", (2, 3), ("x", "y"), "output", "", 0, 0, 12, "", 0)
    dump = read_dump(tmp_path / "d.npz")
    fit = Fit(Entry("x", "x", dtype="bfloat16"), info, [dump["x"]], {})
    np.testing.assert_array_equal(fit.values().astype(np.float32), GOOD)


def test_a_damaged_member_of_an_npz_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad.npy", b"\x93NUMPY\x01\x00\xff\xff")
        archive.writestr("notes.txt", "hello")
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive,
        archive.open("packed.npy", "w") as member,
    ):
        np.lib.format.write_array(member, GOOD)
    with zipfile.ZipFile(path, "a") as archive, archive.open("good.npy", "w") as member:
        np.lib.format.write_array(member, GOOD)
    dump = read_dump(path)
    np.testing.assert_array_equal(dump["good"].read(), GOOD)
    assert "has a header of 65535 bytes" in refused(dump, "bad")
    assert "compressed by method 14, expected deflate" in refused(dump, "packed")


# --- PyTorch's own files ---


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path: Path, zipped: bool) -> None:
    """Containers become dotted names; every type that NumPy or ml_dtypes has is exact."""
    path = tmp_path / "d.bin"
    odd = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3) / 3
    state = OrderedDict(
        a={"b": [torch.from_numpy(GOOD), (odd.T, 3)], "text": "x"},
        grown=torch.nn.Parameter(torch.ones(2)),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        turn=torch.zeros(3, dtype=torch.complex64).conj(),
        sparse=torch.eye(3).to_sparse(),
    )
    if zipped:  # torch's legacy format has no such type
        state["code"] = torch.zeros(3, dtype=torch.float8_e5m2)
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    dump = read_dump(path)
    names = ["a.b.0", "a.b.1.0", "grown", "scalar", "empty", "turn", "sparse"]
    names += ["code"] if zipped else []
    assert list(dump) == names
    np.testing.assert_array_equal(dump["a.b.0"].read(), GOOD)
    assert dump["a.b.1.0"].read().dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(
        dump["a.b.1.0"].read().astype(np.float32), odd.T.to(torch.float32).numpy()
    )
    assert [dump[n].shape for n in ("grown", "scalar", "empty")] == [(2,), (), (0, 3)]
    for name in names[5:]:
        assert "cannot be compared" in refused(dump, name)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_spoils_no_other(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    torch.save({"nested": nested, "good": torch.from_numpy(GOOD)}, tmp_path / "d.pt")
    dump = read_dump(tmp_path / "d.pt")
    np.testing.assert_array_equal(dump["good"].read(), GOOD)
    assert "has type float32 (nested), which cannot be compared" in refused(dump, "nested")


def test_a_single_tensor_has_the_files_name(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(GOOD), tmp_path / "model.layers.0.pt")
    assert list(read_dump(tmp_path / "model.layers.0.pt")) == ["model.layers.0"]
    assert list(read_dump(tmp_path)) == ["model.layers.0"]


class Other:
    """What no dump should hold."""


@pytest.mark.parametrize("zipped", [True, False])
def test_more_than_tensors_is_refused_in_one_line(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "d.pt"
    torch.save({"x": torch.ones(2), "y": Other()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DamagedError, match="holds more than tensors") as caught:
        read_dump(path)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    assert "Other" in str(caught.value)
    assert "save a dict of tensors instead" in str(caught.value)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda p: torch.save({"a": 1, "b": ["text"]}, p), "it holds no tensor"),
        (lambda p: p.write_bytes(dump_torch.LEGACY_MAGIC + b"\x00" * 40), "not a usable dump"),
        (lambda p: p.write_bytes(b"garbage"), "it does not start as PyTorch does"),
        (lambda p: p.write_bytes(b""), "it does not start as PyTorch does"),
        (lambda p: torch.save({"a\x1b[2J": torch.ones(1)}, p), "unprintable"),
        (lambda p: torch.save({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, p), "there twice"),
    ],
    ids=["no tensor", "cut off", "garbage", "empty", "escape", "twice"],
)
def test_wrong_torch_files(tmp_path: Path, write: Callable[[Path], Any], said: str) -> None:
    path = tmp_path / "d.pt"
    write(path)
    with pytest.raises(DamagedError, match=said) as caught:
        read_dump(path)
    assert "\x1b" not in str(caught.value)


def test_a_program_is_no_dump(tmp_path: Path) -> None:
    path = tmp_path / "d.pt"
    with zipfile.ZipFile(path, "w") as archive:  # as torch.jit.save lays it out
        for name in ("data.pkl", "constants.pkl", "version", "code/__torch__.py"):
            archive.writestr(f"d/{name}", "3\n")
    with pytest.raises(DamagedError, match="a TorchScript program, which is not read"):
        read_dump(path)


def test_a_truncated_torch_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "d.pt"
    torch.save({"x": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(DamagedError, match="not a usable dump"):
        read_dump(path)


def test_containers_without_end_are_refused(tmp_path: Path) -> None:
    inner: list[Any] = [torch.ones(1)]
    inner.append(inner)
    torch.save(inner, tmp_path / "loop.pt")
    shared: list[Any] = [1]
    for _ in range(30):
        shared = [shared, shared]
    torch.save([torch.ones(1), shared], tmp_path / "shared.pt")
    for name in ("loop", "shared"):
        with pytest.raises(DamagedError, match="deeper or more containers"):
            read_dump(tmp_path / f"{name}.pt")


def test_without_torch_a_line_says_how_to_save_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"x": torch.ones(2)}, tmp_path / "d.pt")
    np.save(tmp_path / "good.npy", GOOD)
    monkeypatch.setattr(dump_torch.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match=r"safetensors.torch.save_file") as caught:
        read_dump(tmp_path / "d.pt")
    assert caught.value.exit_code == 3
    dump = read_dump(tmp_path)
    assert list(dump) == ["good"]
    (line,) = dump.left_out()
    assert line.startswith("not read: ")
    assert "the torch package is not installed" in line


# --- folders ---


def test_subfolders_give_names_their_folder(tmp_path: Path) -> None:
    for place in ("a", "l0/a", "l0/deep/a", "l1/a"):
        path = tmp_path / f"{place}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, GOOD)
    (tmp_path / ".hidden").mkdir()
    np.save(tmp_path / ".hidden" / "a.npy", GOOD)
    assert list(read_dump(tmp_path)) == ["a", "l0/a", "l0/deep/a", "l1/a"]


def test_files_with_the_same_names_give_them_their_own(tmp_path: Path) -> None:
    for layer in range(2):
        np.savez(tmp_path / f"layer{layer}.npz", q=GOOD, k=GOOD)
    np.save(tmp_path / "logits.npy", GOOD)
    assert list(read_dump(tmp_path)) == ["layer0/q", "layer0/k", "layer1/q", "layer1/k", "logits"]


def test_one_name_in_two_files_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GOOD)
    torch.save(torch.ones(2), tmp_path / "a.pt")
    with pytest.raises(DamagedError, match="tensor 'a' is also in"):
        read_dump(tmp_path)


def test_other_files_are_counted_and_named_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", GOOD)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "m.gguf").write_bytes(b"GGUF" + bytes(60))
    (tmp_path / "r.bin").write_bytes(bytes(64))
    (tmp_path / "p.pkl").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "readme").write_text("hello")
    dump = read_dump(tmp_path)
    assert list(dump) == ["good"]
    assert list(dump.left_out()) == [
        "4 files are not read: p.pkl (a Python pickle), r.bin (a .bin file), readme (of no known "
        "type) and 1 more; save the dump with safetensors or numpy.savez"
    ]


def test_a_folder_of_nothing_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(MissingError, match=r"1 file is not read: m.gguf \(GGUF\)") as caught:
        read_dump(tmp_path)
    assert caught.value.exit_code == 3


def test_a_damaged_file_of_a_folder_spoils_no_other(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", GOOD)
    np.save(tmp_path / "cut.npy", GOOD)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-4])
    (tmp_path / "bad.safetensors").write_bytes(b"\x01")
    dump = read_dump(tmp_path)
    assert list(dump) == ["cut", "good"]
    assert "has 20 bytes, float32 [2, 3] needs 24" in refused(dump, "cut")
    first, second = dump.left_out()
    assert "bad.safetensors: not a usable dump" in first
    assert "cut.npy: not a usable dump" in second


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("m.gguf", b"GGUF" + bytes(60), UsageError, "GGUF, neither safetensors nor npz nor npy"),
        ("m.h5", b"\x89HDF\r\n\x1a\n", UsageError, "HDF5, neither safetensors"),
        ("m.pkl", b"\x80\x04K\x01.", UsageError, "a Python pickle, neither safetensors"),
        ("m.bin", bytes(64), UsageError, "a .bin file, neither safetensors"),
        ("m.json", b'{"a": [{"b": 1}]}', UsageError, "a .json file, neither safetensors"),
        ("m.npz", b"hello", DamagedError, "it does not start as npz does"),
        ("m.npy", b"", DamagedError, "it does not start as npy does"),
        ("m.safetensors", b"\x01", DamagedError, "it does not start as safetensors does"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_name(
    tmp_path: Path, name: str, content: bytes, error: type[GoldenctlError], said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=said):
        read_dump(path)


def test_a_file_that_makes_torch_hoard_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    torch.save({"x": torch.ones(2)}, path)
    monkeypatch.setattr("goldenctl.exchange.dump_torch._load", lambda _: bytes(2 << 30))
    with pytest.raises(DamagedError, match=r"a\.pt: not a usable dump: it wants more than"):
        read_dump(path)
