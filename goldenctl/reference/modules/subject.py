"""What is recorded: a module and the calls of it, from a user's function or a checkpoint."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from goldenctl.digests import Hasher
from goldenctl.dtypes import DTYPES, FLOAT_DTYPES
from goldenctl.errors import UsageError
from goldenctl.reference.modules.values import Given

# Yields the arguments of each call in turn, and is sent what the call before returned.
Calls = Callable[[], Generator[Given, Any, None]]
_CONTRACT = (
    "return (module, inputs); inputs: a tensor, a tuple of arguments, a dict of keyword "
    "arguments, or a list of these for several calls"
)


@dataclass(frozen=True)
class Subject:
    """A module, and by case the calls of it. ``source`` is what a recipe says of where the module
    is from, ``cases`` what it says of the inputs."""

    module: nn.Module
    calls: Mapping[str, Calls]
    source: Mapping[str, Any]
    cases: Sequence[Mapping[str, Any]] = field(default=({"name": "default"},))

    @property
    def dtype(self) -> str:
        """The float type that most of its parameters have."""
        return dtype_of(self.module)


def from_function(spec: str, *, device: str = "cpu", dtype: str | None = None) -> Subject:
    """Call ``PACKAGE:FUNCTION`` for a module and its inputs, and take both to ``device``.

    With ``dtype`` the module and what is floating point of its inputs is cast. Raises UsageError
    for whatever is not as the function should have it.
    """
    made = _called(spec)
    if not (isinstance(made, tuple) and len(made) == 2):
        message = f"--module {spec}: returned {_kind(made)}, expected a module and its inputs"
        raise UsageError(message, hint=_CONTRACT)
    module, inputs = made
    if not isinstance(module, nn.Module):
        message = f"--module {spec}: returned {_kind(module)} in place of an nn.Module"
        raise UsageError(message, hint=_CONTRACT)
    target = getattr(torch, dtype) if dtype else None
    module = module.to(device) if target is None else module.to(device, target)
    listed = inputs if isinstance(inputs, list) else [inputs]
    given = [_given(spec, each) for each in listed]

    def moved(_path: str, tensor: Tensor) -> Tensor:
        cast = target if tensor.is_floating_point() else None
        return tensor.to(device) if cast is None else tensor.to(device, cast)

    calls = [each.mapped(moved) for each in given]
    source = {"function": spec, "inputs": "function", **({"cast": True} if dtype else {})}
    return Subject(module, {"default": fixed(calls)}, source)


def fixed(calls: Sequence[Given]) -> Calls:
    """Return calls whose arguments are known beforehand."""

    def each() -> Generator[Given, Any, None]:
        for call in calls:  # noqa: UP028 - a list cannot be sent what the call returned
            yield call

    return each


def fingerprint(module: nn.Module) -> str:
    """Return one digest over the names, types, shapes and bytes of all parameters and buffers."""
    hasher = Hasher(threads=torch.get_num_threads())
    tensors: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    tensors |= dict(module.named_buffers(remove_duplicate=False))
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach().to("cpu").contiguous()
        hasher.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():
            hasher.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.digest


def dtype_of(module: nn.Module) -> str:
    """Return the float type that most parameters of a module have; float32 without any."""
    counts: Counter[str] = Counter()
    for parameter in module.parameters():
        counts[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    known = [name for name, _ in counts.most_common() if name in FLOAT_DTYPES]
    return known[0] if known else "float32"


def stored_dtype(tensor: Tensor, where: str) -> str:
    """Return the type in which a golden holds a tensor; UsageError for one that none can.

    Booleans and small integers are stored as int32.
    """
    name = str(tensor.dtype).removeprefix("torch.")
    if name in DTYPES:
        return name
    if tensor.layout == torch.strided and name in ("bool", "uint8", "int8", "int16"):
        return "int32"
    layout = "" if tensor.layout == torch.strided else f"{tensor.layout} "
    message = f"{where}: a golden cannot hold a {layout}tensor of {tensor.dtype}"
    raise UsageError(message, hint="leave the module out with --match or --depth")


def _called(spec: str) -> Any:
    package, colon, name = spec.partition(":")
    if not (package and colon and name):
        message = f"--module {spec}: expected PACKAGE:FUNCTION, such as models.vit:tiny"
        raise UsageError(message)
    if package.endswith(".py"):
        message = f"--module {spec}: {package} is a file, expected a package or module"
        raise UsageError(message, hint=f"try {package[:-3].strip('./').replace('/', '.')}:{name}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # what is beside the user, as with python -m
    try:
        function = getattr(importlib.import_module(package), name)
    except AttributeError as error:
        message = f"--module {spec}: {package} has no function {name}"
        raise UsageError(message) from error
    except Exception as error:
        message = f"--module {spec}: {package} cannot be imported: {_said(error)}"
        hint = "it is looked for in the current folder, $PYTHONPATH and what is installed"
        raise UsageError(message, hint=hint) from error
    if not callable(function):
        message = f"--module {spec}: {name} is {_kind(function)}, expected a function"
        raise UsageError(message, hint=_CONTRACT)
    try:
        return function()
    except Exception as error:
        message = f"--module {spec}: raised {_said(error)}"
        raise UsageError(message, hint="it is called without arguments") from error


def _given(spec: str, inputs: Any) -> Given:
    if isinstance(inputs, Given):
        return inputs
    if isinstance(inputs, Tensor):
        return Given((inputs,))
    if isinstance(inputs, tuple):
        return Given(inputs)
    if isinstance(inputs, Mapping):
        return Given((), {str(key): value for key, value in inputs.items()})
    message = f"--module {spec}: {_kind(inputs)} cannot be the inputs of a call"
    raise UsageError(message, hint=_CONTRACT)


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "nothing" if value is None else f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
