"""What the tests of the plugin share: pytest in a folder of its own."""

from __future__ import annotations

import pytest

# pytester forgets what a run inside it imports, so that each would import NumPy again.
import goldenctl.pytest_plugin.fixture  # noqa: F401


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Keep other plugins out of the runs inside: loading them costs more than the tests."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p goldenctl.pytest_plugin")
    return pytester


@pytest.fixture
def installed_plugins(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run inside find the plugins that are installed, ours among them."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:anyio")


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return a project with one test module of two golden tensors, recorded."""
    pytester.makepyfile(
        test_kernel="""
        import numpy as np
        import pytest

        SCALE = 1.0

        @pytest.mark.parametrize("seed", [1, 2])
        def test_out(golden, seed):
            x = np.random.default_rng(seed).standard_normal((4, 8)).astype(np.float32)
            golden.check("out", SCALE * x)
            golden.check("ids", np.arange(4))
        """
    )
    update(pytester).assert_outcomes(passed=2)
    return pytester


def update(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest("--golden-update", *arguments)


def change(pytester: pytest.Pytester, before: str, after: str) -> None:
    path = pytester.path / "test_kernel.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
