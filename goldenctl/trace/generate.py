"""Writes the C++ source of the functions that stand in front of InfiniCore's, from its headers.

Each function takes what InfiniCore's takes, tells the shim what it was given, and calls the
real one. Pointers are ``void*`` and enumerations ``int``: the source needs no header of
InfiniCore, only the shim's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from goldenctl.trace.headers import Function, Headers, Parameter
from goldenctl.trace.operators import Operand, Operator, is_text, operators

# Names and sizes in bytes of infiniDtype_t's enumerators without their prefix.
_DTYPES = {
    "BYTE": ("uint8", 1),
    "BOOL": ("bool", 1),
    "I8": ("int8", 1),
    "I16": ("int16", 2),
    "I32": ("int32", 4),
    "I64": ("int64", 8),
    "U8": ("uint8", 1),
    "U16": ("uint16", 2),
    "U32": ("uint32", 4),
    "U64": ("uint64", 8),
    "F8": ("float8_e4m3fn", 1),
    "F16": ("float16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
    "C64": ("complex64", 8),
    "C128": ("complex128", 16),
    "BF16": ("bfloat16", 2),
}
_RENAMED_DEVICES = {"sugon": "hygon"}  # its name in older headers


@dataclass(frozen=True)
class _Hook:
    """What is done around a function that is not an operator: its types, and a line of C++.

    ``line`` names the arguments ``a0``, ``a1``... and what was returned ``status``; with
    ``before`` it stands before the call.
    """

    types: str
    line: str
    before: bool = False


_COPY = "copied(status, a0, a1, a2, a3"
_HOOKS = {
    "infiniopCreateTensorDescriptor": _Hook(
        "void* size_t void* void* int", "tensor_made(status, a0, a1, a2, a3, a4)"
    ),
    "infiniopDestroyTensorDescriptor": _Hook("void*", "tensor_destroyed(a0)", before=True),
    "infinirtMalloc": _Hook("void* size_t", "allocated(status, a0, a1)"),
    "infinirtMallocHost": _Hook("void* size_t", "allocated(status, a0, a1)"),
    "infinirtMallocAsync": _Hook("void* size_t void*", "allocated(status, a0, a1)"),
    "infinirtFree": _Hook("void*", "freed(a0)", before=True),
    "infinirtFreeHost": _Hook("void*", "freed(a0)", before=True),
    "infinirtFreeAsync": _Hook("void* void*", "freed(a0)", before=True),
    "infinirtMemcpy": _Hook("void* void* size_t int", f"{_COPY})"),
    "infinirtMemcpyAsync": _Hook("void* void* size_t int void*", f"{_COPY}, a4)"),
    "infinirtMemset": _Hook("void* int size_t", "filled(status, a0, a1, a2)"),
    "infinirtMemsetAsync": _Hook("void* int size_t void*", "filled(status, a0, a1, a2)"),
    "infinirtStreamBeginCapture": _Hook("void* int", "capturing(status == 0)"),
    "infinirtStreamEndCapture": _Hook("void* void*", "capturing(false)"),
    "infinirtGraphLuanch": _Hook("void* void*", "graph_launched()"),
    "infinirtGraphLaunch": _Hook("void* void*", "graph_launched()"),
}


def source(headers: Headers) -> str:
    """Return the source for one InfiniCore."""
    found, others = operators(headers)
    hooked, strange = _hooked(headers)
    passed = [headers.functions[name] for name in others if headers.functions[name].known]
    unseen = [*(name for name in others if not headers.functions[name].known), *strange]
    notes = [
        f"{name}: its declaration is not understood, its calls are not seen" for name in unseen
    ]
    functions = [
        *(text for operator in found for text in _operator(operator, headers)),
        *(_hook(function, hook) for function, hook in hooked),
        *(_passed(function) for function in passed),
    ]
    names = [f.name for o in found for f in (o.create, o.launch, o.destroy) if f is not None]
    names += [function.name for function, _ in hooked] + [function.name for function in passed]
    return "\n".join(
        [
            "// Written by goldenctl from InfiniCore's headers.",
            '#include "real.h"\n#include "trace.h"\n',
            "using namespace goldenctl;\n",
            *_enums(headers, found),
            'extern "C" {',
            *functions,
            "}\n",
            "namespace goldenctl {",
            *_tables(headers, names, notes),
            "}  // namespace goldenctl\n",
        ]
    )


def _hooked(headers: Headers) -> tuple[list[tuple[Function, _Hook]], list[str]]:
    """Return the functions to hook, and those that have other types than were expected."""
    hooked, strange = [], []
    for name, hook in _HOOKS.items():
        function = headers.functions.get(name)
        if function is None:
            continue
        if function.known and " ".join(p.type for p in function.parameters) == hook.types:
            hooked.append((function, hook))
        else:
            strange.append(name)
    return hooked, strange


def _enums(headers: Headers, found: Sequence[Operator]) -> Iterator[str]:
    """Yield the tables of the enumerations that scalars are of."""
    used = {p.named for o in found for f in (o.create, o.launch) for p in f.parameters if p.type}
    for enum in sorted(used & headers.enums.keys()):
        rows = "".join(f'{{{value}, "{name}"}}, ' for value, name in headers.enums[enum].items())
        yield f"static const Name k_{enum}[] = {{{rows}{{0, nullptr}}}};"


def _tables(headers: Headers, names: Sequence[str], notes: Sequence[str]) -> Iterator[str]:
    devices = "".join(
        f'{{{value}, "{_device(name)}"}}, '
        for value, name in headers.enums.get("infiniDevice_t", {}).items()
        if not name.endswith("_COUNT")
    )
    yield f"const Name kDevices[] = {{{devices}{{0, nullptr}}}};"
    dtypes = "".join(
        '{{{}, "{}", {}}}, '.format(value, *_DTYPES[name.removeprefix("INFINI_DTYPE_")])
        for value, name in headers.enums.get("infiniDtype_t", {}).items()
        if name.removeprefix("INFINI_DTYPE_") in _DTYPES
    )
    yield f"const DType kDTypes[] = {{{dtypes}{{0, nullptr, 0}}}};"
    wrapped = "".join(f'\n    {{"{name}", reinterpret_cast<void*>(&{name})}},' for name in names)
    yield f"const Wrapper kWrappers[] = {{{wrapped}\n    {{nullptr, nullptr}}}};"
    told = "".join(f'\n    "{note}",' for note in notes)
    yield f"const char* const kNotes[] = {{{told}\n    nullptr}};"


def _device(enumerator: str) -> str:
    name = enumerator.removeprefix("INFINI_DEVICE_").lower()
    return _RENAMED_DEVICES.get(name, name)


def _signature(function: Function, names: Sequence[str]) -> str:
    pairs = zip(function.parameters, names, strict=True)
    return f"{function.name}({', '.join(f'{p.type} {name}' for p, name in pairs)})"


def _real(function: Function) -> str:
    types = ", ".join(p.type for p in function.parameters)
    return (
        f'    static Real real("{function.name}");\n'
        f"    auto run = reinterpret_cast<int (*)({types})>(real.get());\n"
    )


def _passed(function: Function) -> str:
    names = [f"a{number}" for number in range(len(function.parameters))]
    return (
        f"GOLDENCTL_EXPORT int {_signature(function, names)} {{\n{_real(function)}"
        f'    passed_through("{function.name}");\n'
        f"    return run({', '.join(names)});\n}}\n"
    )


def _hook(function: Function, hook: _Hook) -> str:
    names = [f"a{number}" for number in range(len(function.parameters))]
    call = f"run({', '.join(names)})"
    body = f"    int status = {call};\n    {hook.line};\n    return status;\n"
    if hook.before:
        body = f"    {hook.line};\n    return {call};\n"
    return f"GOLDENCTL_EXPORT int {_signature(function, names)} {{\n{_real(function)}{body}}}\n"


def _operator(operator: Operator, headers: Headers) -> Iterator[str]:
    yield _create(operator, headers)
    yield _launch(operator, headers)
    if operator.destroy is not None and operator.destroy.known:
        yield _hook(operator.destroy, _Hook("void*", "descriptor_destroyed(a0)", before=True))


def _create(operator: Operator, headers: Headers) -> str:
    function = operator.create
    names = _names(function)
    described = [
        name
        for p, name in zip(function.parameters, names, strict=True)
        if p.named == "infiniopTensorDescriptor_t" and p.stars == 0
    ]
    scalars = "".join(_scalars(function.parameters[2:], headers, "creation", 8))
    return (
        f"GOLDENCTL_EXPORT int {_signature(function, names)} {{\n{_real(function)}"
        f"{_wanted(operator)}"
        f"    Creation creation(wanted, {{{', '.join(described)}}});\n"
        f"    if (creation.wanted()) {{\n{scalars}    }}\n"
        f"    return creation.end(run({', '.join(names)}), {names[1]});\n}}\n"
    )


def _launch(operator: Operator, headers: Headers) -> str:
    function = operator.launch
    names = _names(function)
    plain = [p.name for p in function.parameters]
    stream = "p_stream" if "stream" in plain else "nullptr"
    operands = "".join(_operand(operand) for operand in operator.operands)
    if operator.opaque:
        operands += f'        launch.not_followed("{", ".join(operator.opaque)}");\n'
    rest = [p for p in function.parameters[1:] if p.name not in ("workspace_size", "stream")]
    scalars = "".join(_scalars(rest, headers, "launch", 8))
    return (
        f"GOLDENCTL_EXPORT int {_signature(function, names)} {{\n{_real(function)}"
        f"{_wanted(operator)}"
        f'    Launch launch(wanted, "{operator.op}", "{function.name}", {names[0]}, {stream});\n'
        f"    if (launch.wanted()) {{\n{scalars}{operands}        launch.begin();\n    }}\n"
        f"    return launch.end(run({', '.join(names)}));\n}}\n"
    )


def _wanted(operator: Operator) -> str:
    return f'    static const bool wanted = wants("{operator.op}");\n'


def _names(function: Function) -> list[str]:
    """Return names that no keyword of C++ and no variable of the body has."""
    return [f"p_{p.name}" for p in function.parameters]


def _scalars(
    parameters: Sequence[Parameter], headers: Headers, of: str, indent: int
) -> Iterator[str]:
    for p in parameters:
        if p.type == "void*" and not is_text(p):
            continue
        value = f"p_{p.name}"
        if is_text(p):
            value = f"static_cast<const char*>({value})"
        elif p.type in ("int64_t", "ptrdiff_t"):
            value = f"static_cast<int64_t>({value})"
        elif p.type in ("uint64_t", "size_t"):
            value = f"static_cast<uint64_t>({value})"
        names = f", k_{p.named}" if p.named in headers.enums else ""
        yield f'{" " * indent}{of}.scalars.add("{p.name}", {value}{names});\n'


def _operand(operand: Operand) -> str:
    io = {"in": "kIn", "out": "kOut", "inout": "kInOut"}[operand.io]
    if operand.read_if:
        io = f"p_{operand.read_if} ? kInOut : {io}"
    tensor = f"size_t{{{operand.tensor}}}"
    if operand.derived is not None:
        dtype, sizes = operand.derived
        tensor = f'row_major("{dtype}", {{{", ".join(_size(size) for size in sizes)}}})'
    return f'        launch.operand("{operand.name}", p_{operand.pointer}, {io}, {tensor});\n'


def _size(size: str) -> str:
    """Return C++ for a size: of an axis, as ``x.0`` of tensor 0, or a scalar."""
    name, _, axis = size.partition(".")
    return f"launch.size(0, {axis})" if axis else f"static_cast<int64_t>(p_{name})"
