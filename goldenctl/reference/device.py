"""Which of torch's devices this machine has."""

from __future__ import annotations

import torch

from goldenctl.errors import MissingError, UsageError


def check_device(device: str) -> None:
    """Raise unless torch can compute on ``device`` (``cpu``, ``cuda`` or ``cuda:n``)."""
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        msg = f"device {device!r} is not known, expected cpu or cuda[:n]"
        raise UsageError(msg) from error
    if kind.type == "cpu" and not kind.index:
        return
    if kind.type != "cuda":
        msg = f"device {device!r} is not supported, expected cpu or cuda[:n]"
        raise UsageError(msg)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (kind.index or 0) >= count:
        msg = f"device {device}: torch {torch.__version__} sees {count} CUDA devices"
        raise MissingError(
            msg,
            hint="use --device cpu, or install a CUDA build of torch",
        )
