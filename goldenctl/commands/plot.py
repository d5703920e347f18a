"""``goldenctl plot``: the figures of a report as SVG and PNG, for papers and issues."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.options import (
    GOLDEN,
    PATH,
    FiniteRange,
    goldens_option,
    os_errors_named,
)
from goldenctl.commands.targets import refuse_other
from goldenctl.errors import UsageError

if TYPE_CHECKING:
    from goldenctl.records.report import Report
    from goldenctl.report.plot import Drawn

KINDS = ("map", "depth", "times", "strips", "histogram", "quantiles", "scatter")
SUFFIXES = (".svg", ".png")
_OTHER_FIGURES = (".pdf", ".eps", ".jpg", ".jpeg", ".gif", ".webp")


@click.command("plot", short_help="Draw a report's figures as SVG and PNG")
@click.argument("report", type=GOLDEN, metavar="REPORT|GOLDEN")
@click.argument("run", type=GOLDEN, required=False)
@click.option(
    "--output",
    type=PATH,
    default=Path("figures"),
    show_default=True,
    metavar="DIR|FILE",
    help="A folder for all figures, or a .svg or .png file for one.",
)
@click.option(
    "--figure",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="Only this kind of figure (repeatable); a single file shows the worst tensor.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["svg", "png", "both"]),
    default="svg",
    show_default=True,
    help="What to write into the folder; PNG needs goldenctl[plot].",
)
@click.option(
    "--theme", type=click.Choice(["light", "dark"]), default="light", show_default=True,
    help="Colours for a light or a dark background.",
)  # fmt: skip
@click.option(
    "--zoom",
    type=FiniteRange(0.1, 10),
    default=2.0,
    show_default=True,
    help="PNG pixels per SVG unit.",
)
@click.option("--tolerance", default="default", show_default=True, help="As for diff.")
@goldens_option()
def plot_command(
    report: Path,
    run: Path | None,
    output: Path,
    kinds: tuple[str, ...],
    formats: str,
    theme: str,
    zoom: float,
    tolerance: str,
) -> None:
    """Draw the figures of REPORT, written by --json, or of GOLDEN against RUN.

    The figures are those of the HTML page: the map of layers and ops, error along depth, times, and
    for each of the worst tensors its strips, histogram, quantiles and scatter.
    """
    from goldenctl.report.plot import check_png, drawn

    one = output.suffix in SUFFIXES and not output.is_dir()
    endings = SUFFIXES if formats == "both" else (f".{formats}",)
    if ".png" in ((output.suffix,) if one else endings):
        check_png()
    if output.suffix in _OTHER_FIGURES:
        message = f"{output}: figures are written as .svg or .png"
        raise UsageError(message)
    if one:
        refuse_other(output, output.suffix[1:])
    elif output.exists() and not output.is_dir():
        message = f"{output}: is a file, expected a folder or a name ending in .svg or .png"
        raise UsageError(message)
    found = list(drawn(_load(report, run, tolerance)))
    chosen = [each for each in found if not kinds or each.figure.name in kinds]
    if not chosen:
        what = " or ".join(kinds) or "figure"
        message = f"{report}: has no {what} to draw"
        raise UsageError(message, hint="diff and blame with --json write reports with figures")
    if one:
        _write(output, chosen[0], dark=theme == "dark", zoom=zoom)
        click.echo(f"wrote {output}: {_shown(chosen[0])}")
        return
    with os_errors_named(output):
        output.mkdir(parents=True, exist_ok=True)
    for each in chosen:
        for ending in endings:
            refuse_other(output / f"{each.stem}{ending}", ending[1:])
    for each in chosen:
        for ending in endings:
            _write(output / f"{each.stem}{ending}", each, dark=theme == "dark", zoom=zoom)
        names = " and ".join(f"{each.stem}{ending}" for ending in endings)
        click.echo(f"wrote {output / names}: {_shown(each)}")


def _load(report: Path, run: Path | None, tolerance: str) -> Report:
    from goldenctl.diff.illustrate import illustrate
    from goldenctl.diff.judge import compare
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.file import open_golden
    from goldenctl.report.json import load_report

    policy = load_policy(tolerance)
    if run is None and report.suffix != ".json":
        message = "plot needs a golden and a run, or one report that --json wrote"
        raise UsageError(message)
    if run is None:
        return load_report(report)
    files = open_golden(report), open_golden(run)
    return illustrate(compare(*files, policy), *files)


def _write(path: Path, each: Drawn, *, dark: bool, zoom: float) -> None:
    from goldenctl.atomic import write_out
    from goldenctl.report.plot import png, svg

    text = svg(each.figure, dark=dark)
    if path.suffix == ".png":
        write_out(path, png(text, zoom=zoom))
    else:
        write_out(path, text)


def _shown(each: Drawn) -> str:
    from goldenctl.errors import printable

    return printable(each.shows)
