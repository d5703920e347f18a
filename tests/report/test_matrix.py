"""Tests of reports of several runs side by side, in each format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jsonschema
import junitparser
import pytest
import xmlschema
from msgspec.structs import replace
from pages import Page
from reports import HOSTILE, bad, good, matrix, provenance
from rich.console import Console

from goldenctl.commands.reporting import Outputs, write_outputs
from goldenctl.errors import DamagedError, UsageError, printable
from goldenctl.records.report import Report
from goldenctl.report import csv as csv_report
from goldenctl.report import html, junit, markdown
from goldenctl.report.commands import compare_all
from goldenctl.report.json import load_report, load_reports, render_matrix
from goldenctl.report.render_console import show
from goldenctl.report.sections.matrix import side_by_side, verdict

XSD = xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))
SCHEMA = Path(__file__).parents[2] / "docs/report.schema.json"
LABELS = ["cpu", "npu", "part", Path(HOSTILE).stem]


def lines(reports: list[Report]) -> list[str]:
    """The lines on the runs, as they are printed."""
    file = io.StringIO()
    show(side_by_side(reports)[:1], Console(file=file, width=4000, highlight=False))
    return file.getvalue().splitlines()


def test_a_line_for_each_run_with_its_banners() -> None:
    first, second, *banners, third, fourth, fault = lines(matrix())
    assert first.startswith("✓ cpu: 4 tensors, at most ")
    assert second.startswith("✗ npu: ")
    assert "first layers.00.attention.q_proj" in second
    assert [banner.strip() for banner in banners] == [
        "SIMULATED: no engine computed these outputs", "INJECTED FAULTS: rope_interleaved",
    ]  # fmt: skip
    assert third.startswith("✓ part: ")
    assert fourth.startswith(f"✗ {printable(LABELS[3])}: ")
    assert fault.strip() == f"INJECTED FAULTS: {printable(HOSTILE)}"
    assert verdict(matrix()) == "2 of 4 runs within tolerance"


def test_a_line_says_what_its_run_does_not_have() -> None:
    made = [good(), replace(good(), left_out=2, run=replace(good().run, path="part.h5"))]
    said = lines(made)
    assert said[1].endswith("by default, without 2 sublayers of the golden)")
    assert "without" not in said[0]


def test_commands_of_several_runs_keep_the_tolerance() -> None:
    made = [replace(each, policy="tight.toml") for each in matrix()[:2]]
    assert [command.text for command in compare_all(made)] == [
        "goldenctl diff golden.h5 cpu.h5 npu.h5 --tolerance tight.toml",
        "goldenctl diff golden.h5 npu.h5 --tolerance tight.toml",
    ]


def test_a_row_for_each_sublayer_of_any_run() -> None:
    text = markdown.render_matrix(matrix()[:3])
    rows = {line.split(" | ")[1]: line.split(" | ") for line in text.splitlines() if " | " in line}
    used = [cell.split()[0] for cell in rows["<code>embedding</code>"][2::2]]
    assert used == ["✅", "✅", "✅"]
    attention = rows["<code>layers.00.attention</code> (q&#95;proj)"]
    assert attention[0] == "| ❌"
    assert attention[2:7:2] == ["✅ 90%", "❌ 200%", "not run"]


def test_every_format_is_rendered_again_from_the_stored_reports(tmp_path: Path) -> None:
    formats = ("json", "html", "junit", "markdown", "csv")
    for turn in ("first", "second"):
        made = matrix() if turn == "first" else load_reports(tmp_path / "first.json")
        write_outputs(made, Outputs(**{name: tmp_path / f"{turn}.{name}" for name in formats}))
    for name in formats:
        texts = [(tmp_path / f"{turn}.{name}").read_bytes() for turn in ("first", "second")]
        assert texts[0] == texts[1], name


def test_json_holds_each_report_as_alone() -> None:
    data = json.loads(render_matrix(matrix()))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert [(each.pop("label"), each["ok"]) for each in data["reports"]] == list(
        zip(LABELS, (True, False, True, False), strict=True)
    )
    assert data["ok"] is False
    for each in data["reports"]:
        jsonschema.validate(each, schema)


@pytest.mark.parametrize(
    "text",
    ['{"report_version": 1, "reports": []}', '{"reports": [1]}', '{"reports": [{"ok": true}]}'],
)
def test_a_document_without_right_reports_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(DamagedError, match=r"r\.json: is not a report that --json wrote"):
        load_reports(path)


def test_what_wants_one_report_says_how_many_there_are(tmp_path: Path) -> None:
    write_outputs(matrix(), Outputs(json=tmp_path / "r.json"))
    with pytest.raises(UsageError, match="holds the reports of 4 runs, expected one"):
        load_report(tmp_path / "r.json")


def test_junit_names_the_run_of_each_suite() -> None:
    text = junit.render_matrix(matrix())
    XSD.validate(io.StringIO(text))
    suites = list(junitparser.JUnitXml.fromstring(text.encode()))
    names = [suite.name for suite in suites]
    cases = [(case.classname, case.name) for suite in suites for case in suite]
    assert len(set(cases)) == len(cases)
    assert names[0] == "cpu: embedding"
    assert "npu: layers.00.attention" in names


def test_csv_has_the_run_in_front() -> None:
    made = matrix()[:3]
    found = list(csv.DictReader(io.StringIO(csv_report.render_matrix(made))))
    counts = zip(LABELS, (len(report.tensors) for report in made), strict=False)
    assert [row["run"] for row in found] == [label for label, n in counts for _ in range(n)]
    alone = list(csv.DictReader(io.StringIO(csv_report.render(made[1]))))
    npu = [row for row in found if row.pop("run") == "npu"]
    assert npu == alone


@pytest.mark.parametrize("limit", [1 << 20, 2000, 300])
def test_markdown_says_it_in_a_line_each_and_keeps_its_limit(limit: int) -> None:
    text = markdown.render_matrix(matrix(), limit_bytes=limit)
    assert text.startswith("### ❌ FAIL: goldenctl diff, 2 of 4 runs within tolerance\n")
    assert "- ✅ **cpu**&#58; 4 tensors" in text
    assert len(text.encode()) <= limit
    assert text.count("<details>") == text.count("</details>")
    assert "<img" not in text


def test_a_step_summary_takes_several(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    markdown.append_summary(matrix(), {"GITHUB_STEP_SUMMARY": str(path)})
    assert path.read_text(encoding="utf-8").startswith("### ❌ FAIL: goldenctl diff, 2 of 4 runs")


def test_the_page_is_whole_and_escapes_what_files_say() -> None:
    text = html.render_matrix(matrix())
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(
        a["href"] == "data:," or a["href"][1:] in ids for _, a in page.elements if "href" in a
    )
    assert page.of("img") == []
    assert len(page.of("script")) == 1
    said = "".join(page.texts)
    for words in ("2 of 4 runs within tolerance", "not run", printable(HOSTILE), "Run npu"):
        assert words in said
    assert "goldenctl diff golden.h5 npu.h5" in said


def test_runs_that_nothing_tells_apart_go_by_their_paths() -> None:
    path = provenance("run").path
    assert [line for line in lines([good(), bad()]) if f" {path}: " in line] == [
        line for line in lines([good(), bad()]) if line.startswith(("✓", "✗"))
    ]
