"""The findings of passes in other orders, on the terminal."""

from __future__ import annotations

from rich.console import Console

from goldenctl.places import short_name
from goldenctl.records.determinism import Determinism
from goldenctl.report.console_parts import clean


def print_determinism(
    determinism: Determinism, *, many_cases: bool, console: Console | None = None
) -> bool:
    """Print what passes showed; False when something depends on more than its inputs."""
    console = console or Console(highlight=False)
    for line in lines(determinism, many_cases=many_cases):
        console.print(line)
    return not determinism.findings


def lines(determinism: Determinism, *, many_cases: bool) -> list[str]:
    """Return what passes showed as lines of rich markup."""
    count = sum(determinism.passes.values())
    made = ", ".join(f"{number} {clean(kind)}" for kind, number in determinism.passes.items())
    said = []
    if not determinism.findings:
        said.append(f"[bold green]✓ deterministic[/]: the same bits in {count} passes ({made})")
    for finding in determinism.findings:
        group = f"{'/'.join(finding.sublayer.split('/')[1:4:2])}: " if many_cases else ""
        where = clean(f"{group}{short_name(finding.sublayer)}.{finding.tap}")
        classes = clean(", ".join(finding.classes))
        said.append(f"[bold red]✗ {classes}[/]: [bold]{where}[/]")
        said += [f"    {clean(finding.note)}"] if finding.note else []
    if determinism.findings:
        said.append(f"in {count} passes: {made}")
    if not determinism.poisons:
        said.append(
            "the backend does not take --poison, so uninitialised reads were not looked for"
        )
    return said
