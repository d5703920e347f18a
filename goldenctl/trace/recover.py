"""What lies in memory that the program itself wrote: rows whose bytes are those of a known row.

An engine on the CPU may append to its cache with a loop of its own. The bytes then tell where the
rows are from, exactly: two rows that are only close are not taken for one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.model.graph import CACHE_LINKS
from goldenctl.trace.canvas import Canvas, Picture
from goldenctl.trace.memory import UNKNOWN, Tags
from goldenctl.trace.values import Values, tag_of

_CACHED = frozenset(CACHE_LINKS.values())
_LEAST_BYTES = 16  # a shorter row may be equal by chance


def recovered(tags: Tags, data: NDArray[Any], canvas: Canvas, values: Values) -> Tags:
    """Return the tags with those of unknown rows filled in that some value has; the rows may
    stand as columns, as keys do in a product."""
    if not tags.size:
        return tags
    tags = tags.copy()
    for turned in (False, True):
        if tags.ndim < 1 + turned or not (tags == UNKNOWN).any():
            break
        if turned:
            _search(tags.swapaxes(-1, -2), data.swapaxes(-1, -2), canvas, values)
        else:
            _search(tags, data, canvas, values)
    return tags


def _search(tags: Tags, data: NDArray[Any], canvas: Canvas, values: Values) -> None:
    for picture in _likely_first(canvas):
        width = picture.data.shape[-1]
        if data.dtype != picture.data.dtype or data.shape[-1] % width:
            continue
        if width * data.itemsize < _LEAST_BYTES:
            continue
        split = (*data.shape[:-1], -1, width)
        parts = tags.reshape(split)  # of a turned view this is a copy
        rows = data.reshape(split)
        # Rows of one number, such as zeros that were never written, are anyone's.
        unknown = (parts == UNKNOWN).any(-1) & (rows != rows[..., :1]).any(-1)
        if not unknown.any():
            break
        _fill(parts, rows, unknown, picture, values)
        tags[...] = parts.reshape(tags.shape)


def _likely_first(canvas: Canvas) -> list[Picture]:
    """Return what was computed, what caches hold first: the context of a first token has the
    same bytes as its value."""
    latest_first = reversed(list(canvas.pictures.values()))
    return sorted(latest_first, key=lambda picture: picture.place.tap not in _CACHED)


def _fill(
    tags: Tags, data: NDArray[Any], unknown: NDArray[np.bool_], picture: Picture, values: Values
) -> None:
    width = picture.data.shape[-1]
    whole = np.flatnonzero(picture.rows.reshape(-1))
    known = {
        row.tobytes(): int(n)
        for n, row in zip(whole, picture.data.reshape(-1, width)[whole], strict=True)
    }
    number = values.number(picture.place)
    for where in np.argwhere(unknown):
        at = tuple(where)
        row = known.get(data[at].tobytes())
        if row is not None:
            tags[at] = tag_of(number, np.arange(width) + row * width)
