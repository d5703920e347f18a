"""All that is wrong with one file, gathered to be said at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from goldenctl.errors import DamagedError, GoldenctlError, UsageError

LISTED = 5
T = TypeVar("T")


class Problems:
    """Errors about one file, in the order in which they were met."""

    def __init__(self, errors: Iterable[GoldenctlError]) -> None:
        self._errors = list(errors)
        self._first = len(self._errors)

    @property
    def of_values(self) -> bool:
        """Whether something that was tried went wrong."""
        return len(self._errors) > self._first

    def tried(self, step: Callable[[], T], otherwise: T) -> T:
        """Return what ``step`` returns, or ``otherwise`` when it raises an error, which is kept."""
        try:
            return step()
        except GoldenctlError as error:
            self._errors.append(error)
            return otherwise

    def raise_all(self, where: str) -> None:
        """Raise what there is: one error as it is, several as one about ``where``: a
        DamagedError where one of them is."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            hints = [error.hint for error in self._errors]
            said = [
                error.message.removeprefix(f"{where}: ")
                + (f" ({error.hint})" if error.hint and error.hint not in hints[:number] else "")
                for number, error in enumerate(self._errors)
            ]
            more = len(said) - LISTED
            tail = f"; and {more} more" if more > 0 else ""
            message = f"{where}: {'; '.join(said[:LISTED])}{tail}"
            damaged = any(isinstance(error, DamagedError) for error in self._errors)
            raise (DamagedError if damaged else UsageError)(message)
