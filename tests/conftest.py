"""Owns the fixtures that several folders of tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from goldenctl.infini.find import Install
from goldenctl.infini.harness import build_harness
from goldenctl.infini.provision import install

# Where the tests themselves run on GitHub, no test may write to the job's summary.
os.environ.pop("GITHUB_STEP_SUMMARY", None)

# --- InfiniCore and its harness: built once, kept in the user's own folders, safe under xdist ---


@pytest.fixture(scope="session")
def infini_install() -> Install:
    """Return the CPU build of InfiniCore, made on the first run of the tests (about 30 s)."""
    return install()


@pytest.fixture(scope="session")
def harness(infini_install: Install) -> Path:
    """Return the harness for ``infini_install``, built when its sources changed (about 10 s)."""
    return build_harness(infini_install)


# --- end of InfiniCore and its harness ---
