"""Which tensor of a dump stands for which of the golden, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from goldenctl.errors import DamagedError, UsageError
from goldenctl.exchange.dump import Dump
from goldenctl.exchange.dump_tensor import DumpTensor
from goldenctl.exchange.fit import Fit, case_sizes, tokens_before
from goldenctl.exchange.namemap import Entry, Lacking, NameMap, fill, is_left_out, matches
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo

_LISTED = 3
_SEARCHED = 10_000  # difflib takes a minute for more names


@dataclass(frozen=True)
class Assignment:
    """Every tensor that a run of the golden should hold: where it comes from, or why not.

    ``fits`` are in execution order, two of them where the map adds a second tensor.
    """

    fits: Mapping[str, tuple[Fit, ...]]
    missing: tuple[str, ...]
    not_computed: tuple[str, ...]
    unused: tuple[str, ...]


def assign(
    golden: GoldenFile,
    dump: Mapping[str, DumpTensor],
    mapping: NameMap,
    *,
    cases: Sequence[str] = (),
    steps: Sequence[int] = (),
    lacking: Lacking | None = None,
) -> Assignment:
    """Find every tensor's place by the map, checking names and shapes before any is read.

    ``lacking`` overrides the map's. Raises UsageError for a name that is ambiguous, not in
    the dump or not in the map (unless ``lacking`` says otherwise), or of another shape.
    """
    policy = lacking or mapping.lacking
    fits: dict[str, tuple[Fit, ...]] = {}
    lacks: list[str] = []
    not_computed: list[str] = []
    owners: dict[tuple[str, int, str], str] = {}
    used: set[str] = set()
    for info in _wanted(golden, cases, steps):
        entry = _entry(mapping, info)
        if entry is None or is_left_out(mapping.not_computed, info):
            left_out = is_left_out(mapping.not_computed, info)
            (not_computed if left_out else lacks).append(info.name)
            continue
        terms = [[_source(dump, n, policy, info) for n in names] for names in names_of(entry, info)]
        found = [[source for source in term if source is not None] for term in terms]
        if found != terms:
            lacks.append(info.name)
            continue
        fits[info.name] = fits_of(entry, info, found, golden)
        used.update(source.name for term in found for source in term)
        _refuse_shared(owners, entry, info, found[0][0])
    _refuse_lacks(lacks, policy)
    if policy == "not_computed":
        not_computed, lacks = [*not_computed, *lacks], []
    _refuse_nothing(golden, dump, fits)
    unused = tuple(name for name in dump if name not in used)
    return Assignment(fits, tuple(lacks), tuple(not_computed), unused)


def _wanted(golden: GoldenFile, cases: Sequence[str], steps: Sequence[int]) -> list[TensorInfo]:
    known = list(dict.fromkeys(i.case for i in golden.tensors.values() if i.case))
    for case in cases:
        if case not in known:
            message = f"{golden.path}: there is no case {case!r}"
            raise UsageError(message, hint=f"it has {', '.join(known)}")
    wanted = [
        info
        for info in golden.tensors.values()
        if info.role in ("tap", "output")
        and (not cases or info.case in cases)
        and (not steps or int(info.step) in steps)
    ]
    if not wanted:
        message = f"{golden.path}: there is no step {', '.join(map(str, steps))}"
        raise UsageError(message, hint="0 is the prompt, 1 the first decoded token")
    return wanted


def _entry(mapping: NameMap, info: TensorInfo) -> Entry | None:
    found = [entry for entry in mapping.tensor if matches(entry.golden, info)]
    if len(found) > 1:
        message = (
            f"{info.name}: the map has it twice, as {found[0].golden!r} and {found[1].golden!r}"
        )
        raise UsageError(message, hint="take one of them out")
    return found[0] if found else None


def names_of(entry: Entry, info: TensorInfo) -> list[list[str]]:
    """Return the dump's names for a tensor: of every rank, and of what is added to it."""
    patterns = [entry.dump] if entry.plus is None else [entry.dump, entry.plus]
    return [[fill(p, info, rank=rank) for rank in range(entry.ranks)] for p in patterns]


def fits_of(
    entry: Entry, info: TensorInfo, terms: Sequence[Sequence[DumpTensor]], golden: GoldenFile
) -> tuple[Fit, ...]:
    """Return how the terms of a tensor become it; raises as Fit does."""
    sizes = case_sizes(golden.tensors, info.case, info.step)
    start = tokens_before(golden.tensors, info.case, info.step) if entry.stacked else 0
    return tuple(Fit(entry, info, term, sizes, start=start) for term in terms)


def _source(
    dump: Mapping[str, DumpTensor], name: str, policy: Lacking, info: TensorInfo
) -> DumpTensor | None:
    if name in dump or policy != "error":
        return dump.get(name)
    close = get_close_matches(name, list(dump)[:_SEARCHED], 1)
    near = f"the nearest name is {close[0]!r}" if close else f"it has {len(dump)} others"
    message = f"{info.name}: the dump has no tensor {name!r} ({near})"
    damaged = [f.error for f in dump.unread if f.error] if isinstance(dump, Dump) else []
    if damaged:
        raise DamagedError(message, hint=f"it may be in what is not read: {damaged[0]}")
    raise UsageError(message, hint="correct the map, or pass --lacking missing or not-computed")


def _refuse_shared(
    owners: dict[tuple[str, int, str], str], entry: Entry, info: TensorInfo, source: DumpTensor
) -> None:
    key = (source.name, entry.part, info.step if entry.stacked else "")
    if key in owners:
        message = (
            f"tensor {source.name!r} of the dump stands for both {owners[key]} and {info.name}"
        )
        hint = "use {layer}, {case} and {step} in its name, or choose one --case and --step"
        raise UsageError(message, hint=hint)
    owners[key] = info.name


def _refuse_lacks(lacks: Sequence[str], policy: Lacking) -> None:
    if lacks and policy == "error":
        more = f" and {len(lacks) - _LISTED} more" if len(lacks) > _LISTED else ""
        message = f"the map says nothing of {', '.join(lacks[:_LISTED])}{more}"
        hint = "map them, list them as not_computed, or pass --lacking missing or not-computed"
        raise UsageError(message, hint=hint)


def _refuse_nothing(
    golden: GoldenFile, dump: Mapping[str, DumpTensor], fits: Mapping[str, object]
) -> None:
    if not fits:
        message = f"none of the {len(dump)} tensors of the dump is one of {golden.path}"
        raise UsageError(message, hint="import DUMP --golden GOLDEN --list suggests a map")
