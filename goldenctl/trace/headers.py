"""Reads the C functions and enumerations out of InfiniCore's headers.

The headers are regular enough for that: functions are marked for export, types are plain or
named by a typedef, and no parameter is a function. What does not fit is said, not skipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from goldenctl.errors import DamagedError, MissingError

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*$", re.M)
# `__C` in older headers, `__INFINI_C` in newer ones.
_FUNCTION = re.compile(r"__(?:INFINI_)?C\s+__export\s+([\w\s*]+?)\b(\w+)\s*\(([^()]*)\)\s*;")
_CALLABLE = re.compile(r"\b(infini(?:op|rt)[A-Z]\w*)\s*\(")
_ENUM = re.compile(r"typedef\s+enum\s*\w*\s*\{([^{}]*)\}\s*(\w+)\s*;")
_POINTER = re.compile(r"typedef\s+(?:struct\s+)?\w+\s*\*\s*(\w+)\s*;")
_PARAMETER = re.compile(r"(.*?)(\w+)\s*(\[\s*\])?$", re.S)
_INTEGERS = [f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_PLAIN = frozenset({"bool", "char", "int", "float", "double", "size_t", "ptrdiff_t", *_INTEGERS})
LIMIT_BYTES = 1 << 22


@dataclass(frozen=True)
class Parameter:
    """One parameter of a function.

    ``type`` is the C type as the caller passes it: a plain type, ``int`` for an enumeration,
    ``void*`` for every pointer; empty where it is none of these. ``named`` is the typedef that
    the header gives, or the plain type; ``stars`` how many pointers the header writes.
    """

    name: str
    type: str
    named: str
    stars: int
    const: bool


@dataclass(frozen=True)
class Function:
    """One exported function that returns an ``infiniStatus_t``, unless ``known`` is False."""

    name: str
    parameters: tuple[Parameter, ...]
    known: bool = True


@dataclass(frozen=True)
class Headers:
    """Functions by name, and enumerators by the typedef of their enumeration and by value."""

    functions: dict[str, Function]
    enums: dict[str, dict[int, str]]


def read_headers(include: Path) -> Headers:
    """Read ``infinicore.h``, ``infinirt.h`` and all below ``infiniop``; raises MissingError."""
    paths = [include / "infinicore.h", include / "infinirt.h"]
    texts = [_text(path) for path in (*paths, *sorted((include / "infiniop").rglob("*.h")))]
    enums = {m[2]: _enumerators(m[1]) for text in texts for m in _ENUM.finditer(text)}
    pointers = {m[1] for text in texts for m in _POINTER.finditer(text)}
    functions: dict[str, Function] = {}
    for text in texts:
        for match in _FUNCTION.finditer(text):
            function = _function(match, enums, pointers)
            functions[function.name] = function
        for match in _CALLABLE.finditer(text):
            functions.setdefault(match[1], Function(match[1], (), known=False))
    return Headers(functions, enums)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise MissingError(message) from error
    if len(data) > LIMIT_BYTES:
        message = f"{path}: larger than the {LIMIT_BYTES} bytes that are allowed of a header"
        raise DamagedError(message)
    return _DIRECTIVE.sub("", _COMMENT.sub(" ", data.decode("utf-8", "replace")))


def _enumerators(body: str) -> dict[int, str]:
    """Return names by value; counting goes on as in C, and an expression is left out."""
    names: dict[int, str] = {}
    following = 0
    for entry in filter(None, (part.strip() for part in body.split(","))):
        name, _, value = (part.strip() for part in entry.partition("="))
        if value:
            try:
                following = int(value, 0)
            except ValueError:
                continue
        names.setdefault(following, name)
        following += 1
    return names


def _function(
    match: re.Match[str], enums: dict[str, dict[int, str]], pointers: set[str]
) -> Function:
    returned, name, text = match.groups()
    parts = [" ".join(part.split()) for part in text.split(",")]
    if parts in ([""], ["void"]):
        parts = []
    parameters = tuple(_parameter(part, enums, pointers) for part in parts)
    known = returned.split() == ["infiniStatus_t"] and all(p.type for p in parameters)
    return Function(name, parameters, known)


def _parameter(text: str, enums: dict[str, dict[int, str]], pointers: set[str]) -> Parameter:
    match = _PARAMETER.fullmatch(text)
    assert match is not None  # it ends in a word, or the function's expression did not match
    before, name, array = match.groups()
    words = [word for word in re.findall(r"\w+", before) if word not in ("const", "struct")]
    stars = before.count("*") + bool(array)
    named = " ".join(words)
    if stars or named in pointers:
        passed = "void*"
    else:
        passed = "int" if named in enums else named if named in _PLAIN else ""
    return Parameter(name, passed, named, stars, "const" in before.split("*")[0].split())
