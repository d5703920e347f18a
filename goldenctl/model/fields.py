"""Typed access to an untrusted JSON object: every complaint names the file and the key.

A value of the wrong kind is a damaged file (DamagedError), one that is not supported is not
(UsageError).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NoReturn

from goldenctl.errors import DamagedError, UsageError
from goldenctl.model.jsonfile import type_name

FLOAT_LIMIT = 1e12
SIZE_LIMITS = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "num_hidden_layers": 1 << 12,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 14,
    "max_position_embeddings": 1 << 30,
}


class Fields:
    """The keys of one JSON object; a key that is null counts as left out, as in transformers."""

    def __init__(self, data: dict[str, Any], where: str, prefix: str = "") -> None:
        self.data = data
        self.where = where
        self.prefix = prefix

    def get(self, key: str) -> Any:
        return self.data.get(key)

    def _value(self, key: str, default: object) -> Any:
        value = self.data.get(key)
        return default if value is None else value

    def size(self, key: str, *, default: int | None = None) -> int:
        value = self._value(key, default)
        limit = SIZE_LIMITS.get(key, 1 << 30)
        if not is_int(value) or not 1 <= value <= limit:
            self.fail(key, f"an integer from 1 to {limit}", value)
        return int(value)

    def positive(self, key: str, *, default: float | None = None) -> float:
        value = self._value(key, default)
        if not is_number(value) or not 0.0 < value <= FLOAT_LIMIT:
            self.fail(key, f"a number above 0 and up to {FLOAT_LIMIT:g}", value)
        return float(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            self.fail(key, "true or false", value)
        return value

    def text(self, key: str) -> str:
        value = self.data.get(key)
        if not isinstance(value, str):
            self.fail(key, "a string", value)
        return value

    def one_of(self, key: str, value: object, known: Collection[str]) -> str:
        """Return a name that is known; another one is not supported."""
        if isinstance(value, str) and value in known:
            return value
        expected = f"one of {', '.join(known)}"
        if not isinstance(value, str):
            self.fail(key, expected, value)
        raise UsageError(self._unlike(key, expected, value))

    def fail(self, key: str, expected: str, actual: object) -> NoReturn:
        raise DamagedError(self._unlike(key, expected, actual))

    def _unlike(self, key: str, expected: str, actual: object) -> str:
        return f"{self.where}: {self.prefix}{key}: expected {expected}, got {show(actual)}"

    def refuse(self, key: str, *, hint: str = "") -> NoReturn:
        message = f"{self.where}: {self.prefix}{key} {show(self.get(key))} is not supported"
        raise UsageError(message, hint=hint)


def as_object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        message = f"{where}: expected an object, got {type_name(value)}"
        raise DamagedError(message)
    return value


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return is_int(value) or (isinstance(value, float) and math.isfinite(value))


def show(value: object) -> str:
    """Return ``value`` as JSON-like text of at most 80 characters."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int) and abs(value) >= 10**30:
        return "an integer of more than 30 digits"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
