"""Backends: commands that speak the plan protocol, and how they name themselves."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from goldenctl.digests import of_file
from goldenctl.errors import MissingError, UsageError, require_torch
from goldenctl.ops.plan import Plan
from goldenctl.ops.table import LAUNCHES
from goldenctl.places import short_name

EXEC_PREFIX = "exec:"
DEVICES = (
    "cpu",
    "nvidia",
    "ascend",
    "cambricon",
    "metax",
    "moore",
    "iluvatar",
    "kunlun",
    "hygon",
    "qy",
    "ali",
)


@dataclass(frozen=True)
class Backend:
    """A program that executes plans, and what the run file says of it."""

    name: str
    command: tuple[str, ...]
    description: dict[str, Any] = field(default_factory=dict)


def open_backend(
    spec: str, *, infini_root: Path | None = None, notify: Callable[[str], None] = lambda _: None
) -> Backend:
    """Return the backend that ``spec`` names: ``infinicore``, ``torch`` or ``exec:PROGRAM``.

    ``infinicore:FOLDER`` is the install in that folder, whatever ``infini_root`` says.
    Builds the harness on first use, telling ``notify``. Raises MissingError for what is not
    installed and UsageError for an unknown name.
    """
    if spec == "infinicore":
        return _infinicore(infini_root, notify)
    if spec.startswith("infinicore:"):
        return _infinicore(Path(spec.removeprefix("infinicore:")), notify)
    if spec == "torch":
        return _torch()
    if spec.startswith(EXEC_PREFIX):
        return _program(spec.removeprefix(EXEC_PREFIX))
    msg = f"backend {spec!r} is not known"
    raise UsageError(
        msg,
        hint="use infinicore, torch or exec:PROGRAM; replay and verify have simulated too",
    )


def parse_device(text: str) -> tuple[str, int]:
    """Split ``nvidia:1`` into its type and number; raises UsageError when it is neither."""
    kind, _, number = text.partition(":")
    kind = "nvidia" if kind == "cuda" else kind
    if kind not in DEVICES or (":" in text and not re.fullmatch("[0-9]{1,4}", number)):
        msg = f"device {text!r} is not known"
        raise UsageError(msg, hint=f"use one of {', '.join(DEVICES)}, or TYPE:N")
    return kind, int(number or 0)


def check_dtype(backend: Backend, dtype: str) -> None:
    """Raise UsageError for a dtype that InfiniCore has no kernels for."""
    if backend.name == "infinicore" and dtype == "float64":
        msg = "backend infinicore computes in float32, bfloat16 and float16, not in float64"
        raise UsageError(msg, hint="pass --dtype float32, or --backend torch")


def check_attention(backend: Backend, attention: str) -> None:
    """Raise UsageError for a fused attention that InfiniCore does not have."""
    if backend.name == "infinicore" and attention == "sdpa":
        msg = "backend infinicore has no fused attention op"
        raise UsageError(msg, hint="leave --attention at eager, or use --backend torch")


def check_ops(backend: Backend, plan: Plan) -> None:
    """Raise UsageError, naming them, for ops of a plan that InfiniCore does not have."""
    if backend.name != "infinicore":
        return
    lacking: dict[str, str] = {}
    for sublayer in plan.sublayers:
        for op in sublayer.ops:
            if not LAUNCHES[op.op].infinicore:
                lacking.setdefault(op.op, f"{short_name(sublayer.name)}.{op.tap}")
    if lacking:
        named = ", ".join(f"{op} (first for {where})" for op, where in lacking.items())
        msg = f"backend infinicore has no op {named}"
        raise UsageError(msg, hint="--backend torch has them all")


def check_device(backend: Backend, device: str) -> None:
    """Raise MissingError for a device that the backend can be asked for and does not have."""
    kind, number = parse_device(device)
    if backend.name == "torch":
        from goldenctl.reference.device import check_device as check_torch

        check_torch("cpu" if kind == "cpu" else f"cuda:{number}")
    if backend.name == "infinicore":
        from goldenctl.infini.find import find_install
        from goldenctl.infini.harness import devices

        root = Path(backend.description["infinicore"]["root"])
        count = devices(find_install(root)).counts.get(kind, 0)
        if number >= count:
            msg = f"there is no device {device}; {root} sees {count} of type {kind}"
            raise MissingError(msg, hint="goldenctl infinicore status shows what there is")


def _infinicore(root: Path | None, notify: Callable[[str], None]) -> Backend:
    from goldenctl.infini.find import find_install
    from goldenctl.infini.harness import build_harness

    install = find_install(root)
    program = build_harness(install, progress=notify)
    description = {
        "name": "infinicore",
        "infinicore": {
            "root": str(install.root),
            "source": install.source,
            "version": install.version,
            "headers": install.headers_digest,
            "libraries": dict(install.library_digests),
        },
        "harness_digest": of_file(program),
    }
    return Backend("infinicore", (str(program),), description)


def _torch() -> Backend:
    require_torch("backend torch")
    command = (sys.executable, "-m", "goldenctl.reference.torch_backend")
    return Backend("torch", command, {"name": "torch"})


def _program(text: str) -> Backend:
    here = None if Path(text).is_absolute() else shutil.which(f"./{text}")
    found = shutil.which(text) or here
    if found is None:
        reason = "is not executable" if Path(text).is_file() else "does not exist"
        msg = f"backend exec:{text}: the program {reason}"
        raise MissingError(msg)
    path = Path(found).resolve()
    description = {"name": "exec", "path": os.fspath(path), "digest": of_file(path)}
    return Backend("exec", (os.fspath(path),), description)
