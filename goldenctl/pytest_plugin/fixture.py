"""The fixture's value: ``golden.check`` compares a tensor with the one that was recorded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from goldenctl.diff.by_sketch import SketchScorer
from goldenctl.errors import DamagedError
from goldenctl.golden.schema import TensorInfo
from goldenctl.golden.sketch import sketch_of
from goldenctl.pytest_plugin.arrays import Array, kept_as, to_array
from goldenctl.pytest_plugin.compare import difference
from goldenctl.pytest_plugin.files import (
    Stored,
    digest,
    is_of,
    kept_sketch,
    kept_values,
    load,
    save,
    with_suffix,
)
from goldenctl.pytest_plugin.tally import Tally
from goldenctl.pytest_plugin.tolerance import Allowed
from goldenctl.records.report import NEUTRAL

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")


class Golden:
    """The golden tensors of one test."""

    def __init__(self, path: Path, *, nodeid: str, update: bool, max_bytes: int) -> None:
        self._path = path
        self._command = f"pytest --golden-update {shlex.quote(nodeid)}"
        self._update = update
        self._max_bytes = max_bytes
        self._stored: dict[str, Stored] | None = None
        self._new: dict[str, Stored] = {}
        self._checked: set[str] = set()

    def check(
        self,
        name: str,
        actual: Any,
        *,
        rtol: float | None = None,
        atol: float | None = None,
        rel_l2: float | None = None,
        cosine: float | None = None,
        max_ulp: float | None = None,
        exact: bool = False,
        op: str = "linear",
        store: Literal["values", "sketch"] | None = None,
        allow_nan: bool = False,
    ) -> None:
        """Fail unless ``actual`` is the tensor recorded as ``name``, within a tolerance.

        ``actual`` is a torch tensor on any device, a NumPy array, or what NumPy can make one
        of; a mapping of those is checked as ``name/key``. ``rtol`` and ``atol`` judge each
        element, ``rel_l2``, ``cosine`` and ``max_ulp`` the whole. With none of them floats have
        the default tolerance of their type and ``op``, integers must be equal. Non-finite
        elements must be where the golden has them; NaN fails unless ``allow_nan``.
        ``store`` keeps the values, or only a sketch, whatever the size.
        """
        __tracebackhide__ = True
        allowed = Allowed(rtol, atol, rel_l2, cosine, max_ulp, exact, op)
        if isinstance(actual, Mapping):
            for key, value in actual.items():
                self._check(f"{name}/{key}", value, allowed, store, allow_nan)
            return
        self._check(name, actual, allowed, store, allow_nan)

    def finish(self, *, passed: bool, tally: Tally) -> None:
        """Write what is new; of a test that passed, note what it did not check.

        Nothing is removed for a test that checked nothing at all: it may have left early.
        """
        unused = sorted(set(self._stored_here()) - self._checked) if passed else []
        if self._update and (self._new or (unused and self._checked)):
            kept = {name: old for name, old in self._known().items() if name not in unused}
            save(self._path, {**kept, **self._new})
            tally.written[str(self._path)] = sorted(self._new) + [
                f"removed {name}" for name in unused
            ]
        elif unused:
            (tally.unused if self._checked else tally.idle)[str(self._path)] = unused

    def _stored_here(self) -> dict[str, Stored]:
        """What is stored, nothing where it cannot be read: a check would have said so."""
        try:
            return self._known()
        except DamagedError:
            return {}

    def _known(self) -> dict[str, Stored]:
        if self._stored is None:
            self._stored = load(self._path, skip_damaged=self._update)
        return self._stored

    def _check(
        self, name: str, actual: Any, allowed: Allowed, store: str | None, allow_nan: bool
    ) -> None:
        __tracebackhide__ = True
        if not _NAME.fullmatch(name):
            message = f"golden {name!r}: expected letters, digits, '_', '.', '-', '+' and '/'"
            raise ValueError(message)
        if name in self._checked:
            message = f"golden {name!r} is checked twice in this test: give each its own name"
            raise ValueError(message)
        self._checked.add(name)
        original = to_array(actual)
        array = kept_as(original)
        problem = _nan(array, allow_nan)
        if problem:
            message = f"golden {name!r}: {problem}"
            raise AssertionError(message)
        try:
            stored = self._known().get(name)
        except DamagedError as error:
            message = f"golden {name!r}: {error.message}\nif git has it: git checkout the file; "
            message += f"else delete it, or to record it again: {self._command}"
            raise AssertionError(message) from None
        kind = store or ("sketch" if array.nbytes > self._max_bytes else "values")
        if kind == "sketch":
            _refuse_by_element(name, array, allowed, self._max_bytes)
        problem = (
            _missing(self._path) if stored is None else _problem(stored, array, original, allowed)
        )
        other_kind = stored is not None and (stored.values is None) != (kind == "sketch")
        if self._update and (problem or other_kind):
            keep = kept_sketch if kind == "sketch" else kept_values
            self._new[name] = keep(array, original)
        elif problem:
            advice = "to record it" if stored is None else "if this is meant"
            message = f"golden {name!r} {problem}\n{advice}: {self._command}"
            raise AssertionError(message)


def _nan(array: Array, allow_nan: bool) -> str:
    if allow_nan or array.dtype.kind in "iu":
        return ""
    count = int(np.count_nonzero(np.isnan(array)))
    return (
        f"{count:,} of {array.size:,} elements are NaN (allow_nan=True if meant)" if count else ""
    )


def _refuse_by_element(name: str, array: Array, allowed: Allowed, max_bytes: int) -> None:
    what = (
        "rtol, atol and max_ulp need" if allowed.by_element or allowed.max_ulp is not None else ""
    )
    if array.dtype.kind not in "iu" and np.isnan(array).any():
        what = "NaN needs"
    if what:
        message = (
            f"golden {name!r}: {what} the values, but only a sketch is kept of its "
            f"{array.nbytes:,} bytes (golden_max_bytes is {max_bytes:,}): pass store='values'"
        )
        raise ValueError(message)


def _missing(path: Path) -> str:
    here = [
        str(each) for suffix in (".h5", ".json") if (each := with_suffix(path, suffix)).exists()
    ]
    return f"is not recorded in {' or '.join(here) or with_suffix(path, '.h5')}"


def _problem(stored: Stored, array: Array, original: Array, allowed: Allowed) -> str:
    """Return how a tensor differs from what is stored of it; empty within the tolerance."""
    if original.shape != stored.shape:
        return f"has shape {list(original.shape)}, expected {list(stored.shape)}"
    if original.dtype.name != stored.dtype:
        return f"has dtype {original.dtype.name}, expected {stored.dtype}"
    if stored.values is not None:
        if stored.values.dtype != array.dtype:
            return f"has dtype {array.dtype.name}, expected {stored.values.dtype.name}"
        said = difference(array, stored.values, allowed)
        return f"differs\n{said}" if said else ""
    if is_of(array, stored.digest):
        return ""
    if stored.sketch is None or allowed.is_exact(array.dtype.name):
        return "differs: its bytes are not those whose digest was kept"
    return _problem_by_sketch(stored, array, allowed)


def _problem_by_sketch(stored: Stored, array: Array, allowed: Allowed) -> str:
    assert stored.sketch is not None
    dtype = array.dtype.name
    dims = tuple(f"dim{axis}" for axis in range(array.ndim))
    infos = [
        TensorInfo("it", dtype, array.shape, dims, "output", "", 0, 0, array.nbytes, each, 0)
        for each in (stored.digest, digest(array))
    ]
    scorer = SketchScorer(
        {"it": stored.sketch}, lambda _: sketch_of(array), allowed.policy(dtype), "sublayer"
    )
    result = scorer(*infos)
    if result.ok or result.state in NEUTRAL:
        return ""
    worst = f"\nworst rows: {result.worst}" if result.worst else ""
    note = "only a sketch of it is kept; store='values' would tell which element"
    return f"differs: {result.message}{worst}\n{note}"
