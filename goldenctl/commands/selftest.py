"""``goldenctl selftest``: prove on a golden that verdicts can be trusted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.options import GOLDEN, PATH, goldens_option, model_folder, parse_layers
from goldenctl.errors import require_torch

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from goldenctl.reference.selftest import Selftest, Trial

LAYERS = 4
LEAST_CAUGHT = 0.99
LEAST_LOCATED = 0.98
LEAST_NAMED = 0.95
_SHOWN = 10


@click.command("selftest")
@click.argument("golden", type=GOLDEN)
@click.option("--backend", default="infinicore", show_default=True, help="As for replay.")
@click.option("--model-path", type=PATH, help="The checkpoint, when it has moved.")
@click.option(
    "--layers", metavar="LIST", help="Decoder layers; four spread over depth if not given."
)
@click.option("--infini-root", type=PATH, help="InfiniCore's install folder.")
@click.option("-v", "--verbose", is_flag=True, help="List every fault by op.")
@goldens_option()
def selftest_command(
    golden: Path,
    backend: str,
    model_path: Path | None,
    layers: str | None,
    infini_root: Path | None,
    verbose: bool,
) -> int:
    """Inject every fault and every correct alternative; count what is caught and named.

    GOLDEN needs --oracle and --taps op. Ends with exit code 1 when a visible fault escapes,
    something correct is called wrong, or a bug gets a wrong name beyond the stated rates.
    """
    from rich.console import Console

    from goldenctl.golden.file import open_golden
    from goldenctl.replay.backend import open_backend

    source = open_golden(golden, kind="golden")
    count = source.recipe["model"]["config"]["num_hidden_layers"]
    require_torch("selftest")
    from goldenctl.reference.selftest import Tester, spread

    tester = Tester(
        source,
        model_folder(model_path or source.recipe["model"]["path"]),
        backend=open_backend(backend, infini_root=infini_root, notify=_notify),
        layers=parse_layers(layers, count) or (spread(count) if count > LAYERS else None),
        notify=_notify,
    )
    result = tester.run()
    print_selftest(result, Console(highlight=False), verbose=verbose)
    return 0 if _good(result) else 1


def _good(result: Selftest) -> bool:
    located = [right for *_, right in result.located]
    return (
        bool(result.visible)
        and bool(located)
        and result.rate(lambda t: t.caught) >= LEAST_CAUGHT
        and sum(located) / len(located) >= LEAST_LOCATED
        and result.rate(lambda t: t.named) >= LEAST_NAMED
        and not result.false_alarms
        and not result.wrong_names
    )


def print_selftest(result: Selftest, console: Console, *, verbose: bool = False) -> None:
    """Print the rates, what went wrong, the table by op, and the gates of the field."""
    visible = result.visible
    hidden = len(result.trials) - len(visible)
    located = [right for *_, right in result.located]
    mark = "[bold green]✓ PASS[/]" if _good(result) else "[bold red]✗ FAIL[/]"
    console.print(
        f"{mark}  {result.dtype}: {len(visible)} visible faults, {hidden} that this input"
    )
    console.print("  does not show (they move no row by 8 times its rounding; counted apart)\n")
    rows = (
        ("faults caught", sum(t.caught for t in visible), len(visible), LEAST_CAUGHT),
        ("culprit op right", sum(located), len(located), LEAST_LOCATED),
        ("bug named right", sum(t.named for t in visible), len(visible), LEAST_NAMED),
    )
    for label, good, total, least in rows:
        share = f"{good / total:.1%}" if total else "none"
        console.print(f"  {label:18} {good:5} of {total:5}  {share:>6}  (at least {least:.0%})")
    alarms, tried = len(result.false_alarms), sum(t.held_out is not None for t in visible)
    console.print(f"  {'false alarms':18} {alarms:5} of {len(result.correct):5}          (none)")
    console.print(f"  {'wrong names':18} {len(result.wrong_names):5} of {tried:5}          (none)")
    for line in _complaints(result):
        console.print(f"  [red]{line}[/]")
    console.print()
    console.print(_by_op(visible))
    console.print()
    console.print(_gates(result))
    if verbose:
        console.print()
        console.print(_by_fault(result.trials))


def _complaints(result: Selftest) -> list[str]:
    lines = [f"escaped: {t.fault} at {t.place}" for t in result.visible if not t.caught]
    lines += [
        f"not the culprit: {fault} at {place}" for fault, place, ok in result.located if not ok
    ]
    lines += [f"false alarm: {label} at {place}" for label, place, _ in result.false_alarms]
    lines += [
        f"not named: {t.fault} at {t.place}, got {', '.join(t.causes) or 'nothing'}"
        for t in result.visible
        if t.caught and not t.named
    ]
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return lines[:_SHOWN] + more


def _table(*titles: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    return table


def _by_op(visible: list[Trial]) -> Table:
    table = _table("op", "visible faults", "caught", "named")
    for op in dict.fromkeys(t.op for t in visible):
        mine = [t for t in visible if t.op == op]
        counts = (len(mine), sum(t.caught for t in mine), sum(t.named for t in mine))
        table.add_row(op, *map(str, counts))
    return table


def _gates(result: Selftest) -> Table:
    table = _table("gate", "caught", "false alarms")
    ours = f"{result.rate(lambda t: t.caught):.1%}"
    alarms = f"{len(result.false_alarms)} of {len(result.correct)}"
    table.add_row("goldenctl, by budget", ours, alarms)
    for gate in result.visible[0].gates if result.visible else ():
        caught = f"{_gate_rate(result, gate):.1%}"
        alarms = f"{result.correct_gates[gate]} of {result.correct_ops}"
        table.add_row(gate, caught, alarms)
    return table


def _gate_rate(result: Selftest, gate: str) -> float:
    return result.rate(lambda trial: trial.gates[gate])


def _by_fault(trials: list[Trial]) -> Table:
    table = _table("fault", "op", "trials", "visible", "caught", "named", "not shown, but caught")
    groups = Counter((t.fault, t.op) for t in trials)
    for fault, op in sorted(groups):
        mine = [t for t in trials if (t.fault, t.op) == (fault, op)]
        seen = [t for t in mine if t.visible]
        counts = (
            len(mine),
            len(seen),
            sum(t.caught for t in seen),
            sum(t.named for t in seen),
            sum(t.caught for t in mine if not t.visible),
        )
        table.add_row(fault, op, *map(str, counts))
    return table


def _notify(message: str) -> None:
    click.echo(message, err=True)
