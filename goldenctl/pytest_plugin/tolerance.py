"""How much a test allows a tensor to differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from goldenctl.diff.tolerance import Limits, Policy, default_policy
from goldenctl.dtypes import DTYPES


@dataclass(frozen=True)
class Allowed:
    """What ``check`` was told. Element limits are ``|a - e| <= atol + rtol |e|``; nothing at
    all means the default of the dtype and op, or equality for integers."""

    rtol: float | None = None
    atol: float | None = None
    rel_l2: float | None = None
    cosine: float | None = None
    max_ulp: float | None = None
    exact: bool = False
    op: str = "linear"

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "rel_l2", "cosine", "max_ulp"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                message = f"{name}={value}: expected a finite number that is not negative"
                raise ValueError(message)
        if f"float32/{self.op}" not in default_policy().table:
            known = [key.partition("/")[2] for key in default_policy().table if "float32" in key]
            message = f"op={self.op!r}: expected one of {', '.join(known)}"
            raise ValueError(message)
        if self.exact and (self.by_element or self._numbers()):
            message = "exact=True stands alone: it allows no difference"
            raise ValueError(message)

    @property
    def by_element(self) -> bool:
        return self.rtol is not None or self.atol is not None

    def limits(self, dtype: str) -> Limits | None:
        """Return the limits on the whole tensor; None when each element is judged alone."""
        numbers = self._numbers()
        if numbers:
            return Limits(**numbers)
        if self.by_element or self.exact or not DTYPES[dtype].is_float:
            return None
        return default_policy().limits(dtype, self.op)

    def is_exact(self, dtype: str) -> bool:
        return self.exact or (self.limits(dtype) is None and not self.by_element)

    def policy(self, dtype: str) -> Policy:
        """The limits as a policy, for the verdict by sketch."""
        return Policy("test", {"*/*": self.limits(dtype) or Limits(rel_l2=0.0)})

    def _numbers(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in ("rel_l2", "cosine", "max_ulp")}
        return {name: value for name, value in numbers.items() if value is not None}
