"""What a recording keeps of itself so that it can continue after an interruption.

After a sublayer its journal gets the digests of what was written since the last entry, and the
tensors that the next sublayers need: hidden states, keys and values, what the oracle carries.
A long past makes these large, so an entry is made only when at most a fifth of the time goes
into entries; sublayers after the last one are computed again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from goldenctl.golden.journal import Journal
from goldenctl.reference.clock import Clock
from goldenctl.reference.sink import TensorSink

_SHARE = 4.0  # an entry waits until this many times its own cost has passed


@dataclass(frozen=True)
class Kept:
    """Where a recording stopped: how many sublayers of all passes are finished, and what the
    next one needs."""

    count: int
    tensors: dict[str, Tensor]


class Keeper:
    """Stands before a sink and keeps a journal of what went through it."""

    def __init__(self, journal: Journal, sink: TensorSink[Any], clock: Clock) -> None:
        self._journal = journal
        self._sink = sink
        self._clock = clock
        self._names: dict[str, None] = {}  # written since the last entry
        self._timed: set[str] = set()
        self._last = 0
        self._cost_s = 0.0
        self._made = time.monotonic()

    def put(self, name: str, value: Tensor, first_column: int = 0) -> None:
        """Hand a tensor, or some columns of it, on to the sink."""
        if name in self._sink.names:
            self._names[name] = None
            self._sink.put(name, value, first_column)

    def resume(self) -> Kept | None:
        """Return where an earlier recording stopped; the digests and times until then count as
        this one's. DamagedError when its state is lost."""
        if not self._journal.finished:
            return None
        for entry in self._journal.finished.values():
            self._sink.digests |= entry.digests
            self._clock.times_ns |= entry.rest["times_ns"]
            self._clock.iqr_ns |= entry.rest["iqr_ns"]
            self._last = entry.rest["count"]
        self._timed = set(self._clock.times_ns)
        try:
            return Kept(self._last, load(self._journal.state()))
        except SafetensorError as error:
            message = f"its state is not readable: {error}"
            raise self._journal.damaged(message) from error

    def due(self) -> bool:
        """Whether enough time has passed for the next entry."""
        return time.monotonic() - self._made >= _SHARE * self._cost_s

    def finished(self, count: int, tensors: Mapping[str, Tensor]) -> None:
        """Note that the first ``count`` sublayers of all passes are finished."""
        started = time.monotonic()
        writer = self._sink.settle()
        writer.sync()
        whole = self._sink.digests
        digests = {name: whole.get(name) or writer.digest(name) for name in self._names}
        new = [name for name in self._clock.times_ns if name not in self._timed]
        rest = {
            "count": count,
            "times_ns": {name: self._clock.times_ns[name] for name in new},
            "iqr_ns": {n: self._clock.iqr_ns[n] for n in new if n in self._clock.iqr_ns},
        }
        state = save({name: value.cpu().contiguous().clone() for name, value in tensors.items()})
        self._journal.add(str(count), digests, rest=rest, state=state, count=count - self._last)
        self._timed |= set(new)
        self._names.clear()
        self._last = count
        self._made = time.monotonic()
        self._cost_s = self._made - started
