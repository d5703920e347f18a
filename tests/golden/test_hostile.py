"""Damage that only a close look finds: flipped bits, forged attributes, overlaps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from golden_files import GROUP, IDS, OUTPUT, small_file

from goldenctl import __version__
from goldenctl.errors import DamagedError
from goldenctl.golden.file import _refuse_overlaps, open_golden
from goldenctl.golden.schema import TensorInfo

FLIPS = 400


def forged(name: str, key: str, value: Any) -> Callable[[h5py.File], None]:
    def forge(file: h5py.File) -> None:
        file[name].attrs[key] = value

    return forge


def without(name: str, key: str) -> Callable[[h5py.File], None]:
    def remove(file: h5py.File) -> None:
        del file[name].attrs[key]

    return remove


def drop_tensor(file: h5py.File) -> None:
    del file[OUTPUT]


def drop_target(file: h5py.File) -> None:
    del file[IDS]


def named_type(file: h5py.File) -> None:
    file["kind"] = np.dtype("f4")


def null_space(file: h5py.File) -> None:
    file["nothing"] = h5py.Empty("f4")


def deep(file: h5py.File) -> None:
    file.create_group("/".join("x" * 40))


def other_dims(file: h5py.File) -> None:
    file[OUTPUT].attrs["dims"] = np.bytes_(b"batch,token")


OTHER_DIGEST = np.bytes_(b"blake3:" + b"0" * 64)
FORGERIES: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "digest of another tensor": (
        forged(OUTPUT, "digest", OTHER_DIGEST),
        "content_digest",
    ),
    "content digest": (
        forged("/", "content_digest", OTHER_DIGEST),
        "content_digest",
    ),
    "digest of no known algorithm": (
        forged(OUTPUT, "digest", np.bytes_(b"xxh128:" + b"0" * 32)),
        f"algorithm 'xxh128', expected blake3 or sha256 .*; goldenctl {__version__} wrote it",
    ),
    "a tensor removed": (drop_tensor, "content_digest"),
    "a link's target removed": (drop_target, "it is not there"),
    "role unknown": (forged(OUTPUT, "role", np.bytes_(b"spy")), "role 'spy'"),
    "dims too few": (other_dims, "do not fit shape"),
    "order is a float": (forged(OUTPUT, "order", 1.0), "not a 64-bit integer"),
    "order is a list": (forged(OUTPUT, "order", np.arange(3)), "not a 64-bit integer"),
    "digest of variable length": (forged(OUTPUT, "digest", "ab"), "fixed-length text"),
    "name is a list": (forged(OUTPUT, "name", np.array([b"a", b"b"])), "fixed-length text"),
    "name is not UTF-8": (forged(OUTPUT, "name", np.bytes_(b"\xff\xfe")), "utf-8"),
    "name missing": (without(OUTPUT, "name"), "name"),
    "digest missing": (without(OUTPUT, "digest"), "digest"),
    "status unknown": (forged(GROUP, "status", np.bytes_(b"fine")), "status 'fine'"),
    "failed without a failure": (forged(GROUP, "status", np.bytes_(b"failed")), "do not fit"),
    "kind unknown": (forged("/", "kind", np.bytes_(b"x\x1b[2J")), "kind is"),
    "named type": (named_type, "neither a group nor a dataset"),
    "no data space": (null_space, "not contiguous|none that a golden holds"),
    "deep groups": (deep, "deeper groups"),
}


@pytest.mark.parametrize(("forge", "said"), FORGERIES.values(), ids=FORGERIES)
def test_forgeries_are_refused_in_one_line(
    tmp_path: Path, forge: Callable[[h5py.File], None], said: str
) -> None:
    path = small_file(tmp_path / "g.h5")
    with h5py.File(path, "r+") as file:
        forge(file)
    with pytest.raises(DamagedError, match=said) as caught:
        open_golden(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()


def test_a_flipped_metadata_bit_is_seen(tmp_path: Path) -> None:
    """In a process of its own: HDF5 itself may crash on such a file, but not silently."""
    path = small_file(tmp_path / "g.h5")
    script = Path(__file__).with_name("flip_bits.py")
    done = subprocess.run(
        [sys.executable, script, path, str(FLIPS)], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert int(counts["refused"]) + int(counts["unused"]) == FLIPS
    assert int(counts["refused"]) > FLIPS // 10


def test_a_file_cut_after_it_was_opened(tmp_path: Path) -> None:
    path = small_file(tmp_path / "g.h5")
    golden = open_golden(path)
    with path.open("r+b") as file:
        file.truncate(golden.info(OUTPUT).offset + 4)
    with pytest.raises(DamagedError, match="cannot be mapped"):
        golden.map(OUTPUT)


def info(name: str, offset: int, nbytes: int) -> TensorInfo:
    return TensorInfo(name, "int32", (nbytes // 4,), ("n",), "tap", "", 0, offset, nbytes, "", 0)


def test_overlapping_tensors_are_refused() -> None:
    apart = [info("b", 64, 8), info("a", 0, 64), info("empty", 32, 0)]
    _refuse_overlaps(apart)
    with pytest.raises(ValueError, match="c: its bytes overlap those of b"):
        _refuse_overlaps([*apart, info("c", 68, 4)])
