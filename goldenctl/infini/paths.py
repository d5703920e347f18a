"""Owns where this package keeps what it builds: the data and the cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def provisioned_prefix() -> Path:
    """Return where ``goldenctl infinicore install`` puts InfiniCore.

    ``$GOLDENCTL_HOME``, or ``goldenctl`` under ``$XDG_DATA_HOME`` or ``~/.local/share``.
    """
    return _folder("GOLDENCTL_HOME", "XDG_DATA_HOME", ".local/share") / "infinicore-0.1.0"


def harness_cache() -> Path:
    """Return the folder of built harnesses, one subfolder per key.

    Under ``$GOLDENCTL_CACHE``, or ``goldenctl`` under ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    return _folder("GOLDENCTL_CACHE", "XDG_CACHE_HOME", ".cache") / "harness"


def _folder(own: str, xdg: str, fallback: str) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get(xdg, "")
    # The XDG specification says that a relative path is to be ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / fallback) / "goldenctl"
