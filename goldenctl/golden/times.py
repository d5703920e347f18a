"""When a golden was recorded and how long each op took: a small file beside the golden.

A golden holds what was computed, so that two recordings of the same are the same bytes; what
was measured on the way differs every time. The file is only ever extra: it is read when
it belongs to the golden's content, and without it times are unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from goldenctl.digests import modern
from goldenctl.places import place

_LIMIT_BYTES = 64 << 20
Nanoseconds = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Times(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured while the golden with ``content_digest`` was recorded.

    ``time_ns`` is by tensor and by sublayer, both by their full path; so is ``iqr_ns``, the
    distance of the quartiles where a time is the median of several.
    """

    content_digest: str = ""
    created_utc: Annotated[str, Meta(max_length=32)] = ""
    time_ns: dict[str, Nanoseconds] = msgspec.field(default_factory=dict)
    iqr_ns: dict[str, Nanoseconds] = msgspec.field(default_factory=dict)


def times_path(golden: Path) -> Path:
    """Return where a golden's times are: ``golden.h5.times.json``."""
    return golden.with_name(f"{golden.name}.times.json")


def now_utc() -> str:
    """Return the time as a golden and a run store it: ISO 8601, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode_times(
    content_digest: str, time_ns: Mapping[str, int], iqr_ns: Mapping[str, int]
) -> bytes:
    """Return the bytes of a times file written now."""
    times = Times(content_digest, now_utc(), dict(time_ns), dict(iqr_ns))
    return msgspec.json.format(msgspec.json.encode(times), indent=1) + b"\n"


def with_groups(iqr_ns: Mapping[str, int]) -> dict[str, int]:
    """Add the spread of each group of tensors, as if they varied each by itself."""
    groups: dict[str, list[int]] = {}
    for name, spread in iqr_ns.items():
        groups.setdefault(place(name).group, []).append(spread)
    return {**iqr_ns, **{group: round(math.hypot(*spreads)) for group, spreads in groups.items()}}


def read_times(golden: Path, content_digest: str) -> Times:
    """Return the times of a golden; empty ones when there are none of this content."""
    path = times_path(golden)
    if not path.is_file():
        return Times()
    try:
        with path.open("rb") as file:
            times = msgspec.convert(modern(msgspec.json.decode(file.read(_LIMIT_BYTES))), Times)
    except (OSError, UnicodeDecodeError, RecursionError, msgspec.MsgspecError):
        return Times()
    return times if times.content_digest == content_digest else Times()
