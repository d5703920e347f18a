"""Every class of what is not deterministic, from an engine that misbehaves, through the harness."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_harness_engine import build_fake

from goldenctl.cli import run
from goldenctl.golden.file import open_golden
from goldenctl.infini.find import Install
from goldenctl.infini.harness import build_harness

# FAKE_FAULT of gemm, and what is found. The stand-in has no norms, so of the model only the
# embedding and the logits run.
CLASSES = [
    ("", ()),
    ("noise", ("run-to-run noise",)),
    ("stale", ("uninitialised read",)),
    ("carried", ("order dependence",)),
    ("overrun", ("out-of-bounds write",)),
    ("underrun", ("out-of-bounds write",)),
]


@pytest.fixture(scope="module")
def fake_engine() -> Install:
    engine = build_fake(old=False)
    build_harness(engine)
    return engine


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("order")
    assert run(["synth", "tiny", str(folder / "tiny")]) == 0
    golden = folder / "g.h5"
    assert run(["record", str(folder / "tiny"), str(golden), "--token-ids", "1,2,3"]) == 0
    return golden


@pytest.mark.parametrize(("fault", "classes"), CLASSES, ids=[c[0] or "none" for c in CLASSES])
def test_class(
    golden: Path,
    fake_engine: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    classes: tuple[str, ...],
) -> None:
    monkeypatch.setenv("FAKE_FAULT", fault)
    monkeypatch.setenv("FAKE_FAULT_OP", "gemm")
    out = tmp_path / "r.h5"
    options = ["--infini-root", str(fake_engine.root), "--shuffle", "--seed", "1"]
    assert run(["replay", str(golden), str(out), *options]) == 1  # it lacks most ops
    determinism = open_golden(out).recipe["determinism"]
    assert determinism["poisons"]
    found = {f["sublayer"].rpartition("/")[2]: f for f in determinism["findings"]}
    assert set(found) == ({"lm_head"} if classes else set())
    if classes:
        assert tuple(found["lm_head"]["classes"]) == classes
        assert found["lm_head"]["tap"] == "output"
