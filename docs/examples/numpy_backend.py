#!/usr/bin/env python3
"""A whole goldenctl backend in NumPy: ``--backend exec:./numpy_backend.py``.

It executes a plan (docs/plan-protocol.md) in float32, whatever the plan's dtype, and rounds
each op's result to that. Replace the functions in OPS by calls of your engine, one at a time:
``goldenctl diff`` tells after each whether it was right.
"""

import argparse
import json
import sys
import time

import ml_dtypes
import numpy as np

DTYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
    "int32": np.int32,
    "int64": np.int64,
}


def wide(x):
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32)


def rms_norm(op, _out, x, weight):
    mean_square = np.mean(wide(x) ** 2, axis=-1, keepdims=True)
    return wide(x) / np.sqrt(mean_square + op["epsilon"]) * wide(weight)


def gemm(op, out, a, b):
    product = op["alpha"] * (wide(a) @ wide(b))
    return product + op["beta"] * wide(out) if op["beta"] else product


def rope(op, _out, x, positions, sin, cos):  # [N, H, D], [N], [P, D/2], [P, D/2]
    sin, cos = wide(sin)[positions, None], wide(cos)[positions, None]
    pairs = np.arange(x.shape[-1])
    first, second = pairs.reshape(2, -1) if op["algo"] == "neox" else pairs.reshape(-1, 2).T
    a, b = wide(x)[..., first], wide(x)[..., second]
    result = np.empty(x.shape, a.dtype)
    result[..., first], result[..., second] = a * cos - b * sin, b * cos + a * sin
    return result


def causal_softmax(_op, _out, x):  # [..., S, T]: row i sees the columns up to T - S + i
    rows, columns = x.shape[-2:]
    visible = np.tri(rows, columns, columns - rows, dtype=bool)
    scores = np.where(visible, wide(x), -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def swiglu(_op, _out, up, gate):
    return wide(gate) / (1 + np.exp(-wide(gate))) * wide(up)


OPS = {
    "gather": lambda _op, _out, table, ids: table[ids],
    "rms_norm": rms_norm,
    "gemm": gemm,
    "rope": rope,
    "causal_softmax": causal_softmax,
    "swiglu": swiglu,
    "add": lambda _op, _out, a, b: wide(a) + wide(b),
    "mul": lambda _op, _out, a, b: wide(a) * wide(b),
    "rearrange": lambda _op, _out, x: x,
}


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def load(tensor, files):
    """A tensor's buffer: its bytes in a file, converted, or empty."""
    source = tensor.get("load")
    if source is None:
        return np.empty(tensor["shape"], DTYPES[tensor["dtype"]])
    path, dtype = files[source["file"]]["path"], DTYPES[source["dtype"]]
    shape = tuple(tensor["shape"])
    stored = np.memmap(path, dtype, "r", source["offset"], shape)
    return stored.astype(DTYPES[tensor["dtype"]])


def view(ref, buffers):
    """The elements that a view names, as a NumPy view of its buffer."""
    flat = buffers[ref["tensor"]].reshape(-1)
    strides = [stride * flat.itemsize for stride in ref["strides"]]
    return np.lib.stride_tricks.as_strided(flat[ref["offset"] :], ref["shape"], strides)


def run_op(op, buffers, repeat):
    """Run an op; return the median of its times in nanoseconds."""
    out = view(op["out"], buffers)
    arguments = [view(ref, buffers) for ref in op["args"]]
    before, times = out.copy(), []
    for _ in range(repeat):
        out[...] = before
        started = time.perf_counter_ns()
        out[...] = OPS[op["op"]](op, out, *arguments)
        times.append(time.perf_counter_ns() - started)
    return int(np.median(times))


def run_sublayer(index, sublayer, plan):
    buffers = [load(tensor, plan["files"]) for tensor in sublayer["tensors"]]
    total = 0
    for op in sublayer["ops"]:
        say("op_start", sublayer=index, tap=op["tap"])
        if op["op"] not in OPS:
            message = f"this backend has no {op['op']}"
            where = {"sublayer": index, "tap": op["tap"], "op": op["op"]}
            say("failed", **where, reason="unsupported", message=message)
            return False
        ns = run_op(op, buffers, plan.get("repeat", 1))
        say("op_done", sublayer=index, tap=op["tap"], op=op["op"], ns=ns)
        total += ns
    for tensor, buffer in zip(sublayer["tensors"], buffers, strict=True):
        if "store" in tensor:
            path, offset = plan["files"][tensor["store"]["file"]]["path"], tensor["store"]["offset"]
            with open(path, "r+b") as file:
                file.seek(offset)
                file.write(buffer.tobytes())
    say("sublayer_done", sublayer=index, ns=total)
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("plan")
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    with open(options.plan, encoding="utf-8") as file:
        plan = json.load(file)
    if plan["device"] != "cpu":
        say("failed", reason="device", message=f"there is no {plan['device']} here")
        return 3
    say("ready", protocol=1, program="numpy-backend 1", device="cpu:0", quirks=[])
    indices = range(options.skip, len(plan["sublayers"]))
    for index in indices if options.only is None else [options.only]:
        if not run_sublayer(index, plan["sublayers"][index], plan) and plan["stop_on_failure"]:
            return 1
    say("finished")
    return 0


if __name__ == "__main__":
    sys.exit(main())
