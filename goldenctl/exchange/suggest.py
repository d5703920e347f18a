"""The first draft of a name map: guesses from the dump's names, checked by shape.

What has a fitting name and another shape is said, with the likely cause. Values name nothing;
they only choose among arrangements that the same shape allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from goldenctl.dtypes import DTYPES
from goldenctl.errors import GoldenctlError, printable
from goldenctl.exchange.assign import fits_of, names_of
from goldenctl.exchange.candidates import Candidates
from goldenctl.exchange.dump import Dump
from goldenctl.exchange.dump_tensor import DumpTensor
from goldenctl.exchange.fit import case_sizes
from goldenctl.exchange.namemap import MAP_VERSION, Entry, NameMap, encode, quoted
from goldenctl.exchange.near import likely_cause, shown
from goldenctl.exchange.select import dotted_name
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo

_VALUES_LIMIT_BYTES = 64 << 20
# Relative errors that tell an arrangement of the same numbers from another one.
_FAR, _NEAR = 0.15, 0.05
_LISTED = 4


def listing(dump: Mapping[str, DumpTensor], golden: GoldenFile | None) -> Iterator[str]:
    """Yield the dump's names as comments, then, with a golden, the map that they suggest."""
    yield f"# {len(dump)} tensors"
    width = min(max((len(name) for name in dump), default=0), 60)
    for tensor in dump.values():
        shape = ", ".join(map(str, tensor.shape))
        yield f"# {printable(tensor.name):<{width}}  {tensor.dtype} [{shape}]"
    if isinstance(dump, Dump):
        yield from (f"# {line}" for line in dump.left_out())
    if golden is None:
        yield "# with --golden GOLDEN a map is suggested"
        return
    guess = _Guess(dump, golden)
    yield "# A guess by names and shapes: check every line, above all transposed square axes."
    yield from (f"# {printable(note)}" for note in guess.notes)
    yield from encode(guess.mapping).splitlines()


def suggest(dump: Mapping[str, DumpTensor], golden: GoldenFile) -> NameMap:
    """Return a map of what can be guessed; the taps that have no guess are not computed."""
    return _Guess(dump, golden).mapping


@dataclass
class _Guess:
    """A map in the making, and notes on what came near and did not fit."""

    dump: Mapping[str, DumpTensor]
    golden: GoldenFile
    notes: list[str] = field(default_factory=list)
    _entries: list[Entry] = field(default_factory=list)
    _left_out: list[str] = field(default_factory=list)
    _unnamed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        kinds = _kinds(self.golden)
        config = self.golden.recipe.get("model", {}).get("config", {})
        candidates = Candidates(self.dump, int(config.get("num_hidden_layers", 0)))
        taken: set[tuple[str, int]] = set()
        for pattern, infos in kinds.items():
            tries = list(candidates.of(pattern, infos[0]))
            free = [e for e in tries if (e.dump, e.part) not in taken]
            chosen = self._chosen(pattern, infos, free)
            if chosen is None:
                self._left_out.append(pattern.replace("{layer}", "*"))
                self._note_near(pattern, infos, free)
                continue
            taken.add((chosen.dump, chosen.part))
            self._entries.append(chosen)
            self._note_partial(pattern, infos, chosen, candidates.after_norm)
        if self._unnamed:
            said = ", ".join(self._unnamed)
            self.notes.append(f"No tensor of the dump is named like {said}: not compared.")
        if not self._entries:
            self.notes.append("No tensor fits, so the map is empty.")

    @property
    def mapping(self) -> NameMap:
        return NameMap(
            map_version=MAP_VERSION,
            engine="NAME AND VERSION",
            lacking="error",
            not_computed=tuple(self._left_out),
            tensor=tuple(self._entries),
        )

    def _chosen(self, pattern: str, infos: list[TensorInfo], tries: list[Entry]) -> Entry | None:
        """Return the first entry that fits, or the one of its tensor whose values fit."""
        for entry in tries:
            info = self._first_there(entry, infos)
            if info is not None and self._fits(entry, info):
                first = names_of(entry, info)[0][0]  # of the first rank, where there are some
                same = [
                    e for e in tries if e.part == entry.part and names_of(e, info)[0][0] == first
                ]
                best = self._by_values(info, [e for e in same if self._fits(e, info)])
                if best != entry:
                    self.notes.append(f"{pattern}: its values chose {_difference(best, entry)}.")
                elif entry.crop:
                    self.notes.append(f"{pattern}: {', '.join(entry.crop)} padded in the dump.")
                return best
        return None

    def _by_values(self, info: TensorInfo, entries: list[Entry]) -> Entry:
        """Return the first entry, unless the golden's own values are nearly those of another
        arrangement of the same numbers and far from its."""
        trials = [entries[0], *_arrangements(entries[0], info), *entries[1:]]
        trials = [e for e in trials if self._fits(e, info)]
        nbytes = max(np.prod(t.shape, dtype=float) for t in self._tensors(trials[0], info))
        if len(trials) < 2 or nbytes * 8 > _VALUES_LIMIT_BYTES:
            return trials[0]
        errors = [self._error(entry, info) for entry in trials[:1]]
        if errors[0] < _FAR:
            return trials[0]
        errors += [self._error(entry, info) for entry in trials[1:]]
        best = int(np.argmin(errors))
        return trials[best] if errors[best] < _NEAR else trials[0]

    def _error(self, entry: Entry, info: TensorInfo) -> float:
        """Return the relative L2 error of an entry's values; infinite where there are none."""
        try:
            terms = fits_of(entry, info, self._terms(entry, info), self.golden)
            with np.errstate(all="ignore"):
                actual = sum(fit.values().astype(np.float64) for fit in terms)
                expected = self.golden.map(info.name).astype(np.float64)
                error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        except (GoldenctlError, ValueError, MemoryError):
            return float("inf")
        return float(error) if np.isfinite(error) else float("inf")

    def _terms(self, entry: Entry, info: TensorInfo) -> list[list[DumpTensor]]:
        return [[self.dump[name] for name in names] for names in names_of(entry, info)]

    def _tensors(self, entry: Entry, info: TensorInfo) -> list[DumpTensor]:
        return [tensor for term in self._terms(entry, info) for tensor in term]

    def _first_there(self, entry: Entry, infos: list[TensorInfo]) -> TensorInfo | None:
        return next((info for info in infos if self._is_there(entry, info)), None)

    def _is_there(self, entry: Entry, info: TensorInfo) -> bool:
        return all(name in self.dump for names in names_of(entry, info) for name in names)

    def _fits(self, entry: Entry, info: TensorInfo, shape: tuple[int, ...] | None = None) -> bool:
        """Whether an entry's tensors fit, or would if they had another shape."""
        terms = self._terms(entry, info)
        if shape is not None:
            terms = [[_reshaped(tensor, shape) for tensor in term] for term in terms]
        try:
            fits_of(entry, info, terms, self.golden)
        except GoldenctlError:
            return False
        return True

    def _note_near(self, pattern: str, infos: list[TensorInfo], tries: list[Entry]) -> None:
        """Note why the first tensor that has the name does not fit."""
        found = ((entry, self._first_there(entry, infos)) for entry in tries)
        entry, info = next(((e, i) for e, i in found if i is not None), (None, None))
        if entry is None or info is None:
            if pattern.endswith(".output"):
                self._unnamed.append(pattern)
            return
        self.notes.append(f"{pattern} {shown(info)}: {self._why(entry, info, tries)}")

    def _why(self, entry: Entry, info: TensorInfo, tries: list[Entry]) -> str:
        tensor = self._tensors(entry, info)[0]
        said = f"{entry.dump!r} is {tensor.dtype} {list(tensor.shape)}"
        if tensor.problem is not None:
            return f"{entry.dump!r} cannot be read"
        if tensor.dtype not in DTYPES or not DTYPES[tensor.dtype].is_float:
            return f"{said}: dump it as float32, float16 or bfloat16"
        same = [e for e in tries if e.dump == entry.dump and e.plus == entry.plus]
        sizes = case_sizes(self.golden.tensors, info.case, info.step)
        cause = likely_cause(
            tensor.shape,
            info,
            sizes,
            lambda shape: any(self._fits(e, info, shape) for e in same),
            decoded=_decoded(self.golden, info.case),
        )
        return f"{said}: {cause or 'another shape'}"

    def _note_partial(
        self, pattern: str, infos: list[TensorInfo], chosen: Entry, after_norm: set[str]
    ) -> None:
        """Leave out the layers that the dump lacks, or has in another shape, and say so."""
        other = after_norm if "{layer" in pattern else set[str]()
        lacking = [
            info
            for info in infos
            if not self._is_there(chosen, info)
            or not self._fits(chosen, info)
            or names_of(chosen, info)[0][0] in other
        ]
        if lacking:
            names = [dotted_name(info.name) for info in lacking]
            self._left_out += names
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            held = len(infos) - len(lacking)
            self.notes.append(
                f"{pattern}: the dump has {held} of {len(infos)}, not (or in another shape) "
                f"{', '.join(names[:_LISTED])}{more}"
            )


def _kinds(golden: GoldenFile) -> dict[str, list[TensorInfo]]:
    """Return the tensors that each golden pattern means, of the first step that has them."""
    found: dict[str, list[TensorInfo]] = {}
    for info in golden.tensors.values():
        if info.role in ("tap", "output"):
            pattern = re.sub(r"^layers\.\d+\.", "layers.{layer}.", dotted_name(info.name))
            known = found.setdefault(pattern, [])
            if not known or (known[0].case, known[0].step) == (info.case, info.step):
                known.append(info)
    return found


def _decoded(golden: GoldenFile, case: str) -> int:
    """Return how many tokens the decode steps of a case have."""
    steps = {info.step for info in golden.tensors.values() if info.case == case and info.step}
    return len(steps) - 1 if steps else 0


def _arrangements(entry: Entry, info: TensorInfo) -> Iterator[Entry]:
    """Yield the entry with the elements of a head, or of a fused tensor, in other orders."""
    if "head_dim" in info.dims and entry.head_dim is None:
        yield replace(entry, head_dim="interleaved")


def _difference(best: Entry, entry: Entry) -> str:
    """Return the keys of an entry that differ from those of another, as the map writes them."""
    keys = [key for key in Entry.__struct_fields__ if getattr(best, key) != getattr(entry, key)]
    return ", ".join(f"{key} = {quoted(getattr(best, key))}" for key in keys)


def _reshaped(tensor: DumpTensor, shape: tuple[int, ...]) -> DumpTensor:
    return DumpTensor(tensor.name, tensor.dtype, shape, tensor.where, tensor.read)
