"""What the tests of finding and building share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty home folder and none of the variables that point elsewhere."""
    for name in ("INFINI_ROOT", "GOLDENCTL_HOME", "XDG_DATA_HOME", "GOLDENCTL_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path
