"""Small golden and run files for tests of the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import Policy, default_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.schema import SublayerInfo, TensorSpec
from goldenctl.golden.writer import GoldenWriter
from goldenctl.records.report import Report

Array = NDArray[Any]
STEP = "cases/default/steps/00"
ATTENTION = f"{STEP}/layers/00/attention"
HIDDEN = ("batch", "token", "hidden")
# name within the step, op, role, dims, shape: in execution order
TENSORS = (
    ("embedding/output", "embedding", "output", HIDDEN, (1, 4, 8)),
    ("layers/00/attention/input_layernorm", "rms_norm", "tap", HIDDEN, (1, 4, 8)),
    ("layers/00/attention/q_proj", "linear", "tap", ("batch", "token", "head", "head_dim"),
     (1, 4, 2, 4)),
    ("layers/00/attention/scores", "matmul_qk", "tap", ("batch", "head", "token", "key_token"),
     (1, 2, 4, 4)),
    ("layers/00/attention/output", "add", "output", HIDDEN, (1, 4, 8)),
    ("lm_head/output", "linear", "output", ("batch", "token", "vocab"), (1, 4, 16)),
)  # fmt: skip
SUBLAYERS = (f"{STEP}/embedding", ATTENTION, f"{STEP}/lm_head")
Q_PROJ = f"{ATTENTION}/q_proj"


def float_type(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def golden_arrays(dtype: str = "float32") -> dict[str, Array]:
    rng = np.random.default_rng(7)
    return {
        f"{STEP}/{name}": rng.standard_normal(shape).astype(float_type(dtype))
        for name, _, _, _, shape in TENSORS
    }


@dataclass
class Pair:
    """A golden and a run of it, to be bent by a test before ``write``."""

    folder: Path
    golden_arrays: dict[str, Array]
    run_arrays: dict[str, Array]
    recipe: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    simulated: bool = False
    golden_path: Path = field(init=False)
    run_path: Path = field(init=False)

    @staticmethod
    def of(folder: Path, dtype: str = "float32") -> Pair:
        """A run equal to its golden."""
        arrays = golden_arrays(dtype)
        return Pair(folder, arrays, {name: a.copy() for name, a in arrays.items()})

    def add_budget(self, noise: float, *, truth: bool) -> None:
        """Store a budget for q_proj in each scope: rows that err by ``noise`` per element."""
        expected = self.golden_arrays[Q_PROJ]
        top = np.full((3, *expected.shape[:-1]), noise, np.float32)
        l2 = top * np.float32(np.sqrt(expected.shape[-1]))
        folder = ATTENTION
        self.golden_arrays[f"{folder}/budget/q_proj"] = np.stack([l2, top, l2, top], axis=-1)
        if truth:
            exact = np.stack([expected.astype(np.float64)] * 3)
            self.golden_arrays[f"{folder}/oracle/q_proj"] = exact

    def write(self) -> tuple[GoldenFile, GoldenFile]:
        self.golden_path = self.folder / "golden.h5"
        self.run_path = self.folder / "run.h5"
        write_file(self.golden_path, "golden", {"model": {}}, self.golden_arrays)
        golden = open_golden(self.golden_path)
        origin = {"path": "golden.h5", "content_digest": golden.content_digest}
        recipe = {"golden": origin, "mode": "sublayer", **self.recipe}
        sublayers = [
            SublayerInfo(n, 20, "failed" if n in self.failures else "ok", self.failures.get(n))
            for n in SUBLAYERS
        ]
        write_file(
            self.run_path, "run", recipe, self.run_arrays, sublayers, simulated=self.simulated
        )
        return golden, open_golden(self.run_path)

    def compare(self, policy: Policy | None = None) -> Report:
        return compare(*self.write(), policy or default_policy())


def _role(name: str) -> str:
    folder = name.split("/")[-2]
    return folder if folder in ("budget", "oracle") else "tap"


def write_file(
    path: Path,
    kind: str,
    recipe: dict[str, Any],
    arrays: dict[str, Array],
    sublayers: list[SublayerInfo] | None = None,
    *,
    simulated: bool = False,
) -> None:
    known = {f"{STEP}/{name}": rest for name, *rest in TENSORS}
    specs = []
    for name, array in arrays.items():
        op, role, dims, _ = known.get(name, ["linear", _role(name), ("x",) * array.ndim, None])
        if len(dims) != array.ndim:
            dims = ("x",) * array.ndim
        specs.append(TensorSpec(name, array.dtype.name, array.shape, dims, role, op))
    with GoldenWriter(
        path, kind=kind, recipe=recipe, tensors=specs, links={}, groups=SUBLAYERS
    ) as writer:
        for name, array in arrays.items():
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            writer.write(name, memoryview(raw.tobytes()))
        times = dict.fromkeys(arrays, 1000)
        writer.seal(
            sublayers=sublayers or [SublayerInfo(n, 10) for n in SUBLAYERS],
            times_ns=times,
            simulated=simulated,
        )
