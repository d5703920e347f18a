"""Which tensors and scalars InfiniCore's operators have, paired from their functions.

An operator is ``infiniopCreate<Op>Descriptor``, which gets tensor descriptors and scalars, and
the launch ``infiniop<Op>``, which gets pointers to data. A pointer is the tensor's of its name;
where names say nothing, the pairs are in order. What the headers cannot say is in the tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from goldenctl.trace.headers import Function, Headers, Parameter

Io = Literal["in", "out", "inout"]

_CREATE = re.compile(r"infiniopCreate(\w+)Descriptor")
_OF_CALLER = frozenset({"workspace", "workspace_size", "stream"})
# Of quantised products, whose launches forgot the const.
_SCALES = {"b_scale", "b_scales", "a_scales", "global_scales"}
_READ_ONLY = frozenset({"b_bias", *_SCALES, "b_zero", "b_zeros", "g_idx", "perm"})
_READ = frozenset({("Topkrouter", "x"), ("Topkrouter", "correction_bias")})  # likewise, in 2025
# Outputs of which a call changes a part, or which it reads first.
_KEPT = re.compile(r"(?:\w*_)?(?:cache|state)")
_UPDATED = frozenset(
    {
        *(("Axpy", "y"), ("Scal", "x"), ("Swap", "x"), ("Swap", "y"), ("Rot", "x"), ("Rot", "y")),
        *(("Rotm", "x"), ("Rotm", "y"), ("Rotg", "x"), ("Rotg", "y")),
        *(("Rotmg", "d1"), ("Rotmg", "d2"), ("Rotmg", "x1")),
        *(("NsaCompressPagedCache", "k_cmp"), ("NsaCompressPagedCache", "v_cmp")),
    }
)
# Outputs that are read before only under a condition on the launch's scalars.
_READ_IF = {("Gemm", "c", "beta"): "beta != 0"}
# Outputs without a descriptor: dtype, and sizes, each a scalar or an axis of another tensor.
_DERIVED: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    (op, name): (dtype, ("x.0", "topk"))
    for op in ("Topkrouter", "Topksoftmax")
    for name, dtype in (("values", "float32"), ("indices", "int32"))
}


@dataclass(frozen=True)
class Operand:
    """One data pointer of a launch.

    ``tensor`` is the number of the tensor descriptor of Create that describes it; None for one
    of a ``derived`` dtype and sizes. ``read_if`` is a C condition that makes an output inout.
    """

    name: str
    pointer: str
    io: Io
    tensor: int | None
    read_if: str = ""
    derived: tuple[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Operator:
    """One operator; ``tensors`` are the names of Create's tensor descriptors, in order.

    ``opaque`` are the parameters that point to something of unknown size, which is not followed.
    """

    op: str
    create: Function
    launch: Function
    destroy: Function | None
    tensors: tuple[str, ...]
    operands: tuple[Operand, ...]
    opaque: tuple[str, ...] = field(default=())


def operators(headers: Headers) -> tuple[list[Operator], list[str]]:
    """Return the operators, and the functions that belong to none and are not understood."""
    found: list[Operator] = []
    others = {name for name in headers.functions if name.startswith("infiniop")}
    for name, create in headers.functions.items():
        match = _CREATE.fullmatch(name)
        launch = headers.functions.get(f"infiniop{match[1]}") if match else None
        if match is None or launch is None or not (create.known and launch.known):
            continue
        destroy = headers.functions.get(f"infiniopDestroy{match[1]}Descriptor")
        found.append(_operator(match[1], create, launch, destroy))
        others -= {name, launch.name, f"infiniopDestroy{match[1]}Descriptor"}
    harmless = re.compile(r"infiniop(?:Create|Destroy)(?:Handle|TensorDescriptor)|infiniopGet\w+")
    return found, sorted(name for name in others if not harmless.fullmatch(name))


def _operator(op: str, create: Function, launch: Function, destroy: Function | None) -> Operator:
    described = [p for p in create.parameters[2:] if p.named == "infiniopTensorDescriptor_t"]
    tensors = [p for p in described if p.stars == 0]
    rest = [p for p in launch.parameters[1:] if p.name not in _OF_CALLER]
    pointers = [p for p in rest if p.type == "void*" and p.stars == 1]
    pairs = _pairs(tensors, pointers)
    operands = tuple(
        _operand(op, launch, pointer, pairs.get(pointer.name))
        for pointer in pointers
        if pointer.name in pairs or (op, pointer.name) in _DERIVED
    )
    followed = {operand.pointer for operand in operands}
    scalars = [p for p in create.parameters[2:] if p not in tensors]
    opaque = [p.name for p in (*scalars, *rest) if _is_opaque(p) and p.name not in followed]
    names = tuple(_plain(p.name) for p in tensors)
    return Operator(op, create, launch, destroy, names, operands, tuple(dict.fromkeys(opaque)))


def _is_opaque(parameter: Parameter) -> bool:
    return parameter.type == "void*" and not is_text(parameter)


def is_text(parameter: Parameter) -> bool:
    """Say whether a parameter is a string of C."""
    return (parameter.named, parameter.stars, parameter.const) == ("char", 1, True)


def _pairs(tensors: Sequence[Parameter], pointers: Sequence[Parameter]) -> dict[str, int]:
    """Return the number of the tensor that each pointer's data is of."""
    described = [_plain(p.name) for p in tensors]
    given = [_plain(p.name) for p in pointers]
    in_order = len(described) == len(given) and set(described) != set(given)
    if in_order:
        return {p.name: number for number, p in enumerate(pointers)}
    return {
        p.name: described.index(name)
        for p, name in zip(pointers, given, strict=True)
        if name in described
    }


def _plain(name: str) -> str:
    name = name.removesuffix("_desc")
    return "output" if name == "out" else name


def _operand(op: str, launch: Function, pointer: Parameter, tensor: int | None) -> Operand:
    name = pointer.name
    reads = pointer.const or name in _READ_ONLY or (op, name) in _READ
    io: Io = "in" if reads else "out"
    if not reads and (_KEPT.fullmatch(name) or (op, name) in _UPDATED):
        io = "inout"
    scalars = {p.name for p in launch.parameters}
    conditions = (c for (o, n, s), c in _READ_IF.items() if (o, n) == (op, name) and s in scalars)
    derived = _DERIVED.get((op, name)) if tensor is None else None
    return Operand(name, name, io, tensor, next(conditions, ""), derived)
