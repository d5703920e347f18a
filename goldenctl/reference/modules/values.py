"""What a module is given and yields, taken apart: tensors in tuples, dicts and dataclasses.

A tensor's path says where it is: ``output``, ``output.1``, ``output.last_hidden_state``,
``input.attention_mask``. What is in a tuple of one has its name.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

# By the id of an object, the object and a copy of it.
Copies = dict[int, tuple[Any, Any]]
# Is given a tensor's path and the tensor, and returns what stands in its place.
Change = Callable[[str, Tensor], Any]
_ODD = re.compile(r"[^A-Za-z0-9_+-]")
_PLAIN = (nn.Module, type, types.FunctionType, types.MethodType, types.ModuleType)


@dataclasses.dataclass(frozen=True)
class Given:
    """The arguments of one call."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def mapped(
        self, change: Change, *, objects: bool = False, stand_ins: Copies | None = None
    ) -> Given:
        """Return the arguments with each tensor changed; as in ``mapped``.

        An object that ``stand_ins`` has is copied from there; without one, copies are noted in it.
        """
        mapper = _Mapper(change, objects, stand_ins)
        alone = len(self.args) == 1
        args = tuple(
            mapper.of(value, "input" if alone else f"input.{number}")
            for number, value in enumerate(self.args)
        )
        return Given(args, {k: mapper.of(v, f"input.{_key(k)}") for k, v in self.kwargs.items()})

    def tensors(self, *, objects: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor with its path, each path once."""
        found: list[tuple[str, Tensor]] = []
        self.mapped(_collect(found), objects=objects)
        yield from found


def tensors_of(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of nested tuples, lists, mappings and dataclasses with its path."""
    found: list[tuple[str, Tensor]] = []
    mapped(value, path, _collect(found))
    yield from found


def mapped(value: Any, path: str, change: Change, *, objects: bool = False) -> Any:
    """Return a copy of ``value`` in which each tensor is what ``change`` returns for it.

    With ``objects``, other objects such as a key-value cache are copied too, and the tensors in
    their attributes changed; without, they are handed on as they are.
    """
    return _Mapper(change, objects).of(value, path)


class _Mapper:
    def __init__(self, change: Change, objects: bool, stand_ins: Copies | None = None) -> None:
        self._change = change
        self._objects = objects
        self._stand_ins: Copies = {} if stand_ins is None else stand_ins
        self._done: dict[int, Any] = {}  # copies of objects, which may be given twice
        self._paths: set[str] = set()

    def of(self, value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            return self._change(self._unique(path), value)
        children = _children(value)
        if children is not None:
            new = [self.of(child, f"{path}.{key}" if key else path) for key, child in children]
            return _rebuilt(value, new)
        if self._objects and _has_state(value):
            return self._object(value, path)
        return value

    def _unique(self, path: str) -> str:
        """Tell keys apart that are written alike."""
        name, count = path, 1
        while name in self._paths:
            count += 1
            name = f"{path}+{count}"
        self._paths.add(name)
        return name

    def _object(self, value: Any, path: str) -> Any:
        if id(value) not in self._done:
            _, source = self._stand_ins.get(id(value), (None, value))
            new = copy.copy(source)
            self._done[id(value)] = new
            self._stand_ins.setdefault(id(value), (value, new))
            for key, child in vars(source).items():
                new.__dict__[key] = self.of(child, f"{path}.{_key(key)}")
        return self._done[id(value)]


def _children(value: Any) -> list[tuple[str, Any]] | None:
    if isinstance(value, Mapping):
        return [(_key(key), child) for key, child in value.items()]
    if isinstance(value, tuple | list):
        alone = len(value) == 1
        return [("" if alone else str(n), child) for n, child in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return None


def _rebuilt(value: Any, children: list[Any]) -> Any:
    if isinstance(value, tuple):
        return type(value)(*children) if hasattr(value, "_fields") else type(value)(children)
    if isinstance(value, list):
        new: Any = copy.copy(value)
        new[:] = children
        return new
    if isinstance(value, Mapping):
        pairs = dict(zip(value.keys(), children, strict=True))
        if dataclasses.is_dataclass(value):  # an output of transformers, whose fields are its keys
            return type(value)(**pairs)
        new = copy.copy(value)
        new.update(pairs)
        return new
    new = copy.copy(value)
    for field, child in zip(dataclasses.fields(value), children, strict=True):
        object.__setattr__(new, field.name, child)
    return new


def _has_state(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, _PLAIN)


def _key(key: object) -> str:
    """A key as a part of a tensor's name."""
    return _ODD.sub("_", str(key)) or "_"


def _collect(found: list[tuple[str, Tensor]]) -> Change:
    def note(path: str, tensor: Tensor) -> Tensor:
        found.append((path, tensor))
        return tensor

    return note
