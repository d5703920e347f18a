"""Tiny checkpoints that the tests of the model package share."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldenctl.model.synth import synth


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny Qwen3 checkpoint; not to be changed."""
    return synth("tiny", tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOLDENCTL_CACHE", str(tmp_path / "cache"))
