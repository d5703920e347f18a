"""The documentation against the program."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import click
import pytest

from goldenctl.cli import cli
from goldenctl.replay.backend import DEVICES

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_command_reference_is_up_to_date() -> None:
    path = ROOT / "docs" / "commands.py"
    spec = importlib.util.spec_from_file_location("docs_commands", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written == module.render(), "run: python docs/commands.py"


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_readme_mentions_every_command(name: str) -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    assert any(f"`{name}" in row for row in rows)


def options(command: click.Command, name: str) -> list[tuple[str, click.Parameter]]:
    found = [(name, parameter) for parameter in command.params]
    for child in getattr(command, "commands", {}).values():
        found += options(child, f"{name} {child.name}")
    return found


def test_every_command_and_option_has_help() -> None:
    for name, parameter in options(cli, "goldenctl"):
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]}"
    for command in cli.commands.values():
        assert command.help


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_prose_exist(page: Path) -> None:
    """Every --option that a page shows is one of goldenctl's or of the plan protocol's."""
    ours = {
        word
        for _, parameter in options(cli, "")
        for word in (*parameter.opts, *parameter.secondary_opts)
    }
    known = ours | {"--help", "--version", "--skip", "--only", "--devices", "--poison"}
    known |= {"--atol", "--rtol"}  # of InfiniCore's infiniop-test
    known |= {"--args"}  # of gdb
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
    assert shown <= known


def test_devices_of_the_readme_are_known() -> None:
    assert set(DEVICES) >= {"cpu", "nvidia", "ascend", "cambricon", "metax", "moore"}
