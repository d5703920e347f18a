"""Goldens of modules that several tests read, recorded once in each worker."""

from __future__ import annotations

import pytest
from module_subjects import Recorded

from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.reference.modules.record import ModuleRecording, record_modules
from goldenctl.reference.modules.subject import from_function


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Return what records a function of module_subjects.py with budgets, once."""
    known: dict[str, GoldenFile] = {}

    def record(name: str) -> GoldenFile:
        if name not in known:
            path = tmp_path_factory.mktemp("modules") / f"{name}.h5"
            subject = from_function(f"module_subjects:{name}")
            record_modules(ModuleRecording(subject, oracle="budget"), path)
            known[name] = open_golden(path)
        return known[name]

    return record
