"""Tests what is said of an engine whose own RoPE tables are more exact than PyTorch's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.model.case import Case
from goldenctl.model.config import load_config
from goldenctl.model.rope import exact_rope_tables, rope_tables
from goldenctl.ops.inject import parse_injection
from goldenctl.replay.backend import Backend
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from tests.verdict.conftest import TOKENS, Bench, record_tiny

# Far from the first position angles are large, and so is what float32 loses of them.
FAR = Case("default", (TOKENS,), None, position_offset=480)
TITLES = {"rope_float64": "RoPE tables in float64", "rope_angles_float64": "RoPE angles in float64"}


@pytest.fixture(scope="module")
def far(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> GoldenFile:
    folder = tmp_path_factory.mktemp("far")
    return record_tiny(checkpoint_folder, folder / "far.h5", case=FAR)


@pytest.mark.parametrize("fault", TITLES)
@pytest.mark.parametrize("mode", ["op", "sublayer", "op+sublayer", "chain"])
def test_a_float32_golden_gives_the_reason(
    far: GoldenFile,
    checkpoint_folder: Path,
    backend: Backend,
    tmp_path: Path,
    fault: str,
    mode: str,
) -> None:
    options = Options(
        mode=mode,
        layers=frozenset({0}) if mode == "chain" else frozenset({2}),
        faults=(parse_injection(fault),),
    )
    replay(far, checkpoint_folder, tmp_path / "run.h5", backend=backend, options=options)
    report = compare(far, open_golden(tmp_path / "run.h5"), default_policy())
    rotated = [t for t in report.compared if t.tap in ("q_rope", "k_rope")]
    assert [t.ok for t in rotated] == [False, False]
    assert report.first_wrong == rotated[0]
    for tensor in rotated:
        assert tensor.message.startswith(f"{TITLES[fault]}, where PyTorch rounds each angle")


def test_the_reason_is_reproduced_by_blame(far: GoldenFile, checkpoint_folder: Path) -> None:
    bench = Bench(far, checkpoint_folder)
    for fault in TITLES:
        name = "layers.01.attention.q_rope"
        causes = bench.diagnose(name, bench.faulty(name, fault)).causes
        assert [[f.name for f in cause.faults] for cause in causes] == [[fault]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_16_bit_golden_lets_it_pass(
    checkpoint_folder: Path, backend: Backend, tmp_path: Path, dtype: str
) -> None:
    golden = record_tiny(checkpoint_folder, tmp_path / "golden.h5", dtype=dtype, case=FAR)
    options = Options(layers=frozenset({0}), faults=(parse_injection("rope_float64"),))
    replay(golden, checkpoint_folder, tmp_path / "run.h5", backend=backend, options=options)
    assert compare(golden, open_golden(tmp_path / "run.h5"), default_policy()).ok


def test_exact_tables_are_near_and_nearer_the_truth(checkpoint_folder: Path) -> None:
    config = load_config(checkpoint_folder)
    cos, sin = exact_rope_tables(config, 500)
    frequency = config.rope.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    np.testing.assert_allclose(cos, np.cos(np.arange(500)[:, None] * frequency), atol=1e-12)
    np.testing.assert_allclose(cos**2 + sin**2, 1.0, atol=1e-12)
    off = np.abs(np.stack(rope_tables(config, 500)) - np.stack([cos, sin])).max()
    assert 1e-6 < off < 1e-4
