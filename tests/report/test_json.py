"""Tests of the JSON report: nothing lost, documented in full, damage refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from reports import bad, checked, good, report, save_report, selftested, sublayer, tensor

from goldenctl.cli import run
from goldenctl.errors import DamagedError, GoldenctlError, UsageError
from goldenctl.records.checks import CheckStep
from goldenctl.records.determinism import Determinism, Finding
from goldenctl.records.findings import Cause, Culprit, Depth, Findings, Graft
from goldenctl.records.metrics import LogitMetrics, Metrics
from goldenctl.records.pictures import Extreme, Histogram, Picture, Strip
from goldenctl.records.policy import Check
from goldenctl.records.report import Provenance, Report, StepTime, SublayerResult, TensorResult
from goldenctl.records.trials import Selftest, Trial, Verdict
from goldenctl.report.json import load_report, to_json

SCHEMA = (Path(__file__).parents[2] / "docs/report-schema.md").read_text(encoding="utf-8")
STRUCTS = (
    Report, SublayerResult, TensorResult, Provenance, Metrics, LogitMetrics, Check,
    Picture, Strip, Histogram, Extreme, Findings, Culprit, Cause, Depth, Graft, Selftest,
    Trial, Verdict, CheckStep, StepTime, Determinism, Finding,
)  # fmt: skip
LEGACY = {
    "model_path", "test_input", "overall_success", "total_layers_tested", "layers_passed",
    "layers_failed", "layer_results",
}  # fmt: skip
LEGACY_LAYER = {
    "layer_index", "layer_name", "input_shape", "output_shape", "mse", "max_abs_error",
    "mean_abs_error", "cosine_similarity", "relative_error", "pass_threshold", "error_message",
}  # fmt: skip


@pytest.mark.parametrize("made", [good(), bad(), report()], ids=["good", "bad", "empty"])
def test_a_report_survives_the_file(tmp_path: Path, made: Report) -> None:
    save_report(made, tmp_path / "r.json")
    # As text, so that a NaN equals itself.
    assert repr(load_report(tmp_path / "r.json")) == repr(made)


@pytest.mark.parametrize(
    ("made", "hint"),
    [
        (checked(), "run goldenctl check --tolerance classic"),
        (selftested(), "goldenctl report {file} shows it as it is"),
    ],
    ids=["check", "selftest"],
)
def test_a_verdict_of_more_than_tensors_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: Report, hint: str
) -> None:
    file, again = tmp_path / "r.json", tmp_path / "again.json"
    save_report(made, file)
    assert run(["diff", str(file), "--tolerance", "classic", "--json", str(again)]) == 2
    said, hint = f"a report of {made.command} cannot be judged again", hint.format(file=file)
    assert capsys.readouterr().err == f"goldenctl: {file}: {said}; {hint}\n"
    assert not again.exists()
    assert run(["diff", str(file), "--json", str(again)]) == made.exit_code
    assert again.read_text() == file.read_text()


def test_it_is_plain_json_without_nan(tmp_path: Path) -> None:
    save_report(bad(), tmp_path / "r.json")

    def refuse(text: str) -> None:
        raise AssertionError(text)

    data = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    assert data["sublayers"][1]["tensors"][1]["share"] == "NaN"
    assert data["sublayers"][2]["share"] == "Inf"


def test_the_verdict_stands_beside_the_data() -> None:
    data = to_json(bad())
    assert (data["report_version"], data["ok"]) == (2, False)
    assert data["first_wrong"] == "cases/default/steps/00/layers/00/attention/q_proj"
    assert to_json(good())["first_wrong"] is None


def test_the_fields_of_older_reports() -> None:
    data = to_json(bad())
    assert data.keys() >= LEGACY
    assert {k: data[k] for k in LEGACY - {"layer_results"}} == {
        "model_path": "tiny",
        "test_input": "Hello",
        "overall_success": False,
        "total_layers_tested": 4,
        "layers_passed": 1,
        "layers_failed": 3,
    }
    assert all(layer.keys() == LEGACY_LAYER for layer in data["layer_results"])
    assert [layer["pass_threshold"] for layer in data["layer_results"]] == [
        True,
        False,
        False,
        False,
    ]
    assert [layer["error_message"] for layer in data["layer_results"]] == [
        None,
        "q_proj is beyond tolerance",
        "signal at gate_proj: SIGSEGV",
        "not in the run",
    ]
    first = data["layer_results"][0]
    assert (first["output_shape"], first["cosine_similarity"], first["mse"]) == ([1, 4, 8], 1.0, 0)


def test_every_field_is_documented() -> None:
    """docs/report-schema.md names each field of each struct, and of the older reports."""
    words = set(re.findall(r"[a-z_0-9]+", SCHEMA))
    fields = LEGACY | LEGACY_LAYER | set(to_json(good()))
    for struct in STRUCTS:
        fields |= set(struct.__struct_fields__)
    assert sorted(fields - words) == []


@pytest.mark.parametrize(
    "struct", [Metrics, LogitMetrics, Check, TensorResult, Culprit, Cause, Depth, Trial, Strip]
)
def test_nothing_is_documented_that_is_not_there(struct: type[msgspec.Struct]) -> None:
    """The lists of fields in the documentation, in the order of the struct."""
    wanted = ", ".join(struct.__struct_fields__)
    assert wanted in re.sub(r"\s+", " ", SCHEMA).replace("[]", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a report"),
        ("[]", "is not a report that --json wrote"),
        ("{}", "is not a report that --json wrote"),
        ('{"report_version": 3}', "report version is 3, expected 2"),
        ('{"report_version": 1}', "not a report: .*golden"),
        ("[" * 100_000, "not a report"),
        ("\udcff", "not a report"),
    ],
)
def test_what_is_not_a_report_is_refused_in_one_line(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DamagedError, match=message) as caught:
        load_report(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def changed(path: list[Any], value: object) -> dict[str, Any]:
    data = to_json(good())
    target: Any = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return data


METRICS = ["sublayers", 0, "tensors", 0, "metrics"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["policy"], 7),
        (["sublayers"], None),
        (["sublayers", 0, "tensors", 0, "shape"], "x"),
        ([*METRICS, "rel_l2"], "0.5"),
        ([*METRICS, "max_ulp"], 0.5),
        ([*METRICS, "unheard_of"], 1),
    ],
)
def test_a_wrong_field_is_refused(tmp_path: Path, path: list[Any], value: object) -> None:
    (tmp_path / "r.json").write_text(json.dumps(changed(path, value)))
    with pytest.raises(DamagedError, match="not a report"):
        load_report(tmp_path / "r.json")


def test_a_missing_file_and_a_bad_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        load_report(tmp_path / "none.json")
    with pytest.raises(UsageError, match="cannot be written"):
        save_report(good(), tmp_path / "none" / "r.json")


def test_a_failed_write_leaves_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    save_report(good(), path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(GoldenctlError, match="No space left on device"):
        save_report(bad(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_reads_like_a_number_stays_a_name(tmp_path: Path) -> None:
    made = report(sublayer("mlp", tensor("mlp", "output", worst="Inf", message="NaN")))
    save_report(made, tmp_path / "r.json")
    assert load_report(tmp_path / "r.json") == made


def test_unknown_fields_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(changed(["unheard_of"], 1)))
    with pytest.raises(DamagedError, match="not a report"):
        load_report(tmp_path / "r.json")
