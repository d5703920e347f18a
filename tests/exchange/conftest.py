"""What the tests of export and import share: small goldens of a tiny model."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from goldenctl.cli import run
from goldenctl.golden.file import GoldenFile, open_golden

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests share their cores


@pytest.fixture(scope="session")
def golden_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], GoldenFile]:
    """Return a function from a dtype to a golden with budgets and two cases, made once."""
    folder = tmp_path_factory.mktemp("exchange")

    def made(dtype: str) -> GoldenFile:
        checkpoint, golden = folder / "tiny", folder / f"{dtype}.h5"
        if not checkpoint.exists():
            assert run(["synth", "tiny", str(checkpoint)]) == 0
        if not golden.exists():
            words = ["record", str(checkpoint), str(golden), "--dtype", dtype, "--oracle"]
            words += ["--token-ids", "5,6,7,8,9", "--token-ids", "1,2,3"]
            assert run(words) == 0
        return open_golden(golden)

    return made
