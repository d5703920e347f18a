"""What commands that yield a report share: where it is written, what of it is shown."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldenctl.commands.options import OUT, STANDARD_OUTPUT, TEXT
from goldenctl.commands.targets import refuse_other
from goldenctl.errors import UsageError
from goldenctl.places import place

if TYPE_CHECKING:
    from goldenctl.records.report import Report

Function = Callable[..., Any]


@dataclass(frozen=True)
class Outputs:
    """The files that a report is written to, one for each format; None is not wanted, and
    ``-`` is standard output, which then holds nothing else."""

    json: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    csv: Path | None = None
    html: Path | None = None

    @property
    def paths(self) -> dict[str, Path]:
        """The wanted files by format."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: path for name, path in every.items() if path is not None}

    @property
    def takes_over(self) -> bool:
        """Whether standard output is one of the files."""
        return STANDARD_OUTPUT in self.paths.values()

    @property
    def pictures(self) -> bool:
        """Whether figures are needed: they are read from the tensors."""
        return self.json is not None or self.html is not None

    def check(self) -> None:
        """Raise UsageError, before anything is computed, for a path that cannot be written or
        where a file is that is not a report of that format."""
        paths = list(self.paths.values())
        for name, path in self.paths.items():
            if path != STANDARD_OUTPUT:
                refuse_other(path, name)
        twice = [path for path in paths if paths.count(path) > 1]
        if twice:
            message = f"{twice[0]}: is given for two formats"
            raise UsageError(message)


@dataclass(frozen=True)
class Shown:
    """What of a report is printed; the verdict itself is always of everything."""

    worst: int | None = None
    only: str | None = None
    times: bool = False
    verbose: bool = False
    quiet: bool = False


NOWHERE = Outputs()
EVERYTHING = Shown()
_OUTPUTS = (
    click.option(
        "--json",
        type=OUT,
        metavar="FILE",
        help="Write the report as JSON; - is standard output, here and below.",
    ),
    click.option("--html", type=OUT, metavar="FILE", help="Write the report as one HTML page."),
    click.option("--junit", type=OUT, metavar="FILE", help="Write the report as JUnit XML."),
    click.option("--markdown", type=OUT, metavar="FILE", help="Write the report as Markdown."),
    click.option("--csv", type=OUT, metavar="FILE", help="Write all scores as CSV."),
)
_SHOWN = (
    click.option(
        "--worst", type=click.IntRange(1), metavar="N", help="Show the N worst sublayers first."
    ),
    click.option(
        "--only",
        type=TEXT,
        metavar="PATTERN",
        help="Show only tensors whose name matches, such as 'layers.0*.q_proj'. "
        "Files are not filtered.",
    ),
    click.option("--times", is_flag=True, help="Show how long both sides took."),
    click.option("-v", "--verbose", is_flag=True, help="Show everything."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing; only set the exit code."),
)


def report_outputs(function: Function) -> Function:
    """Add --json, --html, --junit, --markdown and --csv; the command gets them as ``outputs``."""
    return _gathered(function, "outputs", Outputs, _OUTPUTS)


def report_shown(function: Function) -> Function:
    """Add --worst, --only, --times, --verbose and --quiet; the command gets them as ``shown``."""
    return _gathered(function, "shown", Shown, _SHOWN)


def _gathered(function: Function, name: str, kind: type, options: tuple[Function, ...]) -> Function:
    """Add options to a command, and give it one object of ``kind`` in their place."""

    @functools.wraps(function)
    def command(*arguments: Any, **values: Any) -> Any:
        own = {f.name: values.pop(f.name) for f in fields(kind) if f.name in values}
        return function(*arguments, **{name: kind(**own)}, **values)

    for option in reversed(options):
        command = option(command)
    return command


def refuse_unmatched(only: str | None, names: Iterable[str]) -> None:
    """Raise UsageError when --only matches none of the tensors."""
    from goldenctl.places import short_name
    from goldenctl.records.words import matcher

    known = list(names)
    matches = matcher(only)
    if only is None or not known or any(map(matches, known)):
        return
    taps = {place(name).tap: None for name in known}
    places = [f"{short_name(place(name).group)}.{name.rpartition('/')[2]}" for name in known]
    close = get_close_matches(only.strip("*"), [*taps, *dict.fromkeys(places)], 1, 0.5)
    hint = f"did you mean '{close[0]}'?" if close else "goldenctl inspect lists them"
    message = f"--only {only}: matches no tensor"
    raise UsageError(message, hint=hint)


def deliver(report: Report, outputs: Outputs, shown: Shown) -> int:
    """Write the report's files and GitHub's step summary, print it; return its exit code."""
    from goldenctl.report.console import print_report
    from goldenctl.report.markdown import append_summary
    from goldenctl.report.sections.choice import Choice

    refuse_unmatched(shown.only, (tensor.name for tensor in report.tensors))
    write_outputs([report], outputs)
    append_summary([report])
    if not shown.quiet and not outputs.takes_over:
        print_report(report, Choice(shown.worst, shown.only, not shown.verbose, shown.times))
    return report.exit_code


def refuse_of_one(shown: Shown, runs: int) -> None:
    """Raise UsageError for an option that only the report of one run has."""
    for name in ("worst", "only", "times", "verbose"):
        if getattr(shown, name):
            message = f"--{name}: is of one run, {runs} are given"
            raise UsageError(message, hint="diff each run by itself")


def deliver_all(reports: Sequence[Report], outputs: Outputs, shown: Shown) -> int:
    """Deliver what a stored file holds: the report of one run, or of several."""
    if len(reports) == 1:
        return deliver(reports[0], outputs, shown)
    refuse_of_one(shown, len(reports))
    return deliver_matrix(reports, outputs, shown)


def deliver_matrix(reports: Sequence[Report], outputs: Outputs, shown: Shown) -> int:
    """Deliver the reports of several runs of one golden; return the worst exit code."""
    from goldenctl.report.markdown import append_summary
    from goldenctl.report.render_console import show
    from goldenctl.report.sections.matrix import side_by_side

    write_outputs(reports, outputs)
    append_summary(reports)
    if not shown.quiet and not outputs.takes_over:
        show(side_by_side(reports))
    return max(report.exit_code for report in reports)


def write_outputs(reports: Sequence[Report], outputs: Outputs) -> None:
    """Render every wanted format and put it into its file, each in one step."""
    from importlib import import_module

    from goldenctl.atomic import write_out

    for name, path in outputs.paths.items():
        renderer = import_module(f"goldenctl.report.{name}")
        one = len(reports) == 1
        text = renderer.render(reports[0]) if one else renderer.render_matrix(reports)
        if path == STANDARD_OUTPUT:
            click.echo(text, nl=not text.endswith("\n"))
        else:
            write_out(path, text)
