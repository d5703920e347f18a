"""Measures the metrics against other ways to compare two tensors, and against the memory.

    python benchmarks/diff.py [--mib 256] [--rounds 5] [--folder DIR]

Two pairs (float32, bfloat16) are written to files and mapped, as ``goldenctl diff`` does. All
candidates run in every round, so that a drifting machine slows them alike; medians are
printed. The yardstick is a C loop that only adds up the same files, on two threads. Optional
peers (torch, polygraphy) are left out when they are not installed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from goldenctl.diff import _kernel, metrics
from goldenctl.diff.metrics import RowErrors, score

Array = NDArray[Any]
BARS = {
    "torch.testing.assert_close": 15.0,
    "numpy, float64 formulas": 15.0,
    "polygraphy simple": 30.0,
    "bandwidth float32": 0.35,
    "bandwidth bfloat16": 0.20,
    "extra MiB": 64.0,
}
_CHUNK = 1 << 20


def write_pair(folder: Path, dtype: Any, mib: int) -> tuple[Array, Array]:
    """Write two files of nearly equal numbers and map them read-only."""
    paths = folder / f"{np.dtype(dtype).name}.a", folder / f"{np.dtype(dtype).name}.e"
    rng = np.random.default_rng(0)
    with paths[0].open("wb") as actual, paths[1].open("wb") as expected:
        left = (mib << 20) // np.dtype(dtype).itemsize
        while left:
            block = rng.standard_normal(min(left, _CHUNK), np.float32)
            noise = rng.standard_normal(block.size, np.float32) * np.float32(1e-6)
            expected.write(block.astype(dtype).tobytes())
            actual.write((block + noise).astype(dtype).tobytes())
            left -= block.size
    a, e = (np.memmap(path, dtype, mode="r").reshape(-1, 1024) for path in paths)
    return a, e


def read_bandwidth(pair: tuple[Array, Array]) -> None:
    """Read both files once on two threads: what no comparison can be faster than."""
    words = [part for side in pair for part in np.split(side.reshape(-1).view(np.uint64), 64)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_kernel.read_sum, words))


def numpy_formulas(a: Array, e: Array) -> tuple[float, ...]:
    """The metrics as one would write them down."""
    x, y = a.astype(np.float64).ravel(), e.astype(np.float64).ravel()
    d = x - y
    return (
        float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y))),
        float(np.mean(d**2)),
        float(np.linalg.norm(d) / np.linalg.norm(y)),
        float(np.abs(d).max()),
        float(np.abs(d).mean()),
        float(np.mean(np.abs(d) > 1e-5 + 1e-5 * np.abs(y))),
    )


def candidates(single: tuple[Array, Array], half: tuple[Array, Array]) -> dict[str, Any]:
    """Return what is measured: a name and a call without arguments."""
    rows = RowErrors.of(single[1])
    found: dict[str, Callable[[], Any]] = {
        "read only, float32": lambda: read_bandwidth(single),
        "goldenctl float32": lambda: score(*single, atol=1e-5, rtol=1e-5),
        "goldenctl float32, per row": lambda: score(*single, atol=1e-5, rtol=1e-5, rows=rows),
        "read only, bfloat16": lambda: read_bandwidth(half),
        "goldenctl bfloat16": lambda: score(*half, atol=1e-5, rtol=1e-5),
        "numpy, float64 formulas": lambda: numpy_formulas(*single),
    }
    for add in (_torch, _polygraphy):
        found |= add(single)
    return found


def _torch(pair: tuple[Array, Array]) -> dict[str, Any]:
    try:
        import torch
    except ImportError:
        return {}
    tensors = [torch.from_numpy(np.array(side)) for side in pair]
    return {
        "torch.testing.assert_close": lambda: torch.testing.assert_close(
            *tensors, rtol=1e-3, atol=1e-3
        )
    }


def _polygraphy(pair: tuple[Array, Array]) -> dict[str, Any]:
    """NVIDIA's comparator with its defaults; its log is silenced."""
    try:
        from polygraphy.comparator import IterationResult
        from polygraphy.comparator.compare import SimpleCompareFunc
        from polygraphy.logger import G_LOGGER
    except ImportError:
        return {}
    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    a, e = (IterationResult({"x": np.array(side)}) for side in pair)
    compare = SimpleCompareFunc(atol=1e-3, rtol=1e-3)
    return {"polygraphy simple": lambda: compare(a, e)}


def measure(calls: dict[str, Any], rounds: int) -> dict[str, float]:
    """Run every call once unmeasured, then ``rounds`` times in turn; return median seconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            if turn:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def private_kib() -> int:
    """Memory of this process that is not a mapped file (``RssAnon``)."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0])


def _peak(folder: str, mib: int, queue: Any) -> None:
    size = (mib << 20) // 4
    pair = [np.memmap(Path(folder) / f"float32.{x}", np.float32, "r", shape=size) for x in "ae"]
    score(pair[0][:4096], pair[1][:4096], atol=0, rtol=0)
    before = peak = private_kib()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, private_kib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    score(*pair, atol=0, rtol=0)
    done.set()
    watcher.join()
    queue.put((peak - before) / 1024)


def extra_mib(folder: Path, mib: int) -> float:
    """Peak of private memory while a pair is scored, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(str(folder), mib, queue))
    process.start()
    result = float(queue.get(timeout=300))
    process.join()
    return result


def report(times: dict[str, float], mib: int, extra: float) -> list[str]:
    """Return the table and the bars as lines."""
    ours = times["goldenctl float32"]
    pair_gb = 2 * (mib << 20) / 1e9
    lines = [f"{'':34}{'ms':>9}{'GB/s':>8}{'times ours':>12}"]
    for name, seconds in times.items():
        lines.append(f"{name:34}{seconds * 1e3:9.1f}{pair_gb / seconds:8.1f}{seconds / ours:12.2f}")
    shares = {
        f"bandwidth {d}": times[f"read only, {d}"] / times[f"goldenctl {d}"]
        for d in ("float32", "bfloat16")
    }
    lines.append("")
    for name, bar in BARS.items():
        if name == "extra MiB":
            value, ok = extra, extra <= bar
        elif name in shares:
            value, ok = shares[name], shares[name] >= bar
        elif name in times:
            value, ok = times[name] / ours, times[name] / ours >= bar
        else:
            lines.append(f"{name:34} not installed")
            continue
        lines.append(f"{name:34}{value:9.2f}  bar {bar:6.2f}  {'met' if ok else 'MISSED'}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mib", type=int, default=256, help="size of one tensor")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write the files")
    options = parser.parse_args()
    if not metrics.compiled():
        sys.stderr.write("kernel.c is not compiled: python setup.py build_ext --inplace\n")
        return 3
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        single = write_pair(folder, np.float32, options.mib)
        half = write_pair(folder, ml_dtypes.bfloat16, options.mib)
        extra = extra_mib(folder, options.mib)
        times = measure(candidates(single, half), options.rounds)
    load = os.getloadavg()[0]
    head = f"pairs of {options.mib} MiB, {options.rounds} rounds, load {load:.2f} at the end"
    lines = [head, *report(times, options.mib, extra)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if any(line.endswith("MISSED") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
