"""Writer to reader, h5dump, and files that are damaged or hostile."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden.dtypes import DTYPES
from goldenctl.golden.file import open_golden
from goldenctl.golden.schema import ALIGNMENT_BYTES, SublayerInfo, TensorSpec
from goldenctl.golden.writer import GoldenWriter

GROUP = "cases/default/steps/00/layers/00/attention"
NAME = f"{GROUP}/output"
LINK = "cases/default/steps/00/layers/00/mlp/input"


def spec(dtype: str, shape: tuple[int, ...], name: str = NAME) -> TensorSpec:
    dims = tuple(f"axis{axis}" for axis in range(len(shape)))
    return TensorSpec(name, dtype, shape, dims, "output", "add")


def write(path: Path, tensors: dict[TensorSpec, bytes]) -> Path:
    with GoldenWriter(
        path,
        kind="golden",
        recipe={"dtype": "float32", "note": "é"},
        tensors=list(tensors),
        links={LINK: NAME},
        groups=[GROUP],
    ) as writer:
        for each, data in tensors.items():
            writer.write(each.name, memoryview(data))
        writer.seal(sublayers=[SublayerInfo(GROUP, 7)])
    return path


def small(path: Path) -> Path:
    """A golden of one float32 tensor 0..5."""
    data = np.arange(6, dtype=np.float32).tobytes()
    return write(path, {spec("float32", (2, 3)): data})


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    dtype=st.sampled_from(sorted(DTYPES)),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    data=st.data(),
)
def test_every_bit_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    shape: tuple[int, ...],
    data: st.DataObject,
) -> None:
    """NaN payloads, subnormals and signed zeros included."""
    each = spec(dtype, shape)
    stored = data.draw(st.binary(min_size=each.nbytes, max_size=each.nbytes))
    golden = open_golden(write(tmp_path_factory.mktemp("g") / "g.h5", {each: stored}))
    info = golden.tensors[NAME]
    assert golden.map(NAME).tobytes() == stored
    assert (info.dtype, info.shape, info.dims, info.role) == (dtype, shape, each.dims, "output")
    assert info.sha256 == hashlib.sha256(stored).hexdigest()
    assert info.offset % ALIGNMENT_BYTES == 0
    assert golden.aliases == {LINK: NAME}
    assert golden.map(LINK).tobytes() == stored
    assert golden.sublayers[GROUP].time_ns == 7
    assert golden.recipe["note"] == "é"


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump is not installed (hdf5-tools)")
def test_h5dump_shows_bfloat16_as_numbers(tmp_path: Path) -> None:
    values = np.array([[1.5, -0.25, 3.0]], ml_dtypes.bfloat16)
    path = write(tmp_path / "g.h5", {spec("bfloat16", (1, 3)): values.tobytes()})
    shown = subprocess.run(
        ["h5dump", "-d", f"/{NAME}", path], capture_output=True, text=True, check=True
    ).stdout
    assert "1.5, -0.25, 3" in shown
    assert '"axis0", "axis1"' in shown


@pytest.mark.skipif(shutil.which("h5ls") is None, reason="h5ls is not installed (hdf5-tools)")
def test_h5ls_shows_the_hard_link(tmp_path: Path) -> None:
    path = small(tmp_path / "g.h5")
    shown = subprocess.run(["h5ls", "-r", path], capture_output=True, text=True, check=True).stdout
    assert f"/{LINK}" in shown
    assert "same as" in shown


def test_a_writer_that_is_not_sealed_leaves_nothing(tmp_path: Path) -> None:
    path = small(tmp_path / "g.h5")
    before = path.read_bytes()
    writer = GoldenWriter(
        path, kind="golden", recipe={}, tensors=[spec("float32", (1,))], links={}, groups=[GROUP]
    )
    with writer:
        assert writer.temporary_path.exists()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        small(tmp_path / "no" / "g.h5")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not HDF5")


def edited(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return edit


def external_link(file: h5py.File) -> None:
    file["cases/default/steps/00/x"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file: h5py.File) -> None:
    file["loop"] = h5py.SoftLink("/loop")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("missing.h5", "x", (2,))
    file.create_virtual_dataset("x", layout)


def chunked(file: h5py.File) -> None:
    file.create_dataset("x", (4,), "f4", chunks=(2,))


def giant(file: h5py.File) -> None:
    file.create_dataset("x", (1 << 40,), "f4")


def other_type(file: h5py.File) -> None:
    file.create_dataset("x", data=np.zeros(2, "c8"))


def group_cycle(file: h5py.File) -> None:
    file["cases/again"] = file["cases"]


def wrong_version(file: h5py.File) -> None:
    file.attrs["format_version"] = np.int64(99)


def not_complete(file: h5py.File) -> None:
    file.attrs["complete"] = np.int64(0)


def vlen_recipe(file: h5py.File) -> None:
    file.attrs["recipe"] = "{}"


def list_recipe(file: h5py.File) -> None:
    file.attrs["recipe"] = np.bytes_(b"[]")


def nested_recipe(file: h5py.File) -> None:
    file.attrs["recipe"] = np.bytes_(b"[" * 50_000)


def stolen_name(file: h5py.File) -> None:
    dataset = file.create_dataset("thief", data=np.zeros((2, 3), "f4"))
    for key, value in file[NAME].attrs.items():
        if key != "DIMENSION_LABELS":
            dataset.attrs[key] = value


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, "not a usable golden"),
    "empty": (emptied, "not a usable golden"),
    "text": (text, "not a usable golden"),
    "external link": (edited(external_link), "links are not allowed"),
    "soft link": (edited(soft_link), "links are not allowed"),
    "external storage": (edited(external_storage), "not contiguous"),
    "virtual dataset": (edited(virtual), "not contiguous"),
    "chunked": (edited(chunked), "not contiguous"),
    "giant": (edited(giant), "exceed the file's end"),
    "another type": (edited(other_type), "none that a golden holds"),
    "group cycle": (edited(group_cycle), "linked twice"),
    "version": (edited(wrong_version), "format version 99"),
    "not complete": (edited(not_complete), "never completed"),
    "variable-length recipe": (edited(vlen_recipe), "not a short fixed-length text"),
    "recipe is a list": (edited(list_recipe), "not a JSON object"),
    "recipe nested deeply": (edited(nested_recipe), "not JSON"),
    "two datasets of one name": (edited(stolen_name), "claim the name"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damage_and_attack_are_refused_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    path = small(tmp_path / "g.h5")
    damage(path)
    with pytest.raises(DamagedError, match=said) as caught:
        open_golden(path)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_golden(tmp_path / "no.h5")


def test_a_run_is_not_a_golden(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a run file, got a golden"):
        open_golden(small(tmp_path / "g.h5"), kind="run")
