"""Writes logs of calls as the preloaded library does, from arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.exchange.records import RecordWriter
from goldenctl.trace.layout import DTYPES, packed_axes

Array = NDArray[Any]
START = {
    "kind": "start",
    "version": 1,
    "program": ["engine", "--fast"],
    "pid": 7,
    "infiniop": "/opt/lib/libinfiniop.so",
    "infinirt": "/opt/lib/libinfinirt.so",
}


def packed(array: Array) -> bytes:
    """Return the elements of a view in the order of its memory, a broadcast axis once."""
    strides = [stride // array.itemsize for stride in array.strides]
    axes = packed_axes(array.shape, strides)
    first = tuple(slice(None) if axis in axes else 0 for axis in range(array.ndim))
    rank = {axis: at for at, axis in enumerate(sorted(axes))}
    return array[first].transpose([rank[axis] for axis in axes]).tobytes()


@dataclass
class Log:
    """A log that is being written; ``call`` appends one launch with its contents."""

    path: Path
    number: int = 0
    seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.writer = RecordWriter(self.path)
        self.writer.append(START)

    def content(self, array: Array) -> str:
        data = packed(array)
        name = hashlib.md5(data).hexdigest()
        if name not in self.seen:
            self.writer.append({"kind": "bytes", "id": name}, data)
            self.seen.add(name)
        return name

    def arg(self, name: str, io: str, array: Array, before: Array | None = None) -> dict[str, Any]:
        """Return an argument; of an ``inout`` one, ``array`` is what the call left."""
        kept = {} if io == "in" else {"after": self.content(array)}
        if io != "out":
            kept["before"] = self.content(array if before is None else before)
        dtype = next(key for key, value in DTYPES.items() if value == array.dtype)
        strides = [stride // array.itemsize for stride in array.strides]
        pointer = array.__array_interface__["data"][0]
        view = {"dtype": dtype, "shape": array.shape, "strides": strides, "pointer": pointer}
        return {"name": name, "io": io, **view, **kept}

    def call(self, op: str, *args: dict[str, Any], **changed: Any) -> None:
        self.number += 1
        header = {
            "kind": "call",
            "number": self.number,
            "thread": 0,
            "device": "cpu",
            "device_id": 0,
            "stream": 0,
            "op": op,
            "function": f"infiniop{op}",
            "scalars": {},
            "args": args,
            "status": 0,
            "time_ns": 1000,
        }
        self.writer.append({**header, **changed})

    def end(self) -> None:
        self.writer.append({"kind": "end", "calls": self.number})
        self.writer.close()


def one_call(path: Path) -> tuple[Array, Array]:
    """Write a log of one norm; return its output and its input."""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    y = x * 2
    log = Log(path)
    log.call("RMSNorm", log.arg("y", "out", y), log.arg("x", "in", x), scalars={"epsilon": 1e-6})
    log.end()
    return y, x
