"""The PyTorch backend: a program that executes a plan (docs/plan-protocol.md).

``python -m goldenctl.reference.torch_backend PLAN.json [--skip N] [--only N] [--poison
N]``. Its kernels
are the reference's, so a replay in the recorded dtype reproduces the golden; ``sdpa`` is
PyTorch's fused attention, a second legitimate implementation.
"""

from __future__ import annotations

import json
import mmap
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from goldenctl import __version__
from goldenctl.errors import GoldenctlError, MissingError
from goldenctl.ops.plan import Plan, PlanOp, PlanSublayer, View, read_plan
from goldenctl.ops.plan import Tensor as Buffer
from goldenctl.ops.table import LAUNCHES
from goldenctl.reference.device import check_device
from goldenctl.reference.kernels import KERNELS, scaled

_TYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int32": torch.int32,
    "int64": torch.int64,
}
# What memory holds before an op writes it.
_POISONS = {"0": float("nan"), "1": 3.0, "2": -5.0}
# Ops of a plan that are a form of one op of the reference.
_NORMS = {f"rms_norm_{form}": ("rms_norm", form) for form in ("once", "plus_one")}
Compute = Callable[[PlanOp, Tensor, tuple[Tensor, ...]], Tensor]


def _gemm(op: PlanOp, out: Tensor, args: tuple[Tensor, ...]) -> Tensor:
    (a, b), alpha = args, 1.0 if op.alpha is None else op.alpha
    if op.beta:
        return torch.addmm(out, a, b, alpha=alpha, beta=op.beta)
    product = torch.matmul(a, _materialised(b))
    return product if alpha == 1.0 else product * alpha  # rounds twice, as the model does


def _materialised(b: Tensor) -> Tensor:
    """Return a broadcast operand as a copy in its own inner order, as the reference has it:
    BLAS sums a transposed matrix in another order than a copy of it."""
    if 0 not in b.stride()[:-2]:
        return b
    if b.stride(-2) == 1:
        return b.transpose(-1, -2).contiguous().transpose(-1, -2)
    return b.contiguous()


def _sdpa(op: PlanOp, _out: Tensor, args: tuple[Tensor, ...]) -> Tensor:
    q, k, v = args
    token, key_token = q.shape[2], k.shape[2]
    visible = None  # is_causal counts rows from the first key; ours end with the last
    if token < key_token:
        visible = torch.ones(token, key_token, dtype=torch.bool).tril(key_token - token)
        visible = visible.to(q.device)
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=visible,
        is_causal=visible is None,
        scale=op.alpha,
        enable_gqa=q.shape[1] != k.shape[1],
    )


def _rope(op: PlanOp, _out: Tensor, args: tuple[Tensor, ...]) -> Tensor:
    x, positions, sin, cos = args
    attrs = {"algo": op.algo}
    return KERNELS["rope"](attrs, (x.unsqueeze(0), positions.unsqueeze(0), sin, cos), ())[0]


# Ops of a plan that are no op of the reference, or see its tensors in another layout.
_COMPUTE: dict[str, Compute] = {
    "gather": lambda _op, _out, args: F.embedding(args[1].long(), args[0]),
    "gemm": _gemm,
    "rope": _rope,
    "scale": lambda op, _out, args: scaled(args[0], op.alpha or 0.0),
    "rearrange": lambda _op, _out, args: args[0],
    "sdpa": _sdpa,
}


def _compute(op: PlanOp, out: Tensor, args: tuple[Tensor, ...]) -> Tensor:
    if op.op in _COMPUTE:
        return _COMPUTE[op.op](op, out, args)
    launch = LAUNCHES[op.op]
    inputs = launch.args - launch.weights
    attrs = {name: getattr(op, name) for name in launch.parameters}
    kind, attrs["form"] = _NORMS.get(op.op, (op.op, None))
    return KERNELS[kind](attrs, args[:inputs], args[inputs:])


class Executor:
    """Executes a plan's sublayers over mapped files."""

    def __init__(self, plan: Plan, poison: float) -> None:
        self._plan = plan
        self._poison = poison
        self._device = _device(plan)
        self._maps = [_map(Path(file.path), write=file.write) for file in plan.files]

    def run(self, index: int) -> None:
        """Execute one sublayer, store its tensors, and announce it."""
        sublayer = self._plan.sublayers[index]
        try:
            buffers = [self._buffer(tensor) for tensor in sublayer.tensors]
            total_ns = sum(self._launch(index, op, buffers) for op in sublayer.ops)
            self._store(sublayer, buffers)
        except (RuntimeError, IndexError) as error:
            _emit(event="failed", sublayer=index, reason="status", message=_first_line(error))
            return
        _emit(event="sublayer_done", sublayer=index, ns=total_ns)

    def _buffer(self, tensor: Buffer) -> Tensor:
        if tensor.load is None:
            kind = _TYPES[tensor.dtype]
            buffer = torch.full(tensor.shape, self._poison, dtype=kind, device=self._device)
            for part in tensor.parts:
                source = self._bytes(part.file, part.offset, (part.count,), part.dtype)
                buffer.view(-1)[part.first : part.first + part.count].copy_(source)
            return buffer
        source = self._bytes(tensor.load.file, tensor.load.offset, tensor.shape, tensor.load.dtype)
        return source.to(self._device, _TYPES[tensor.dtype])

    def _store(self, sublayer: PlanSublayer, buffers: list[Tensor]) -> None:
        for tensor, buffer in zip(sublayer.tensors, buffers, strict=True):
            if tensor.store is not None:
                where = (tensor.store.file, tensor.store.offset)
                self._bytes(*where, tensor.shape, tensor.dtype).copy_(buffer)

    def _bytes(self, file: int, offset: int, shape: tuple[int, ...], dtype: str) -> Tensor:
        kind = _TYPES[dtype]
        nbytes = torch.Size(shape).numel() * kind.itemsize
        raw = torch.frombuffer(self._maps[file], dtype=torch.uint8, count=nbytes, offset=offset)
        return raw.view(kind).view(shape)

    def _launch(self, index: int, op: PlanOp, buffers: list[Tensor]) -> int:
        _emit(event="op_start", sublayer=index, tap=op.tap)
        out = _strided(buffers, op.out)
        args = tuple(_strided(buffers, view) for view in op.args)
        before = out.clone() if op.beta and self._plan.repeat > 1 else None
        times_ns = []
        for _ in range(self._plan.repeat + (self._plan.repeat > 1)):
            if before is not None:
                out.copy_(before)
            started = self._now_ns()
            out.copy_(_compute(op, out, args))
            times_ns.append(self._now_ns() - started)
        counted = sorted(times_ns[self._plan.repeat > 1 :])
        median_ns = int(statistics.median(counted))
        last = len(counted) - 1
        iqr_ns = counted[3 * last // 4] - counted[last // 4]
        _emit(event="op_done", sublayer=index, tap=op.tap, op=op.op, ns=median_ns, iqr_ns=iqr_ns)
        return median_ns

    def _now_ns(self) -> int:
        if self._plan.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter_ns()


def main(argv: list[str]) -> int:
    """Run the program; returns its exit status."""
    path, *rest = argv
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    try:
        plan = read_plan(Path(path))
        check_device(_device(plan))
        executor = Executor(plan, _POISONS[options.get("--poison", "0")])
    except GoldenctlError as error:
        _emit(event="failed", reason="device", message=str(error))
        return 3
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        _emit(event="failed", reason="plan", message=_first_line(error))
        return 4
    program = f"goldenctl torch backend {__version__}, torch {torch.__version__}"
    _emit(event="ready", protocol=plan.protocol, program=program, device=plan.device, quirks=[])
    first = int(options.get("--only", options.get("--skip", 0)))
    chosen = range(first, first + 1 if "--only" in options else len(plan.sublayers))
    with torch.inference_mode():
        for index in chosen:
            executor.run(index)
    _emit(event="finished")
    return 0


def _device(plan: Plan) -> str:
    """Return torch's name of the plan's device; raises MissingError where torch has none."""
    if plan.device not in ("cpu", "nvidia") or (plan.device == "cpu" and plan.device_id):
        msg = f"torch has no device {plan.device}:{plan.device_id} here"
        raise MissingError(msg, hint="use cpu or nvidia")
    return "cpu" if plan.device == "cpu" else f"cuda:{plan.device_id}"


def _strided(buffers: list[Tensor], view: View) -> Tensor:
    return buffers[view.tensor].as_strided(view.shape, view.strides, view.offset)


def _map(path: Path, *, write: bool) -> mmap.mmap:
    # Read-only files are mapped copy-on-write: torch wants a writable buffer, and nothing
    # is ever written to it.
    access = mmap.ACCESS_WRITE if write else mmap.ACCESS_COPY
    with path.open("r+b" if write else "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=access)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _emit(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
