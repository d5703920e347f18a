"""What two recordings are compared by: the bytes of both, or what a manifest keeps."""

from __future__ import annotations

import math

from goldenctl.diff.by_sketch import MOST
from goldenctl.diff.metrics import score
from goldenctl.diff.padding import padding_of
from goldenctl.diff.sketches import sketch_tensor, sketch_values
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.golden.sketch import distance
from goldenctl.sets.manifest import Manifest
from goldenctl.sets.truth import Yardsticks, budget_factor, one_truth


class ByBytes:
    """Both goldens are here."""

    def __init__(self, old: GoldenFile, new: GoldenFile) -> None:
        self._old = old
        self._new = new

    def distance(self, old: TensorInfo, new: TensorInfo) -> float:
        values = self._new.map(new.name), self._old.verify(old.name)
        metrics = score(*values, atol=0.0, rtol=0.0)
        return metrics.rel_l2 if not metrics.mismatches else math.inf

    def truth(self, info: TensorInfo) -> Yardsticks | None:
        return one_truth(self._old, self._new, info)

    def budget_factor(self, name: str) -> float | None:
        return budget_factor(self._old.verify(name), self._new.map(name))


class ByManifest:
    """Of the old golden only its manifest is here: digests, sketches, and what they grant."""

    def __init__(self, manifest: Manifest, new: GoldenFile) -> None:
        self._manifest = manifest
        self._new = new

    def distance(self, old: TensorInfo, new: TensorInfo) -> float:
        known = self._manifest.by_name[old.name].sketch
        if known is None:
            return math.inf
        values = self._new.map(new.name)
        gap = distance(sketch_values(values, new, padding_of(self._new, new)), known)
        return gap.rel_l2 * MOST if gap.same_places else math.inf

    def truth(self, info: TensorInfo) -> Yardsticks | None:
        return None

    def budget_factor(self, name: str) -> float | None:
        """Compare what the sketches of the budget's tensor say that it grants."""
        tensor = name.replace("/budget/", "/")
        if tensor not in self._manifest.by_name or tensor not in self._new.tensors:
            return None
        before = self._manifest.by_name[tensor].sketch
        after = sketch_tensor(self._new, self._new.tensors[tensor])
        if before is None or before.budget is None or after.budget is None:
            return None
        pairs = [(value, after.budget.get(scope, 0.0)) for scope, value in before.budget.items()]
        factors = [max(pair) / min(pair) if min(pair) > 0.0 else math.inf for pair in pairs]
        return max((f for f, pair in zip(factors, pairs, strict=True) if max(pair)), default=1.0)
