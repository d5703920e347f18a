"""Mapping in threads, in order, without getting far ahead of who takes the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int = 4
) -> Iterator[_Result]:
    """Yield ``work`` of each item, in their order, working on as many as there are threads.

    The error of an item is raised in its turn; work that has not begun is then dropped.
    """
    waiting: list[Future[_Result]] = []
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
