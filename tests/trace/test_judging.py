"""Traced runs where any other run goes: check, attest, comparisons of two runs, no PyTorch."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from example_engine import built, words

from goldenctl.cli import run
from goldenctl.golden.file import open_golden
from goldenctl.infini.find import Install
from goldenctl.report.json import load_report

TOKENS = (5, 6, 7)
SAYS = "layers.00-03.attention: input_layernorm has epsilon 1e-05, the checkpoint says 1e-06"


@pytest.fixture(scope="module")
def goldens(traced_model: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one golden set of the model."""
    folder = tmp_path_factory.mktemp("sets") / "goldens"
    model = str(traced_model[0])
    tokens = ",".join(map(str, TOKENS))
    command = ["record", model, "--name", "small", "--goldens", str(folder), "--token-ids", tokens]
    assert run(command) == 0
    return folder


@pytest.fixture(scope="module")
def golden(goldens: Path) -> Path:
    return next(goldens.rglob("*.h5"))


@pytest.fixture(scope="module")
def engine(infini_install: Install) -> Path:
    return built(infini_install)


@pytest.fixture(scope="module")
def traced(
    engine: Path,
    golden: Path,
    traced_model: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """Return a function from a mistake, or ``none``, to the run of the engine that makes it;
    beside each lies its log."""
    folder = tmp_path_factory.mktemp("runs")

    def made(mistake: str) -> Path:
        out = folder / f"{mistake}.h5"
        if not out.exists():
            options = ("--dtype", "fp32", "--mistake", mistake)
            program = [str(engine), *words(traced_model[0], *options, tokens=TOKENS)]
            kept = ["--keep-calls", str(out.with_suffix(".calls"))]
            assert run(["trace", str(golden), str(out), *kept, "--", *program]) == 0
        return out

    return made


@pytest.mark.parametrize(("mistake", "code"), [("none", 0), ("epsilon", 1)])
def test_check_traces_an_engine_in_place_of_a_replay(
    mistake: str, code: int, engine: Path, goldens: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backend = f"trace:{engine} {{model}} --tokens {{tokens}} --dtype fp32 --mistake {mistake}"
    assert run(["check", "small", "--goldens", str(goldens), "--backend", backend]) == code
    told = " ".join(capfd.readouterr().out.split())
    assert ("a traced engine, cpu" in told, SAYS in told) == (code == 0, code == 1)


@pytest.mark.parametrize(("mistake", "code"), [("none", 0), ("epsilon", 1)])
def test_a_traced_run_is_attested_and_judged_again_elsewhere(
    mistake: str, code: int, traced: Callable[[str], Path], goldens: Path, tmp_path: Path
) -> None:
    out = tmp_path / "attested.json"
    where = ["--goldens", str(goldens)]
    assert run(["attest", str(traced(mistake)), "--output", str(out), *where]) == code
    assert run(["check", "small", "--attestation", str(out), *where]) == code
    found = json.loads(out.read_text())["run"]["recipe"]["trace"].get("findings", [])
    assert {finding["kind"] for finding in found} == ({"scalar"} if code else set())


def test_two_traced_runs_are_compared_in_every_format(
    traced: Callable[[str], Path], tmp_path: Path
) -> None:
    html, junit, told = (tmp_path / f"report.{kind}" for kind in ("html", "xml", "json"))
    formats = ["--html", str(html), "--junit", str(junit), "--json", str(told), "--quiet"]
    right, wrong = str(traced("none")), str(traced("epsilon"))
    assert run(["diff", right, right, *formats]) == 0
    assert run(["diff", right, wrong, *formats]) == 1
    report = load_report(told)
    assert (report.golden.kind, report.run.kind, report.ok) == ("run", "run", False)
    assert report.first_wrong is not None
    assert report.first_wrong.tap == "input_layernorm"
    cases = ET.parse(junit).getroot().iter("testcase")
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert failed
    page = html.read_text()
    assert "epsilon 1e-05" in page
    assert ("chained: its own outputs" in page, "isolated: golden input" in page) == (True, False)


def test_a_report_of_a_traced_run_says_structure_first(
    traced: Callable[[str], Path], golden: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert run(["diff", str(golden), str(traced("epsilon"))]) == 1
    told = " ".join(capfd.readouterr().out.split())
    assert 0 <= told.index(SAYS) < told.index("FAIL")
    assert run(["blame", str(golden), str(traced("epsilon"))]) == 1
    assert "proved: " in capfd.readouterr().out


def test_without_pytorch_the_run_says_that_no_op_was_judged_by_itself(
    traced: Callable[[str], Path],
    golden: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, out = traced("none").with_suffix(".calls"), tmp_path / "run.h5"
    with monkeypatch.context() as patch:
        patch.setattr("goldenctl.errors.importlib.util.find_spec", lambda _name: None)
        assert run(["trace", str(golden), str(out), "--calls", str(log)]) == 0
    said = "each op by itself was not judged: judging each op by its own inputs: the torch package"
    assert said in capfd.readouterr().err
    written = open_golden(out, kind="run").recipe["trace"]
    assert written["local_note"].startswith(said)
    assert run(["diff", str(golden), str(out)]) == 0
    assert said in " ".join(capfd.readouterr().out.split())


def test_a_traced_replay_is_what_the_replay_itself_wrote(golden: Path, tmp_path: Path) -> None:
    replayed, out = tmp_path / "replayed.h5", tmp_path / "traced.h5"
    program = [sys.executable, "-m", "goldenctl", "replay", str(golden), str(replayed)]
    assert run(["trace", str(golden), str(out), "--", *program, "--mode", "chain"]) == 0
    mine, seen = open_golden(replayed, kind="run"), open_golden(out, kind="run")
    outputs = [info.name for info in seen.tensors.values() if info.role in ("tap", "output")]
    assert len(outputs) == seen.recipe["trace"]["coverage"]["expected"]
    for name in outputs:
        np.testing.assert_array_equal(seen.map(name), mine.map(name), err_msg=name)
    assert run(["diff", str(replayed), str(out)]) == 0
