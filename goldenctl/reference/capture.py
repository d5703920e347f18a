"""Hooks that write what every module of a running PyTorch model yields, for ``import`` to read."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from goldenctl.errors import UsageError
from goldenctl.exchange.records import RecordWriter


@dataclasses.dataclass
class Capture:
    """What a capture has seen: how many tensors it wrote, and the modules still to be called."""

    path: Path
    tensors: int = 0
    silent: tuple[str, ...] = ()


@contextmanager
def capture(
    model: nn.Module, path: str | Path, *, match: str = "*", inputs: bool = False
) -> Iterator[Capture]:
    """Write every tensor that the model's modules yield inside this block to a new file.

    A tensor's name is its module's, ``.0``, ``.1`` or ``.key`` after it where a module yields
    several; with ``inputs`` what a module was given is written too, as ``NAME.input``, which is
    how a decoder's attention context and residual sums are seen. A module
    that is called again, for the next token, writes its name again. Values are copied when the
    module returns, so what changes them in place later does not show. ``match`` is a shell
    pattern over module names; the model itself is ``""``.

    A compiled model is broken into a graph a module while its modules are captured: what is
    written is what these graphs compute, and with ``fullgraph=True`` torch refuses. Calls of
    ``module.forward``, code that was exported or scripted, and what was compiled before the
    capture run no hooks: where a chosen module was not called, a UserWarning says so, and
    ``Capture.silent`` names them all.

    Raises UsageError when the file exists or no module has such a name.
    """
    chosen = {name: m for name, m in model.named_modules() if fnmatchcase(name, match)}
    if not chosen:
        message = f"capture: no module of the model is named {match!r}"
        raise UsageError(message, hint="names are those of model.named_modules()")
    try:
        writer = RecordWriter(Path(path))
    except FileExistsError as error:
        message = f"{path}: the file exists already"
        raise UsageError(message, hint="remove it, or capture into another") from error
    seen = Capture(Path(path))
    called: set[str] = set()
    hooks = _hooks(chosen, writer, seen, called, inputs=inputs)
    ran = model.register_forward_hook(_uncompiled(lambda *_: called.add(_MODEL)))
    try:
        with writer:
            yield seen
    finally:
        for hook in (*hooks, ran):
            hook.remove()
        seen.silent = tuple(name for name in chosen if name not in called)
    _warn_of_silence(seen, chosen, ran_at_all=_MODEL in called)


_MODEL = "<model>"  # no module's name: names are attributes joined by dots


_COMPILED = "_orig_mod"  # where torch.compile's module keeps the one that it was made of


def _name(qualified: str) -> str:
    """Return a module's name as it is without torch.compile."""
    return ".".join(part for part in qualified.split(".") if part != _COMPILED)


def _uncompiled(hook: Callable[..., None]) -> Callable[..., None]:
    """Keep a hook out of what torch.compile compiles."""
    disable = cast("Callable[[Any], Any]", torch.compiler.disable)
    return cast("Callable[..., None]", disable(hook))


def _hooks(
    chosen: Mapping[str, nn.Module],
    writer: RecordWriter,
    seen: Capture,
    called: set[str],
    *,
    inputs: bool,
) -> list[Any]:
    def hook(qualified: str) -> Callable[..., None]:
        name = _name(qualified)

        def write(_module: nn.Module, given: Any, named: Any, output: Any) -> None:
            called.add(qualified)
            parts = [(name, output)]
            if inputs:
                parts += [(f"{name}.input", given), (f"{name}.input", named)]
            for where, value in parts:
                for path, tensor in _tensors(where, value):
                    _append(writer, path, tensor)
                    seen.tensors += 1

        return write

    return [
        module.register_forward_hook(_uncompiled(hook(name)), with_kwargs=True)
        for name, module in chosen.items()
    ]


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested tuples, lists, mappings and dataclasses, with their names."""
    if isinstance(value, Tensor):
        yield name.lstrip("."), value
        return
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Mapping):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        children = [(str(key), child) for key, child in value.items()]
    elif isinstance(value, tuple | list):
        alone = len(value) == 1
        children = [("" if alone else str(i), child) for i, child in enumerate(value)]
    else:
        return
    for key, child in children:
        yield from _tensors(f"{name}.{key}" if key else name, child)


def _append(writer: RecordWriter, name: str, tensor: Tensor) -> None:
    """Write one tensor; its bytes are copied now, before anything changes them."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return
    host = tensor.detach().to("cpu").contiguous()
    dtype = str(host.dtype).removeprefix("torch.")
    data = host.reshape(-1).view(torch.uint8).numpy().data
    header = {"kind": "tap", "name": name, "dtype": dtype, "shape": list(host.shape)}
    writer.append(header, data)


def _warn_of_silence(seen: Capture, chosen: Mapping[str, nn.Module], *, ran_at_all: bool) -> None:
    silent = [name for name in seen.silent if list(chosen[name].parameters(recurse=False))]
    if not ran_at_all:
        warnings.warn("capture: the model was not called", UserWarning, stacklevel=4)
    elif silent:
        names = ", ".join(silent[:3]) + (", ..." if len(silent) > 3 else "")
        message = (
            f"capture: modules with parameters that were not called: {len(silent)} ({names}); "
            "hooks do not run in exported code, in direct calls of forward, or in code that "
            "torch.compile made before the capture (call torch._dynamo.reset() first)"
        )
        warnings.warn(message, UserWarning, stacklevel=4)
