"""Command lines as text that a person may copy into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable


def quoted(words: Iterable[str]) -> str:
    """Return words as one line of shell; what does not print is escaped, as in ``$'\\x1b'``.

    A control character would reach the terminal that the line is pasted into, quoted or not.
    """
    return " ".join(shlex.quote(word) if word.isprintable() else _escaped(word) for word in words)


def argv_of(command: object) -> list[str] | None:
    """Return the words of a command that a file holds; of older files, which hold one line, too.

    None for what is neither.
    """
    if isinstance(command, str):
        try:
            command = shlex.split(command)
        except ValueError:
            return None
    if not isinstance(command, list) or not command:
        return None
    return command if all(isinstance(word, str) and word for word in command) else None


def _escaped(word: str) -> str:
    def byte(value: int) -> str:
        plain = 32 <= value < 127 and chr(value) not in "'\\"
        return chr(value) if plain else f"\\x{value:02x}"

    return f"$'{''.join(map(byte, word.encode('utf-8', 'surrogateescape')))}'"
