"""Reading of untrusted TOML files: size, depth and time are bounded.

The library's time grows with the square of the parts of a dotted key, so it runs in a process of
its own.
"""

from __future__ import annotations

import json
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

from goldenctl.isolate import Refused, Worker, isolated

LIMIT_BYTES = 4 << 20


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; dates come as text.

    OSError as it comes; ValueError saying what is wrong with the file.
    """
    with path.open("rb") as file:
        data = file.read(LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        message = f"it is larger than {LIMIT_BYTES} bytes"
        raise ValueError(message)
    return parse_toml(data)


def parse_toml(data: bytes) -> dict[str, Any]:
    """Return the tables of a TOML text as ``read_toml`` does; ValueError."""
    try:
        tables: dict[str, Any] = json.loads(isolated(partial(_parse, data)))
    except Refused as error:
        raise ValueError(str(error)) from error
    return tables


def _parse(data: bytes, _: Worker) -> bytes:
    try:
        return json.dumps(tomllib.loads(data.decode("utf-8")), default=str).encode()
    except UnicodeDecodeError as error:
        message = "it is not UTF-8 text"
        raise ValueError(message) from error
    except RecursionError as error:
        message = "it is nested too deeply"
        raise ValueError(message) from error
