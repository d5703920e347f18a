#!/bin/sh
# Guess: creating N small contiguous datasets in one HDF5 file takes time that grows with N, whether
# or not the file is opened with an alignment; and a file-space strategy that keeps no free-space
# managers changes speed alone, so that two files of the same content stay equal byte for byte.
#
# Seen with h5py 3.16.0 (HDF5 2.0.0): with alignment_threshold=1, alignment_interval=64 and
# datasets allocated early whose sizes are no multiple of 64, three times as many datasets take about
# eight times as long or more; without an alignment, or with fs_strategy="aggregate", about three
# times. Every aligned dataset leaves a gap that the free-space manager keeps, and looks through.
# But with fs_strategy set the file has a superblock extension whose object header holds the
# time: two files of the same content, written in different seconds, differ, with
# track_times=False on all objects too. Without fs_strategy they are equal.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "h5py==3.16.0" "numpy==2.4.6"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import time
from pathlib import Path

import h5py

folder = Path(sys.argv[1])
ALIGNED = {"alignment_threshold": 1, "alignment_interval": 64}


def write(path, count, **options):
    """Write a file of small datasets that are allocated early; return the processor seconds."""
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_obj_track_times(False)
    dcpl.set_layout(h5py.h5d.CONTIGUOUS)
    dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    dcpl.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space, kind = h5py.h5s.create_simple((5,)), h5py.h5t.IEEE_F32LE
    start = time.process_time()
    with h5py.File(path, "w", libver=("v110", "v110"), **options) as file:
        for number in range(count):
            h5py.h5d.create(file.id, b"%d" % number, kind, space, dcpl=dcpl)
    return time.process_time() - start


def growth(**options):
    """How many times as long three times as many datasets take: the median of three."""
    path = folder / "x.h5"
    ratios = [write(path, 9000, **options) / write(path, 3000, **options) for _ in range(3)]
    return sorted(ratios)[1]


def differ(**options):
    write(folder / "a.h5", 3, **options)
    time.sleep(1.1)
    write(folder / "b.h5", 3, **options)
    return (folder / "a.h5").read_bytes() != (folder / "b.h5").read_bytes()


print("h5py", h5py.__version__, "HDF5", h5py.version.hdf5_version)
plain, aligned = growth(), growth(**ALIGNED)
aggregate = growth(**ALIGNED, fs_strategy="aggregate")
print(f"3,000 to 9,000 datasets, times as long: plain {plain:.1f}, aligned {aligned:.1f}, "
      f"aligned without free-space managers {aggregate:.1f}")
stable, dated = not differ(**ALIGNED), differ(**ALIGNED, fs_strategy="aggregate")
print(f"same content, another second: equal without fs_strategy {stable}, differ with it {dated}")
seen = plain < 5 and aligned > 6 and aggregate < 5 and stable and dated
sys.exit(not seen)
PYTHON
