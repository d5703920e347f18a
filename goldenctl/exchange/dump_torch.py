"""PyTorch's own files (torch.save), zip and legacy, read by torch where it is installed.

``weights_only`` reads tensors and plain containers and runs nothing. Containers become dotted
names: ``{"layers": [{"q": tensor}]}`` is ``layers.0.q``.
"""

from __future__ import annotations

import importlib.util
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError, MissingError
from goldenctl.exchange.dump_tensor import DumpTensor, damage_named, refuse_name, rehearse

if TYPE_CHECKING:
    import torch

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
SAVE_AGAIN = (
    "save it again where torch is: safetensors.torch.save_file(torch.load(FILE), OUT), "
    "or numpy.savez"
)
SAVE_TENSORS = "save a dict of tensors instead: torch.save({NAME: tensor}, FILE)"
_MAX_DEPTH = 32
_MAX_NODES = 1 << 20


def is_torch_zip(path: Path) -> bool:
    """Tell whether a zip file is one that torch.save wrote."""
    with damage_named(path), zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())


def read_torch(path: Path) -> dict[str, DumpTensor]:
    """Return the tensors of a file by dotted names, a single one by the file's name.

    Raises MissingError without torch, DamagedError for a file that is damaged or holds more
    than tensors, numbers, texts and containers of them.
    """
    if importlib.util.find_spec("torch") is None:
        message = f"{path}: a PyTorch file, and the torch package is not installed"
        raise MissingError(message, hint=SAVE_AGAIN)
    import torch  # noqa: F401 - for the process that reads the file first

    rehearse(path, lambda: sum(1 for _ in _leaves(_load(path), path.stem)))
    found: dict[str, DumpTensor] = {}
    with damage_named(path):
        for name, tensor in _leaves(_load(path), path.stem):
            refuse_name(name, seen=name in found)
            found[name] = _tensor(path, name, tensor)
        if not found:
            message = "it holds no tensor"
            raise ValueError(message)
    return found


def _load(path: Path) -> Any:
    import torch

    mapped = zipfile.is_zipfile(path)
    with warnings.catch_warnings(action="ignore"):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except OSError:
            raise
        except Exception as error:  # of a damaged file torch raises nearly anything
            raise _refusal(path, f"{error}".strip() or type(error).__name__) from error


def _refusal(path: Path, text: str) -> Exception:
    """Return what to raise for what weights_only would not load, from torch's many lines."""
    if "TorchScript" in text:
        message = f"{path}: a TorchScript program, which is not read"
        return DamagedError(message, hint=SAVE_TENSORS)
    said = text.partition("WeightsUnpickler error: ")[2].strip() or text
    line = said.splitlines()[0]
    _, is_global, rest = line.partition("Unsupported global: GLOBAL ")
    if not is_global and not line.startswith(("Can only", "Trying to", "Unsupported class")):
        return ValueError(f"torch cannot read it: {line[:200]}")
    what = rest.split()[0] if is_global else line.rstrip(".")
    message = f"{path}: holds more than tensors ({what[:120]}), and is not read for safety"
    return DamagedError(message, hint=SAVE_TENSORS)


def _leaves(value: Any, stem: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor in nested containers with its dotted name; ValueError for a container
    that holds itself, or that grows without end by being shared."""
    import torch

    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    nodes = 0
    while stack:
        name, item, depth = stack.pop()
        nodes += 1
        if nodes > _MAX_NODES or depth > _MAX_DEPTH:
            message = f"{name[:80]!r}: deeper or more containers than a dump has"
            raise ValueError(message)
        if isinstance(item, torch.Tensor):
            yield name or stem, item
            continue
        pairs: list[tuple[Any, Any]] = []
        if isinstance(item, Mapping):
            pairs = list(item.items())
        elif isinstance(item, list | tuple):
            pairs = list(enumerate(item))
        for key, inner in reversed(pairs):
            stack.append((f"{name}.{key}" if name else str(key), inner, depth + 1))


def _tensor(path: Path, name: str, tensor: torch.Tensor) -> DumpTensor:
    import torch

    kind = str(tensor.dtype).removeprefix("torch.")
    odd = [
        tensor.is_nested and "nested",
        tensor.is_quantized and "quantized",
        tensor.layout != torch.strided and str(tensor.layout).removeprefix("torch."),
        tensor.device.type != "cpu" and tensor.device.type,
    ]
    if any(odd):
        kind = f"{kind} ({next(filter(None, odd))})"
    shape = () if tensor.is_nested else tuple(tensor.shape)

    def read() -> NDArray[Any]:
        with damage_named(path):
            values = tensor.detach().resolve_conj().resolve_neg()
            if values.dtype == torch.bfloat16:
                return np.asarray(values.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
            return np.asarray(values.numpy())

    return DumpTensor(name, kind, shape, str(path), read)
