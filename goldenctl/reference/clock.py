"""Timing of the reference's ops: the median of repetitions, and their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Clock:
    """Times in nanoseconds by tensor: the median, and how far the quartiles lie apart.

    With ``repeat`` over 1 each op is computed once more before, untimed; the last result is
    kept. What is computed in slices adds up under one name.
    """

    repeat: int = 1
    times_ns: dict[str, int] = field(default_factory=dict)
    iqr_ns: dict[str, int] = field(default_factory=dict)

    def run(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """Compute an op's output and note how long it took."""
        times = []
        for number in range(self.repeat + (self.repeat > 1)):
            started = time.perf_counter_ns()
            value = compute()
            if value.device.type == "cuda":
                torch.cuda.synchronize(value.device)
            if number or self.repeat == 1:
                times.append(time.perf_counter_ns() - started)
        self.times_ns[name] = self.times_ns.get(name, 0) + round(statistics.median(times))
        if self.repeat > 1:
            low, _, high = statistics.quantiles(times, n=4, method="inclusive")
            self.iqr_ns[name] = self.iqr_ns.get(name, 0) + round(high - low)
        return value
