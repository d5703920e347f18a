"""Reading of untrusted JSON files: size limit, duplicate keys, one clear error each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from goldenctl.errors import DamagedError, MissingError

LIMIT_BYTES = 64 << 20
_MOST_CONTAINERS = 4_000_000  # each takes sixty bytes or more of memory, and two in the file


def read_object(path: Path, *, limit_bytes: int = LIMIT_BYTES) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Raises MissingError when the file is not there and DamagedError when it is too large or
    not one JSON object.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except FileNotFoundError as error:
        message = f"{path}: there is no such file"
        raise MissingError(message) from error
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise MissingError(message) from error
    if len(data) > limit_bytes:
        message = f"{path}: larger than the {limit_bytes} bytes that are allowed"
        raise DamagedError(message)
    return parse_object(data, str(path))


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in ``data``; DamagedError naming ``where`` when it is not one.

    Unlike ``json.loads`` it refuses duplicate keys (two readers could disagree on which one
    counts) and the non-standard NaN and Infinity.
    """
    if data.count(b"[") + data.count(b"{") > _MOST_CONTAINERS:
        message = f"{where}: more than {_MOST_CONTAINERS:,} lists and objects"
        raise DamagedError(message)
    try:
        parsed = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        message = f"{where}: not valid JSON ({error})"
        raise DamagedError(message) from error
    if not isinstance(parsed, dict):
        message = f"{where}: expected a JSON object, got {type_name(parsed)}"
        raise DamagedError(message)
    return parsed


def type_name(value: object) -> str:
    """Return the JSON name of ``value``'s type, for error messages."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            message = f"duplicate key {key[:80]!r}"
            raise ValueError(message)
        result[key] = value
    return result


def _no_constant(name: str) -> Any:
    message = f"{name} is not JSON"
    raise ValueError(message)
