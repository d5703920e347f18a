"""``goldenctl blame``: find every culprit, name its bug, and show how its error spreads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.options import GOLDEN, PATH, goldens_option, model_folder, parse_layers
from goldenctl.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from goldenctl.replay.blame import Blame


@click.command("blame")
@click.argument("golden", type=GOLDEN)
@click.option("--backend", default="infinicore", show_default=True, help="As for replay.")
@click.option("--model-path", type=PATH, help="The checkpoint, when it has moved.")
@click.option("--device", default="cpu", show_default=True, help="As for replay.")
@click.option("--layers", metavar="LIST", help="Only these decoder layers.")
@click.option("--inject", "faults", multiple=True, metavar="FAULT[@PLACE]", help="As for replay.")
@click.option("--tolerance", default="default", show_default=True, help="As for diff.")
@click.option("--infini-root", type=PATH, help="InfiniCore's install folder.")
@goldens_option()
def blame_command(
    golden: Path,
    backend: str,
    model_path: Path | None,
    device: str,
    layers: str | None,
    faults: tuple[str, ...],
    tolerance: str,
    infini_root: Path | None,
) -> int:
    """Replay GOLDEN by sublayer, by op and as a chain; name the culprits and their bugs.

    Ends with exit code 1 when there is a culprit.
    """
    from rich.console import Console

    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.file import open_golden
    from goldenctl.replay.backend import open_backend, parse_device
    from goldenctl.replay.blame import Investigation
    from goldenctl.replay.faults import parse_injection
    from goldenctl.replay.replay import Options

    if backend == "simulated":
        message = "blame: a simulated backend has no culprits"
        raise UsageError(message, hint="use infinicore, torch or exec:PROGRAM")
    source = open_golden(golden, kind="golden")
    parse_device(device)
    count = source.recipe["model"]["config"]["num_hidden_layers"]
    options = Options(
        device=device,
        layers=parse_layers(layers, count),
        faults=tuple(parse_injection(text) for text in faults),
    )
    with tempfile.TemporaryDirectory(prefix="goldenctl-") as folder:
        investigation = Investigation(
            source,
            model_folder(model_path or source.recipe["model"]["path"]),
            backend=open_backend(backend, infini_root=infini_root, notify=_notify),
            options=options,
            policy=load_policy(tolerance),
            folder=Path(folder),
            notify=_notify,
        )
        blame = investigation.run()
    print_blame(blame, Console(highlight=False))
    return 1 if blame.culprits or not blame.local.ok else 0


def print_blame(blame: Blame, console: Console) -> None:
    """Print the culprits with their diagnoses, the depth table and the graft."""
    from rich.markup import escape

    from goldenctl.errors import printable
    from goldenctl.golden.schema import short_name

    if blame.local.faults:
        console.print(f"[bold yellow]INJECTED FAULTS: {escape(', '.join(blame.local.faults))}[/]")
    if not blame.culprits:
        console.print("[bold green]✓ no culprit[/]: every op is right, given right inputs")
    diagnoses = {d.name: d for d in blame.diagnoses}
    for culprit in blame.culprits:
        place = f"{short_name(culprit.sublayer)}.{culprit.tap}"
        console.print(f"[bold red]✗ culprit[/] [bold]{escape(printable(place))}[/] ({culprit.op})")
        diagnosis = diagnoses.get(culprit.name)
        said = diagnosis.summary if diagnosis else culprit.message
        console.print(f"    {escape(printable(said))}")
    if blame.note:
        console.print(escape(blame.note))
    console.print()
    console.print(_depth_table(blame))
    if blame.graft is not None:
        console.print(f"\n{_graft_line(blame)}")


def _depth_table(blame: Blame) -> object:
    from rich.table import Table

    from goldenctl.golden.schema import short_name

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sublayer", no_wrap=True)
    for title in ("local", "inherited", "chained", "times"):
        table.add_column(title, justify="right")
    table.add_column("")
    colours = {"culprit": "bold red", "amplifier": "yellow", "victim": "dim", "healed": "green"}
    for depth in blame.depths:
        grew = f"{depth.amplification:.2g}x" if depth.inherited > 0 else "-"
        numbers = (f"{x:.1e}" for x in (depth.local, depth.inherited, depth.chained))
        style = colours.get(depth.word, "")
        word = f"[{style}]{depth.word}[/]" if style else depth.word
        table.add_row(short_name(depth.name), *numbers, grew, word)
    return table


def _graft_line(blame: Blame) -> str:
    graft = blame.graft
    assert graft is not None
    count = len(blame.culprits)
    line = (
        f"graft: with the golden's tensor in place of {count} culprit{'s' * (count > 1)}, "
        f"the chain has {graft.wrong_after} wrong sublayers instead of {graft.wrong_before}"
    )
    if graft.top1 is not None:
        golden, before, after = graft.top1
        state = "right all along" if before == golden else "healed" if after == golden else "wrong"
        line += f"; top-1 token {before} → {after}, golden {golden}: {state}"
    return line


def _notify(message: str) -> None:
    click.echo(message, err=True)
