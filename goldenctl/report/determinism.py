"""Owns what passes in other orders showed, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from goldenctl.errors import printable
from goldenctl.golden.schema import short_name


def print_determinism(
    determinism: Mapping[str, Any], *, many_cases: bool, console: Console | None = None
) -> bool:
    """Print what a run's recipe says of determinism; False when something depends on more
    than its inputs."""
    console = console or Console(highlight=False)
    passes = determinism["passes"]
    made = ", ".join(f"{count} {kind}" for kind, count in passes.items())
    found = determinism["findings"]
    if not found:
        console.print(
            f"[bold green]✓ deterministic[/]: the same bits in {sum(passes.values())} "
            f"passes ({made})"
        )
    for finding in found:
        path = str(finding["sublayer"])
        case = f"{path.split('/')[1]}: " if many_cases else ""
        where = escape(printable(f"{case}{short_name(path)}.{finding['tap']}"))
        console.print(f"[bold red]✗ {', '.join(finding['classes'])}[/]: [bold]{where}[/]")
        if finding["note"]:
            console.print(f"    {escape(printable(finding['note']))}")
    if found:
        console.print(f"in {sum(passes.values())} passes: {made}")
    if not determinism["poisons"]:
        console.print("the backend takes no --poison, so uninitialised reads were not looked for")
    return not found
