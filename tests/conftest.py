"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from goldenctl.folders import provisioned_prefix
from goldenctl.infini.find import Install
from goldenctl.infini.harness import build_harness
from goldenctl.infini.provision import fetch, install, is_whole

# Where the tests themselves run on GitHub, no test may write to the job's summary.
os.environ.pop("GITHUB_STEP_SUMMARY", None)
# Threads of several workers that spin at their barriers take each other's cores: a small product
# takes 6 ms instead of 0.1. Read when PyTorch or an engine is loaded, and inherited.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# On a busy machine any strategy is slow at times; that says nothing of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# --- InfiniCore and its harness: built once, kept in the user's own folders, safe under xdist ---


@pytest.fixture(scope="session")
def infini_install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Return the CPU build of InfiniCore, made on the first run of the tests (about 30 s).

    It is made as its users make it who have no network where they build: by the command, from
    a source package that was fetched before, at a prefix.
    """
    prefix = provisioned_prefix()
    if not is_whole(prefix):
        folder = tmp_path_factory.mktemp("sdist")
        archive = fetch(folder, folder / "log")
        command = [sys.executable, "-m", "goldenctl", "infinicore", "install"]
        command += ["--prefix", str(prefix), "--sdist", str(archive)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, f"InfiniCore is at {prefix}\n"), done.stderr
        assert is_whole(prefix)
    return install()


@pytest.fixture(scope="session")
def harness(infini_install: Install) -> Path:
    """Return the harness for ``infini_install``, built when its sources changed (about 10 s)."""
    return build_harness(infini_install)


# --- end of InfiniCore and its harness ---
