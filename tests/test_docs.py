"""The documentation against the program."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from goldenctl.cli import cli
from goldenctl.replay.backend import DEVICES

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize(
    ("script", "page"), [("commands.py", "commands.md"), ("schema.py", "report.schema.json")]
)
def test_generated_pages_are_up_to_date(script: str, page: str) -> None:
    """In a process of its own: click keeps what other tests made a command's help of."""
    code = f"import sys, {Path(script).stem} as page; sys.stdout.write(page.render())"
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code],
        cwd=ROOT / "docs",
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == done.stdout, f"run: python docs/{script}"


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
    known |= {"--args", "--build"}  # of gdb, of cmake
    known |= {"--constraint", "--no-index", "--find-links"}  # of pip
    known |= {"--local-dir"}  # of the Hugging Face Hub's hf
    known |= {"--tokens", "--chunk", "--mistake"}  # of the example engine
    known |= {"--golden-update", "--detach-sign", "--all-files"}  # of pytest, gpg, pre-commit
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
    assert shown <= known


def test_modules_of_the_architecture_page_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+(?:[./][a-z_]+)*/?)`", text)
    paths = [ROOT / "goldenctl" / name for name in named if "/" in name and "." in name]
    modules = [name for name in named if re.fullmatch(r"[a-z_]+\.[a-z_]+", name)]
    paths += [
        ROOT / "goldenctl" / f"{name.replace('.', '/')}.py"
        for name in modules
        if (ROOT / "goldenctl" / name.partition(".")[0]).is_dir()
    ]
    packages = {folder.parent.name for folder in (ROOT / "goldenctl").glob("*/__init__.py")}
    assert packages <= set(named), packages - set(named)
    assert len(paths) >= 20
    for path in paths:
        assert path.exists(), path


def test_devices_of_the_readme_are_known() -> None:
    assert set(DEVICES) >= {"cpu", "nvidia", "ascend", "cambricon", "metax", "moore"}


def yaml_blocks(page: str) -> list[Any]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def commands_in(value: Any) -> Iterator[list[str]]:
    """Every goldenctl command line in ``run`` and ``entry`` of a YAML file."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("run", "entry"):
                lines = [shlex.split(line) for line in item.splitlines()]
                yield from (line for line in lines if line[:1] == ["goldenctl"])
            else:
                yield from commands_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from commands_in(item)


def test_yaml_of_the_ci_page_runs_commands_that_exist() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    blocks = yaml_blocks("ci.md")
    lines = list(commands_in([hooks, *blocks]))
    assert len(lines) >= 7
    for line in lines:
        command: click.Command = cli
        words = line[1:]
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        context = click.Context(command, **cli.context_settings)  # a command keeps its help option
        command.make_parser(context).parse_args(args=words)


def test_workflows_have_what_github_asks_for() -> None:
    workflows = [block for block in yaml_blocks("ci.md") if "jobs" in block]
    assert len(workflows) == 2
    for workflow in workflows:
        assert {"name", True} <= workflow.keys()  # YAML 1.1 reads "on" as true
        for job in workflow["jobs"].values():
            assert "runs-on" in job
            assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_the_hook_takes_changed_manifests() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    ids = [
        h["id"]
        for block in yaml_blocks("ci.md")
        for r in block.get("repos", [])
        for h in r["hooks"]
    ]
    assert ids == [hook["id"]]
    assert re.search(hook["files"], "goldens/tiny/manifest.json")
    assert not re.search(hook["files"], "web/manifest.json")


def test_the_chinese_readme_says_what_the_english_one_does() -> None:
    english, chinese = (parts_of(ROOT / name) for name in ("README.md", "README.zh-CN.md"))
    for part, said in english.items():
        assert chinese[part] == said, part


def parts_of(readme: Path) -> dict[str, object]:
    """What is the same in every language: headings, commands, first cells of tables, links."""
    text = readme.read_text(encoding="utf-8")
    fenced = [
        line for block in re.findall(r"```\n(.*?)```", text, re.S) for line in block.splitlines()
    ]
    quoted = re.compile(r'"[^"]*"| +#.*')
    cells = re.findall(r"^\| (`[^|]+`) \|", text, re.M)
    return {
        "headings": [line.split()[0] for line in text.splitlines() if re.match("#+ ", line)],
        "commands": [quoted.sub("", line).rstrip() for line in fenced],
        "cells": [re.findall(r"`([^`]+)`", cell) for cell in cells],
        "links": {link for link in re.findall(r"\]\(([^)]+)\)", text) if "README" not in link},
    }
