"""Tests of what machines read: each format of every kind of report, under a strict reader."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import junitparser
import pytest
import xmlschema
from msgspec.structs import replace
from reports import (
    EVERY,
    HOSTILE,
    STORED,
    bad,
    good,
    hostile,
    provenance,
    report,
    selftested,
    sublayer,
    tensor,
    unscored,
)

from goldenctl.commands.reporting import Outputs, write_outputs
from goldenctl.errors import UsageError
from goldenctl.records.report import Report
from goldenctl.report import csv as csv_report
from goldenctl.report import html, junit, markdown
from goldenctl.report.json import load_report, to_json

DOCS = Path(__file__).parents[2] / "docs"
XSD = xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))
SCHEMA = json.loads((DOCS / "report.schema.json").read_text(encoding="utf-8"))
FORMATS = ("json", "junit", "markdown", "csv")


def every() -> list[Any]:
    made = [pytest.param(make(), id=name) for name, make in EVERY.items()]
    stored = [pytest.param(load_report(p), id=p.stem) for p in sorted(STORED.glob("*.json"))]
    return made + stored


@pytest.mark.parametrize("stored", sorted(STORED.glob("*.json")), ids=lambda path: path.stem)
def test_each_format_is_rendered_from_the_same_stored_report(stored: Path, tmp_path: Path) -> None:
    outputs = Outputs(**{name: tmp_path / f"r.{name}" for name in FORMATS})
    made = load_report(stored)
    write_outputs([made], outputs)
    assert repr(load_report(tmp_path / "r.json")) == repr(made)
    for name in FORMATS:
        assert "layers" in (tmp_path / f"r.{name}").read_text(encoding="utf-8")


def test_a_report_from_before_findings_and_pictures_still_loads() -> None:
    old = load_report(STORED / "before-findings.json")
    assert (old.findings, old.pictures, old.command, old.ok) == (None, (), "diff", False)


@pytest.mark.parametrize("made", every())
def test_json_fits_its_schema(made: Report) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(to_json(made), SCHEMA)


def test_the_schema_refuses_what_the_program_does() -> None:
    for change in ({"ok": "yes"}, {"unheard_of": 1}, {"sublayers": [{}]}, {"report_version": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(to_json(good()) | change, SCHEMA)


@pytest.mark.parametrize("made", every())
def test_junit_is_valid_under_strict_readers(made: Report) -> None:
    text = junit.render(made)
    XSD.validate(io.StringIO(text))
    parsed = junitparser.JUnitXml.fromstring(text.encode())
    cases = [case for suite in parsed for case in suite]
    assert parsed.tests == len(cases) > 0
    troubles = sum(bool({"Failure", "Error"} & {type(r).__name__ for r in c.result}) for c in cases)
    assert parsed.failures + parsed.errors == troubles
    assert (troubles == 0) == made.ok


def test_junit_has_one_case_for_each_tensor() -> None:
    parsed = junitparser.JUnitXml.fromstring(junit.render(bad()).encode())
    found = [(c.classname, c.name, [type(r).__name__ for r in c.result]) for s in parsed for c in s]
    assert found == [
        ("embedding", "output", []),
        ("layers.00.attention", "q_proj", ["Failure"]),
        ("layers.00.attention", "output", ["Failure"]),
        ("layers.00.mlp", "output", ["Error"]),
        ("lm_head", "output", ["Error"]),
        ("lm_head", "surplus", ["Error"]),
    ]


def test_junit_escapes_what_turns_text_and_counts_a_crash_once() -> None:
    turned = "safe\u202egnp.exe\u200f"
    text = junit.render(report(sublayer("mlp", tensor("mlp", turned, 9.0, worst=turned))))
    assert turned not in text
    assert "\\u202e" in text
    gone = [unscored("mlp", tap, "crashed", "signal at up") for tap in ("gate", "up", "output")]
    made = report(sublayer("mlp", *gone, state="crashed", first_wrong="up"))
    parsed = junitparser.JUnitXml.fromstring(junit.render(made).encode())
    assert (parsed.tests, parsed.errors, parsed.skipped) == (3, 1, 2)


def test_junit_gives_the_reason_and_the_debuggers_command() -> None:
    text = junit.render(bad())
    assert "signal at gate_proj: SIGSEGV" in text
    assert "command: h P --only 0" in text
    assert "rel_l2: 0.02, limit 0.01" in text


def rows(made: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_report.render(made))))


def test_csv_has_a_row_for_each_tensor_and_all_scores() -> None:
    found = rows(bad())
    assert [row["name"].rpartition("/")[2] for row in found] == [
        "output", "q_proj", "output", "output", "output", "surplus",
    ]  # fmt: skip
    first = found[1]
    metrics = bad().tensors[1].metrics
    assert metrics is not None
    assert float(first["rel_l2"]) == metrics.rel_l2
    assert (first["state"], first["ok"], first["shape"]) == ("failed", "false", "1 4 8")
    assert first.keys() >= set(metrics.__struct_fields__) | {"logits_mean_kl"}


def test_csv_of_a_selftest_has_a_row_for_each_trial() -> None:
    found = rows(selftested(caught=False))
    assert len(found) == 200
    assert (found[-1]["caught"], found[-1]["effect"], found[0]["visible"]) == (
        "false", "199.0", "false",
    )  # fmt: skip


@pytest.mark.parametrize("start", "=+-@")
def test_csv_holds_no_formula(start: str) -> None:
    name = f"{start}cmd|calc"
    found = rows(report(sublayer("mlp", tensor("mlp", name, worst=name))))
    assert found[0]["tap"] == f"'{name}"
    assert found[0]["worst"] == f"'{name}"


def test_csv_leaves_no_control_character() -> None:
    assert all(c.isprintable() for c in csv_report.render(hostile()).replace("\r\n", ""))


def test_markdown_answers_in_order() -> None:
    lines = markdown.render(load_report(STORED / "blamed.json")).splitlines()
    assert lines[0] == "### ❌ FAIL: goldenctl blame"
    told = [line for line in lines if line.startswith("- ")]
    assert told[0] == "- 1 of 19 tensors is wrong; 1 op is wrong by itself"
    assert told[1].startswith("- **Where first:** layers.02.attention.q&#95;rope (op rope)")
    assert told[2] == "- **What kind of bug:** interleaved RoPE"
    assert told[3].startswith("- **How sure:** reproduced")
    assert markdown.render(good()).startswith("### ✅ PASS: goldenctl diff")


def test_markdown_holds_no_markup_of_a_file() -> None:
    text = markdown.render(hostile())
    assert "<img" not in text
    assert "</script" not in text
    assert all(char.isprintable() for char in text.replace("\n", ""))
    table = [line for line in text.splitlines() if line.startswith("| <code>")]
    assert {line.count("|") for line in table} == {3, 7}


@pytest.mark.parametrize("limit", [0, 10, 500, 2000, 5000])
def test_markdown_is_capped_at_whole_lines(limit: int) -> None:
    many = report(*(sublayer(f"layers/{i:02d}/mlp", tensor("x", "y", 9.0)) for i in range(99)))
    text = markdown.render(many, limit_bytes=limit)
    assert len(text.encode()) <= limit
    if text:
        assert text.endswith("*The rest did not fit.*\n")
        assert text.count("<details>") == text.count("</details>")


def test_the_step_summary_is_found_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    for _ in range(2):
        markdown.append_summary([good()], {"GITHUB_STEP_SUMMARY": str(path)})
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before\n### ✅ PASS")
    assert text.count("### ✅ PASS") == 2


def test_the_step_summary_stays_below_githubs_limit(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    for filled in (markdown.LIMIT_BYTES, markdown.LIMIT_BYTES - 900, markdown.LIMIT_BYTES + 5):
        path.write_bytes(b"x" * filled)
        markdown.append_summary([bad()], {"GITHUB_STEP_SUMMARY": str(path)})
        assert path.stat().st_size <= max(markdown.LIMIT_BYTES, filled)


def test_no_step_summary_outside_github(tmp_path: Path) -> None:
    markdown.append_summary([good()], {})
    markdown.append_summary([good()], {"GITHUB_STEP_SUMMARY": ""})
    with pytest.raises(UsageError, match="cannot be written"):
        markdown.append_summary([good()], {"GITHUB_STEP_SUMMARY": str(tmp_path / "none" / "x")})


@pytest.mark.parametrize("name", FORMATS)
def test_a_failing_render_leaves_the_old_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    path.write_text("old")

    def fails(_report: Report) -> str:
        raise RuntimeError

    monkeypatch.setattr(f"goldenctl.report.{name}.render", fails)
    with pytest.raises(RuntimeError):
        write_outputs([good()], Outputs(**{name: path}))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_hostile_names_are_hostile() -> None:
    """The tests above rest on it."""
    assert {"<", "\x1b", "\x00", "\n", "|", "`"} <= set(HOSTILE)


def test_markdown_and_the_page_say_what_each_case_is_there_to_show() -> None:
    cases = [{"name": "one", "why": "a single token"}, {"name": "two"}]
    made = replace(good(), golden=provenance("golden", cases=cases))
    assert "| <code>one</code> | a single token |" in markdown.render(made)
    assert "<dt>one</dt><dd>a single token</dd>" in html.render(made)
    for plain in (markdown.render(good()), html.render(good())):
        assert "there to show" not in plain
