"""Output in any encoding: no character of a verdict may end the command that prints it."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

# What is printed where a terminal or a pipe has no such character (GBK, Latin-1, ASCII).
_SPELLED = {
    "✓": "+",
    "✗": "x",
    "→": "->",
    "µ": "u",
    "±": "+-",
    "×": "x",
    "∞": "inf",
    "²": "^2",
    "Σ": "sum",
    "·": ".",
    "–": "-",
    "…": "...",
}
_ERRORS = "goldenctl.spelled"
_ASCII = "goldenctl_ascii"


def let_everything_print(*streams: TextIO | None) -> None:
    """Let streams spell out what their encoding lacks, in place of raising an error.

    click writes UTF-8 to a stream whose encoding is called ASCII; here it has another name.
    """
    codecs.register_error(_ERRORS, _spelled)
    codecs.register(_find)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else None, errors=_ERRORS)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (c.encode("ascii", "backslashreplace").decode("ascii") for c in lacking)
    return "".join(_SPELLED.get(c, e) for c, e in zip(lacking, escaped, strict=True)), error.end


def _find(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode,
        known.decode,
        known.streamreader,
        known.streamwriter,
        known.incrementalencoder,
        known.incrementaldecoder,
        name=_ASCII,
    )
