"""A short run of what damage.py measures at length (docs/integrity.md)."""

from __future__ import annotations

from pathlib import Path

import damage
import pytest
from campaign import FOUND, REFUSED
from hdf5_blocks import blocks, lookup3
from subjects import golden_and_run

pytestmark = pytest.mark.slow

SEED = 2026


@pytest.mark.parametrize(
    ("key", "hash_"), [(b"", 0xDEADBEEF), (b"Four score and seven years ago", 0x17770551)]
)
def test_the_checksum_is_that_of_hdf5(key: bytes, hash_: int) -> None:
    assert lookup3(key) == hash_


def test_damage_is_refused_found_or_harmless(tmp_path: Path) -> None:
    """Neither a cut nor a flipped bit crashes, hangs, or changes what is read or judged."""
    for name, tally in damage.damage(tmp_path, count=16, seed=SEED, cuts=8):
        assert not tally.bad, name
        assert tally.counts[REFUSED] + tally.counts[FOUND] >= 7, f"{name}: {tally}"
        assert tally.slowest_s < 10


def test_mutations_with_right_checksums_are_survived(tmp_path: Path) -> None:
    golden, _ = golden_and_run(tmp_path)
    assert len(blocks(golden.read_bytes())) > 20
    tally = damage.hostile(tmp_path, count=30, seed=SEED)
    assert not tally.bad, tally
    assert tally.counts[REFUSED] > 4
    assert tally.peak_bytes < 1 << 30
