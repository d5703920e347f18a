"""Tests of the figures as files: the same as the page's, standing alone, SVG and PNG."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace
from reports import EVERY, STORED, blamed, report, save_report

from goldenctl.cli import run
from goldenctl.commands.plot import KINDS
from goldenctl.records.report import Report
from goldenctl.report import html, plot
from goldenctl.report.json import load_report

STORED_BLAME = STORED / "blamed.json"
PNG = b"\x89PNG\r\n\x1a\n"


def figures(made: Report) -> list[plot.Drawn]:
    return list(plot.drawn(made))


def test_every_kind_is_drawn() -> None:
    assert {each.figure.name for each in figures(load_report(STORED_BLAME))} == set(KINDS)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dark", [False, True])
def test_a_figure_stands_alone(name: str, dark: bool) -> None:
    for each in figures(EVERY[name]()):
        text = plot.svg(each.figure, dark=dark)
        root = ET.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in text
        assert "href" not in text
        classes = set(re.findall(r'class="([^"]+)"', each.figure.body))
        style = text[text.index("<style>") : text.index("</style>")]
        for word in {word for joined in classes for word in joined.split()}:
            assert f".{word}" in style, word
        numbers = re.findall(r'(?:x|y|width|height|d)="([^"]*)"', text)
        assert not [value for value in numbers if "nan" in value or "inf" in value]
        assert root.get("aria-label")


def test_an_error_that_is_not_known_is_drawn_as_none() -> None:
    made = blamed()
    assert made.findings is not None
    lost = tuple(replace(d, local=float("nan")) for d in made.findings.depths)
    made = replace(made, findings=replace(made.findings, depths=lost))
    text = next(plot.svg(each.figure) for each in figures(made) if each.figure.name == "depth")
    assert "nan" not in text
    assert ">none<" in text


def test_they_are_the_pages_own() -> None:
    made = blamed()
    page = html.render(made)
    for each in figures(made):
        if each.figure.name != "map":  # the page's map has links
            assert each.figure.body in page


def test_files_never_carry_a_tensors_name(tmp_path: Path) -> None:
    save_report(EVERY["hostile"](), tmp_path / "r.json")
    assert run(["plot", str(tmp_path / "r.json"), "--output", str(tmp_path / "out")]) == 0
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert names
    assert all(re.fullmatch(r"[a-z0-9-]+\.svg", name) for name in names)


def test_a_folder_of_both_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "figures"
    line = ["plot", str(STORED_BLAME), "--output", str(out), "--format", "both"]
    assert run([*line, "--figure", "depth", "--figure", "scatter"]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert {"depth.svg", "depth.png", "worst-1-scatter.svg", "worst-1-scatter.png"} <= set(names)
    assert all(path.read_bytes().startswith(PNG) for path in out.glob("*.png"))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"wrote {out}/depth.svg and depth.png: Error along depth"
    assert any("layers.02.attention.q_rope" in line for line in said)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_one_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"f.{ending}"
    line = ["plot", str(STORED_BLAME), "--output", str(path)]
    assert run([*line, "--figure", "strips", "--zoom", "1"]) == 0
    light = path.read_bytes()
    assert run([*line, "--figure", "strips", "--zoom", "1", "--theme", "dark"]) == 0
    assert path.read_bytes() != light
    assert light.startswith(PNG if ending == "png" else b"<?xml")


def wrong(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    capsys.readouterr()
    code = run(["plot", *map(str, arguments)])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return code, error


def test_wrong_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_report(EVERY["selftest"](), tmp_path / "self.json")
    save_report(report(), tmp_path / "empty.json")
    (tmp_path / "file").write_text("")
    out = ("--output", tmp_path / "out")
    for arguments, message in (
        ((tmp_path / "self.json", *out), "has no figure to draw"),
        ((tmp_path / "empty.json", *out), "has no figure to draw"),
        ((tmp_path / "none.json", *out), "there is no such file"),
        ((tmp_path / "g.h5", *out), "plot needs a golden and a run, or one report"),
        ((STORED_BLAME, "--output", tmp_path / "file"), "is a file, expected a folder"),
        ((STORED_BLAME, "--output", tmp_path / "no" / "f.svg"), "does not exist"),
    ):
        code, error = wrong(capsys, *arguments)
        assert (code, message in error) == (2, True), error
    assert not (tmp_path / "out").exists()


def test_png_without_its_library_or_fonts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = (STORED_BLAME, "--output", tmp_path / "f.png")
    monkeypatch.setattr(plot, "_FONT_FOLDERS", (str(tmp_path),))
    assert wrong(capsys, *line) == (
        3,
        "goldenctl: PNG: this machine has no fonts, so labels would be missing; run: apt-get "
        "install fonts-dejavu-core, or write SVG\n",
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    code, error = wrong(capsys, *line)
    assert code == 3
    assert "pip install 'goldenctl[plot]'" in error
    assert not (tmp_path / "f.png").exists()
