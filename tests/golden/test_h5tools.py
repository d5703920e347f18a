"""Goldens are ordinary HDF5 files: h5dump of another HDF5 version reads them.

Continuous integration installs hdf5-tools; elsewhere these tests are skipped without it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from golden_files import GROUP, IDS, OUTPUT, small_file, write_file

needs_tools = pytest.mark.skipif(
    shutil.which("h5dump") is None, reason="h5dump (hdf5-tools) is not installed"
)


def tool(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    return done.stdout


def dumped(path: Path, name: str) -> list[float]:
    text = tool("h5dump", "-y", "-w", "0", "-m", "%.17g", "-d", f"/{name}", path)
    data = text.split("DATA {")[1].split("}")[0]
    return [float(piece) for piece in data.replace(",", " ").split()]


@needs_tools
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "int32", "int64"])
def test_h5dump_shows_the_numbers(tmp_path: Path, dtype: str) -> None:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    values = np.array([1.0, -2.5, 3.140625, 1e4, 0.0, -0.00390625, 100.0], "f8").astype(kind)
    write_file(tmp_path / "g.h5", {OUTPUT: values})
    assert dumped(tmp_path / "g.h5", OUTPUT) == values.astype("f8").tolist()


@needs_tools
def test_h5dump_shows_storage_and_labels(tmp_path: Path) -> None:
    header = tool("h5dump", "-p", "-A", "-d", f"/{OUTPUT}", small_file(tmp_path / "g.h5"))
    for piece in ("CONTIGUOUS", '"batch", "token", "head"', "H5D_FILL_TIME_NEVER", "H5T_STD_I64LE"):
        assert piece in header, piece


def test_labels_and_links_in_h5py(tmp_path: Path) -> None:
    with h5py.File(small_file(tmp_path / "g.h5"), "r") as file:
        assert [dim.label for dim in file[OUTPUT].dims] == ["batch", "token", "head"]
        assert file[f"{GROUP}/input"] == file[IDS]
        assert file[OUTPUT].chunks is None
        assert file[OUTPUT].id.get_offset() % 64 == 0
        assert file[OUTPUT][1, 2, 3] == 2.0
        assert file.attrs["complete"] == 1


def test_tensors_lie_side_by_side(tmp_path: Path) -> None:
    """Between tensors there is padding only, so that a recording is one long write."""
    values = {f"{GROUP}/t{i:03}": np.full((i + 1, 33), i, np.int32) for i in range(80)}
    offsets = write_file(tmp_path / "g.h5", values)
    ends = {name: offsets[name] + array.nbytes for name, array in values.items()}
    gaps = [
        offsets[name] - ends[before]
        for before, name in zip(list(values)[:-1], list(values)[1:], strict=True)
    ]
    assert max(gaps) < 4096
    assert sum(gaps) < 80 * 64
