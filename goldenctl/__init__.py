"""Record-and-replay golden tensors: find the op that a port of a transformer gets wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goldenctl.reference.capture import capture as capture

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what needs torch only for those who ask for it."""
    if name == "capture":
        from goldenctl.errors import require_torch

        require_torch("goldenctl.capture")
        from goldenctl.reference.capture import capture

        return capture
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
