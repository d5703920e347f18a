"""Plans and their binary files for tests: written by hand, without the tool's own code."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

NUMPY = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
}
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}


def row_major(shape: list[int]) -> list[int]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return strides


@dataclass
class Ran:
    """What a run of the harness left: events, exit status, standard error, stored tensors."""

    events: list[dict[str, Any]]
    status: int
    stderr: str
    outputs: dict[str, np.ndarray]

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]

    def failures(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == "failed"]

    @property
    def failure(self) -> dict[str, Any]:
        (failure,) = self.failures()
        return failure


@dataclass
class Sublayer:
    """One sublayer under construction; tensors are named, views are made from names."""

    plan: Plan
    name: str
    tensors: list[dict[str, Any]] = field(default_factory=list)
    ops: list[dict[str, Any]] = field(default_factory=list)

    def load(self, name: str, array: np.ndarray, dtype: str | None = None) -> None:
        """Add a tensor loaded from ``array``; ``dtype`` is its type on the device."""
        load = {"file": 0, "offset": len(self.plan.input), "dtype": array.dtype.name}
        self.plan.input += array.tobytes()
        self._add(name, dtype or array.dtype.name, list(array.shape), load=load)

    def parts(self, name: str, shape: list[int], parts: dict[int, np.ndarray]) -> None:
        """Add a tensor of which only parts are loaded: arrays by their first element."""
        listed = []
        for first, array in parts.items():
            source = {"file": 0, "offset": len(self.plan.input), "dtype": array.dtype.name}
            listed.append({**source, "first": first, "count": array.size})
            self.plan.input += array.tobytes()
        self._add(name, self.plan.dtype, shape, parts=listed)

    def store(self, name: str, shape: list[int]) -> None:
        """Add a tensor that is stored; it comes back in ``Ran.outputs``."""
        offset = self.plan.output_bytes
        self.plan.stored[f"{self.name}/{name}"] = (offset, shape)
        self.plan.output_bytes += int(np.prod(shape)) * NUMPY[self.plan.dtype].itemsize
        self._add(name, self.plan.dtype, shape, store={"file": 1, "offset": offset})

    def scratch(self, name: str, shape: list[int]) -> None:
        self._add(name, self.plan.dtype, shape)

    def view(
        self,
        name: str,
        shape: list[int] | None = None,
        strides: list[int] | None = None,
        offset: int = 0,
    ) -> dict[str, Any]:
        index = next(i for i, tensor in enumerate(self.tensors) if tensor["name"] == name)
        shape = self.tensors[index]["shape"] if shape is None else shape
        strides = row_major(shape) if strides is None else strides
        return {"tensor": index, "offset": offset, "shape": shape, "strides": strides}

    def op(self, kind: str, out: Any, *args: Any, tap: str = "", **parameters: Any) -> None:
        """Add an op; a view may be given as a tensor's name."""
        views = [self.view(v) if isinstance(v, str) else v for v in (out, *args)]
        name = tap or f"op{len(self.ops)}"
        self.ops.append({"op": kind, "tap": name, "out": views[0], "args": views[1:], **parameters})

    def _add(self, name: str, dtype: str, shape: list[int], **storage: Any) -> None:
        self.tensors.append({"name": name, "dtype": dtype, "shape": shape, **storage})


@dataclass
class Plan:
    """A plan under construction with the bytes of its two files."""

    folder: Path
    dtype: str = "float32"
    top: dict[str, Any] = field(default_factory=dict)
    sublayers: list[Sublayer] = field(default_factory=list)
    input: bytes = b""
    output_bytes: int = 0
    stored: dict[str, tuple[int, list[int]]] = field(default_factory=dict)

    def sublayer(self, name: str = "s") -> Sublayer:
        self.sublayers.append(Sublayer(self, name))
        return self.sublayers[-1]

    def document(self) -> dict[str, Any]:
        """Write the files and return the plan as JSON data."""
        source, target = self.folder / "in.bin", self.folder / "out.bin"
        source.write_bytes(self.input)
        target.write_bytes(bytes(self.output_bytes))
        files = [
            {"path": str(source), "bytes": len(self.input), "write": False},
            {"path": str(target), "bytes": self.output_bytes, "write": True},
        ]
        layers = [{"name": s.name, "tensors": s.tensors, "ops": s.ops} for s in self.sublayers]
        head = {"protocol": 1, "device": "cpu", "dtype": self.dtype, **self.top}
        return {**head, "files": files, "sublayers": layers}

    def run(self, program: Path, *options: str, env: dict[str, str] | None = None) -> Ran:
        (self.folder / "plan.json").write_text(json.dumps(self.document()))
        ran = run_plan(program, self.folder / "plan.json", *options, env=env)
        content = (self.folder / "out.bin").read_bytes()
        for name, (offset, shape) in self.stored.items():
            count = int(np.prod(shape))
            flat = np.frombuffer(content, NUMPY[self.dtype], count, offset)
            ran.outputs[name.removeprefix("s/")] = flat.reshape(shape)
        return ran


def run_plan(program: Path, plan: Path, *options: str, env: dict[str, str] | None = None) -> Ran:
    done = subprocess.run(
        [program, plan, *options],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )
    events = [json.loads(line) for line in done.stdout.decode("ascii").splitlines()]
    return Ran(events, done.returncode, done.stderr.decode(errors="replace"), {})
