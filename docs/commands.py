"""Writes docs/commands.md from the commands' own help: ``python docs/commands.py``."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.cli import cli

TARGET = Path(__file__).with_suffix(".md")


def render() -> str:
    """Return the page: the help of every command, in the order of their names."""
    parts = ["# Commands\n\nWritten by `python docs/commands.py` from `--help`.\n"]
    parts += [f"\n## {name}\n\n```\n{text}```\n" for name, text in _helps(cli, "goldenctl")]
    return "".join(parts)


def _helps(command: click.Command, name: str) -> list[tuple[str, str]]:
    settings = {**cli.context_settings, "max_content_width": 80, "terminal_width": 80}
    context = click.Context(command, info_name=name, **settings)
    found = [(name, command.get_help(context) + "\n")]
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            found += _helps(command.commands[child], f"{name} {child}")
    return found


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
