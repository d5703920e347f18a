"""Choice of the tensors to export: by pattern and by case, with the links to them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from goldenctl.errors import UsageError
from goldenctl.exchange.catalog import Catalog, catalog_of
from goldenctl.golden.file import GoldenFile
from goldenctl.places import place


def select(file: GoldenFile, *, only: Sequence[str] = (), cases: Sequence[str] = ()) -> Catalog:
    """Describe the tensors of ``file`` that match any pattern and belong to any of the cases.

    A pattern is a shell pattern over the full name (``cases/a/steps/00/layers/03/*``) or the
    dotted one (``layers.03.attention.*``); a tensor matches also by a link to it. Constants
    belong to every case. Without patterns and cases it is the whole file. Raises UsageError
    for a pattern or case that matches nothing.
    """
    chosen: set[str] = set()
    for pattern in only or ("*",):
        matched = {file.aliases.get(name, name) for name in _names(file) if _fits(name, pattern)}
        if not matched and only:
            message = f"{file.path}: no tensor's name matches {pattern!r}"
            raise UsageError(message, hint="such as 'layers.03.attention.*'; inspect lists them")
        chosen |= matched
    chosen = {name for name in chosen if _in_cases(file, name, cases)}
    known = {info.case for info in file.tensors.values()} - {""}
    for case in cases:
        if case not in known:
            message = f"{file.path}: there is no case {case!r}"
            raise UsageError(message, hint=f"it has {', '.join(sorted(known)) or 'none'}")
    if not chosen:
        message = f"{file.path}: nothing is left to export"
        raise UsageError(message, hint="choose other patterns or cases")
    tensors = {name: info for name, info in file.tensors.items() if name in chosen}
    folders = {place(name).group for name in tensors}
    links = {
        link: target
        for link, target in file.aliases.items()
        if target in tensors
        and _in_cases(file, link, cases)
        and (place(link).group in folders or (only and _fits_any(link, only)))
    }
    return catalog_of(file, tensors, links)


def _names(file: GoldenFile) -> list[str]:
    return [*file.tensors, *file.aliases]


def _fits_any(name: str, patterns: Sequence[str]) -> bool:
    return any(_fits(name, pattern) for pattern in patterns)


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(dotted_name(name), pattern)


def dotted_name(name: str) -> str:
    """Return ``layers.03.attention.q_proj`` for a tensor in a step, else the full name."""
    return place(name).short


def _in_cases(file: GoldenFile, name: str, cases: Sequence[str]) -> bool:
    case = place(name).case
    return not cases or not case or case in cases
