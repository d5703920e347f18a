"""Other engines' dumps: every tensor at its place by a name map, or one line that says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from engine import Dump, first_case, vllm_like
from safetensors.numpy import save_file

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.errors import DamagedError, GoldenctlError, UsageError
from goldenctl.exchange.assign import Assignment, assign
from goldenctl.exchange.bring import import_run
from goldenctl.exchange.dump import read_dump
from goldenctl.exchange.fit import is_merged
from goldenctl.exchange.namemap import Entry, NameMap, encode, load_map
from goldenctl.exchange.suggest import suggest
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.schema import TensorInfo

Goldens = Callable[[str], GoldenFile]


def saved(dump: Dump, path: Path) -> Path:
    save_file({name: np.ascontiguousarray(array) for name, array in dump.items()}, path)
    return path


def imported(
    golden: GoldenFile, path: Path, mapping: NameMap, **chosen: Any
) -> tuple[GoldenFile, Assignment]:
    found = assign(golden, read_dump(path), mapping, **chosen)
    out = path.with_name("run.h5")
    import_run(out, golden, mapping, found, dump=path)
    return open_golden(out, kind="run"), found


@pytest.fixture
def one_case(golden_in: Goldens) -> list[str]:
    return [first_case(golden_in("float32"))]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_vllm_like_dump_by_the_suggested_map(
    golden_in: Goldens, one_case: list[str], tmp_path: Path, dtype: str
) -> None:
    golden = golden_in(dtype)
    path = saved(vllm_like(golden), tmp_path / "dump.safetensors")
    mapping = suggest(read_dump(path), golden)
    assert set(mapping.not_computed) == {
        "layers.*.attention.scores",
        "layers.*.attention.probs",
    }
    (tmp_path / "map.toml").write_text(encode(mapping))
    assert load_map(tmp_path / "map.toml") == mapping
    run, found = imported(golden, path, mapping, cases=one_case)
    assert found.unused == ()
    for name, info in run.tensors.items():
        assert info.dtype == dtype
        np.testing.assert_array_equal(run.map(name), golden.map(name))
    report = compare(golden, run, default_policy())
    assert report.exit_code == 0
    assert {t.rule for t in report.compared} == {"budget"}
    assert {t.tap for t in report.tensors if t.state == "not_computed"} == {"scores", "probs"}


def test_a_wrong_engine_is_caught(golden_in: Goldens, one_case: list[str], tmp_path: Path) -> None:
    golden = golden_in("float32")
    dump = vllm_like(golden)
    dump["model.layers.2.mlp.act_fn"] *= 1.01
    path = saved(dump, tmp_path / "dump.safetensors")
    run, _ = imported(golden, path, suggest(read_dump(path), golden), cases=one_case)
    wrong = compare(golden, run, default_policy()).first_wrong
    assert wrong is not None
    assert wrong.name.endswith("layers/02/mlp/swiglu")


def mapped(*entries: Entry, **rest: Any) -> NameMap:
    return NameMap(map_version=1, tensor=entries, **{"lacking": "not_computed", **rest})


Q_ROPE = "layers.{layer}.attention.q_rope"


def q_rope(golden: GoldenFile) -> tuple[str, np.ndarray]:
    name = f"cases/{first_case(golden)}/steps/00/layers/03/attention/q_rope"
    return name, np.array(golden.map(name))


@pytest.mark.parametrize(
    ("change", "axes"),
    [
        (lambda q: q, None),
        (lambda q: q[0], None),
        (lambda q: q.reshape(5, -1), None),
        (lambda q: q.transpose(0, 2, 1, 3), ("batch", "head", "token", "head_dim")),
        (lambda q: q[0].transpose(1, 0, 2), ("head", "token", "head_dim")),
        (lambda q: q[0].reshape(5, -1).T, ("head*head_dim", "token")),
        (lambda q: q[0][:, None].transpose(2, 3, 1, 0), ("head", "head_dim", "1", "token")),
    ],
)
def test_axes(
    golden_in: Goldens,
    one_case: list[str],
    tmp_path: Path,
    change: Callable[[np.ndarray], np.ndarray],
    axes: tuple[str, ...] | None,
) -> None:
    golden = golden_in("float32")
    name, values = q_rope(golden)
    path = saved({"l.3.q": change(values)}, tmp_path / "d.safetensors")
    mapping = mapped(Entry(Q_ROPE, "l.{layer}.q", axes=axes))
    run, found = imported(golden, path, mapping, cases=one_case)
    assert list(found.fits) == [name]
    np.testing.assert_array_equal(run.map(name), values)
    assert list(run.sublayers) == [name.rpartition("/")[0]]


def test_padded_vocabulary_and_the_last_token(
    golden_in: Goldens, one_case: list[str], tmp_path: Path
) -> None:
    golden = golden_in("float32")
    name = f"cases/{one_case[0]}/steps/00/lm_head/output"
    logits = np.array(golden.map(name))
    padded = np.full((5, logits.shape[-1] + 24), 7, np.float32)
    padded[-1, : logits.shape[-1]] = logits[0, 0]
    path = saved({"logits": padded}, tmp_path / "d.safetensors")
    entry = Entry("lm_head.output", "logits", axes=("token", "vocab"), crop=("vocab",))
    run, _ = imported(golden, path, mapped(entry), cases=one_case)
    np.testing.assert_array_equal(run.map(name), logits)


def test_bfloat16_in_other_types(golden_in: Goldens, one_case: list[str], tmp_path: Path) -> None:
    """As float32, as bits, and as NumPy saves ml_dtypes' type."""
    golden = golden_in("bfloat16")
    name, values = q_rope(golden)
    entry = Entry(Q_ROPE, "l{layer:02}", dtype="bfloat16")
    for form in (values.astype(np.float32), values.view(np.uint16), values):
        path = tmp_path / "d.npz"
        np.savez(path, l03=form)
        run, _ = imported(golden, path, mapped(entry), cases=one_case)
        assert run.map(name).dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(run.map(name), values)
    np.savez(path, l03=values.view(np.uint16))
    with pytest.raises(UsageError, match="may be bits of bfloat16"):
        imported(golden, path, mapped(Entry(Q_ROPE, "l{layer:02}")), cases=one_case)
    np.savez(path, l03=values.astype(np.float32) * np.float32(1.001))
    with pytest.raises(DamagedError, match="values are not bfloat16 numbers"):
        imported(golden, path, mapped(entry), cases=one_case)


def test_npy_files_of_a_folder_fortran_and_big_endian(
    golden_in: Goldens, one_case: list[str], tmp_path: Path
) -> None:
    golden = golden_in("float32")
    name, values = q_rope(golden)
    (tmp_path / "dump").mkdir()
    np.save(tmp_path / "dump" / "q-3.npy", np.asfortranarray(values[0]))
    np.save(tmp_path / "dump" / "k-3.npy", values.astype(">f4"))
    assert sorted(read_dump(tmp_path / "dump")) == ["k-3", "q-3"]
    for pattern in ("q-{layer}", "k-{layer}"):
        run, _ = imported(golden, tmp_path / "dump", mapped(Entry(Q_ROPE, pattern)), cases=one_case)
        np.testing.assert_array_equal(run.map(name), values)


def test_what_the_dump_lacks(golden_in: Goldens, one_case: list[str], tmp_path: Path) -> None:
    """Marked, missing, or refused: as the user says."""
    golden = golden_in("float32")
    _, values = q_rope(golden)
    path = saved({"q": values}, tmp_path / "d.safetensors")
    entry = Entry("layers.03.attention.q_rope", "q")
    with pytest.raises(UsageError, match=r"the map says nothing of cases/.*--lacking missing"):
        assign(golden, read_dump(path), mapped(entry), cases=one_case, lacking="error")
    run, found = imported(golden, path, mapped(entry), cases=one_case, lacking="missing")
    report = compare(golden, run, default_policy())
    assert {t.state for t in report.tensors} == {"passed", "missing"}
    assert len(found.missing) == sum(t.state == "missing" for t in report.tensors) > 70
    assert report.exit_code == 1
    run, found = imported(golden, path, mapped(entry), cases=one_case, lacking="not_computed")
    report = compare(golden, run, default_policy())
    assert {t.state for t in report.tensors} == {"passed", "not_computed"}
    assert report.exit_code == 0


BASE = {"a": np.zeros((5, 4, 32), np.float32), "i": np.zeros((5, 128), np.int32)}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([Entry(Q_ROPE, "b.{layer}")], "the dump has no tensor 'b.0' (it has 2 others)"),
        ([Entry("layers.{layer}.mlp.output", "a")], "has shape [5, 4, 32], expected [batch 1, "),
        ([Entry(Q_ROPE, "a")], "stands for both"),
        ([Entry(Q_ROPE, "a"), Entry("layers.00.attention.q_rope", "a")], "the map has it twice"),
        (
            [Entry(Q_ROPE, "a", axes=("head", "token", "head_dim"))],
            "expected [head 4, token 5, head_dim 32]; correct axes in the map",
        ),
        ([Entry(Q_ROPE, "a", axes=("token", "vocab"))], "expected [token 5, vocab 512]"),
        ([Entry(Q_ROPE, "a", axes=("token", "heads"))], "the golden has no dimension 'heads'"),
        ([Entry(Q_ROPE, "a", axes=("token", "head", "head"))], "has shape [5, 4, 32]"),
        ([Entry(Q_ROPE, "a", split=("head", "head_dim"))], "its last axis has 32, split gives"),
        ([Entry(Q_ROPE, "i")], "has type int32, which cannot be compared"),
    ],
)
def test_wrong_maps(
    golden_in: Goldens, one_case: list[str], tmp_path: Path, entries: list[Entry], said: str
) -> None:
    path = saved(BASE, tmp_path / "d.safetensors")
    mapping = mapped(*entries, lacking="error")
    with pytest.raises(UsageError) as caught:
        assign(golden_in("float32"), read_dump(path), mapping, cases=one_case)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "missing required field `map_version`"),
        ("map_version = 2", "map_version is 2, expected 1"),
        ("map_version = 1", "it maps no tensor"),
        ("map_version = 1\nfoo = 1", "unknown field `foo`"),
        ("map_version = [", "not a name map"),
        ('map_version = 1\n[[tensor]]\ngolden = "a"', "missing required field `dump`"),
        ('map_version = 1\n[[tensor]]\ngolden = "a"\ndump = "{x}"', "has a field other than"),
        (
            'map_version = 1\n[[tensor]]\ngolden = "a"\ndump = "b"\naxes = ["__import__"]\npart=1',
            "part needs split",
        ),
        (
            'map_version = 1\n[[tensor]]\ngolden = "a"\ndump = "b"\naxes = ["x()"]',
            "is not a product of dimension names",
        ),
        (
            'map_version = 1\n[[tensor]]\ngolden = "a"\ndump = "b"\ndtype = "int8"',
            "dtype 'int8' is not one of",
        ),
    ],
)
def test_wrong_map_files(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_map(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_json_maps(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{"map_version": 1, "tensor": [{"golden": "a.b", "dump": "c"}]}')
    assert load_map(path).tensor == (Entry("a.b", "c"),)


@pytest.mark.parametrize(
    ("shape", "golden", "fits"),
    [
        ((5, 128), (1, 5, 4, 32), True),
        ((640,), (1, 5, 4, 32), True),
        ((1, 5, 1, 4, 32), (1, 5, 4, 32), True),
        ((4, 5, 32), (1, 5, 4, 32), False),
        ((5, 4), (1, 5, 4, 32), False),
        ((5, 4, 32, 2), (1, 5, 4, 32), False),
        ((20, 16, 2), (1, 5, 4, 32), False),
        ((0, 3), (0, 3), True),
        ((), (1, 1), True),
    ],
)
def test_merged_axes(shape: tuple[int, ...], golden: tuple[int, ...], fits: bool) -> None:
    assert is_merged(shape, golden) == fits


def test_names_cannot_be_paths_or_write_to_the_terminal(golden_in: Goldens, tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, **{"../../x": np.zeros(3, np.float32)})
    assert list(read_dump(path)) == ["../../x"]
    np.savez(path, **{"\x1b[31m": np.zeros(3, np.float32)})
    with pytest.raises(DamagedError, match="unprintable") as caught:
        read_dump(path)
    assert "\x1b" not in str(caught.value)


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    "data",
    [
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\nsystem\n"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40,)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}", b"1234"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", b"1234"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", b"1234"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", b"12345678"),
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", b"1234"),
        npy("__import__('os').system('false')"),
        npy("(" * 5000),
        npy("{" * 9000),
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"PK\x03\x04" + bytes(100),
        b"PK",
    ],
)
def test_hostile_arrays(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "d.npy"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"d\.npy: not a usable dump: "):
        read_dump(path)


def test_things_that_are_no_dump(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello, world\n")
    (tmp_path / "folder").mkdir()
    for name, said in (
        ("none", "there is no such file"),
        ("text", "neither safetensors nor npz nor npy"),
        ("folder", "there is no .safetensors, .npz, .npy or .taps file in it"),
    ):
        with pytest.raises(GoldenctlError, match=said):
            read_dump(tmp_path / name)


def test_a_pattern_means_one_kind_of_tensor() -> None:
    from goldenctl.exchange.namemap import fill, matches

    info = TensorInfo(
        "cases/a/steps/01/layers/07/mlp/output", "float32", (1,), ("x",), "output", "add",
        0, 0, 4, "", 0,
    )  # fmt: skip
    for pattern, means in (
        ("layers.{layer}.mlp.output", True),
        ("layers.07.mlp.output", True),
        ("layers.06.mlp.output", False),
        ("layers.{layer}.mlp", False),
        ("layers.{layer}.mlp.output.x", False),
        ("cases/{case}/steps/{step}/layers/{layer}/mlp/output", True),
        ("cases/b/steps/{step}/layers/{layer}/mlp/output", False),
    ):
        assert matches(pattern, info) is means, pattern
    assert fill("{case}.{step}.{layer}.{layer:03}.{{", info) == "a.1.7.007.{{"


def test_a_pattern_is_not_searched_for_without_end() -> None:
    from goldenctl.exchange.namemap import is_left_out, matches

    info = TensorInfo(
        f"cases/a/steps/01/layers/07/{'a' * 400}", "float32", (1,), ("x",), "output", "add",
        0, 0, 4, "", 0,
    )  # fmt: skip
    assert not is_left_out(("*a" * 100 + "b",), info)
    assert not matches("{layer}" * 500 + "{step}" * 500 + "!", info)
