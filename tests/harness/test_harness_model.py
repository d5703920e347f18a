"""A whole model through the sanitized harness on the real InfiniCore."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.infini.find import Install
from goldenctl.infini.harness import build_harness


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_whole_model_under_sanitizers(
    tmp_path: Path, infini_install: Install, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AddressSanitizer and UndefinedBehaviorSanitizer end the program at what they find."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    sanitized = build_harness(infini_install, sanitize=True)
    golden, out = tmp_path / "golden.h5", tmp_path / "run.h5"
    record = ["record", "synth:tiny", str(golden), "--random-tokens", "5", "--decode", "2"]
    assert run([*record, "--dtype", dtype, "--oracle"]) == 0
    assert run(["replay", str(golden), str(out), "--backend", f"exec:{sanitized}"]) == 0
    assert run(["diff", str(golden), str(out)]) == 0
