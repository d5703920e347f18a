"""``goldenctl check``: golden sets against what computes them today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldenctl.commands.groups import takes
from goldenctl.commands.options import (
    PATH,
    TEXT,
    goldens_option,
    notify,
    os_errors_named,
    progress_bar,
    strict_option,
)
from goldenctl.commands.reporting import Outputs, Shown, deliver, report_outputs, report_shown
from goldenctl.errors import MissingError, UsageError
from goldenctl.replay.options import Options

if TYPE_CHECKING:
    from goldenctl.sets.names import GoldenSet
    from goldenctl.studies.regression import Wanted
    from goldenctl.studies.regression_step import Step


@click.command("check", short_help="Re-check golden sets against the current code")
@click.argument("names", metavar="[NAME...]", nargs=-1, type=TEXT)
@click.option(
    "--integrity",
    is_flag=True,
    help="Check digests only: fast, needs neither torch nor InfiniCore.",
)
@click.option(
    "--against",
    type=click.Choice(["golden", "manifest"]),
    help="Judge by the golden file, which must be here, or by the manifest's sketches alone; "
    "by default the file, if it is here.",
)
@click.option("--record", is_flag=True, help="Record again even if the golden is here.")
@click.option("--no-replay", is_flag=True, help="Do not replay.")
@click.option(
    "--backend",
    default="infinicore",
    show_default=True,
    metavar="NAME",
    help="infinicore, torch, exec:PROGRAM, or trace:COMMAND to run and trace an engine.",
)
@takes("replaying", Options, "device", "mode", "timeout_s")
@click.option("--model-path", type=TEXT, help="Where the checkpoint is now, if it has moved.")
@click.option(
    "--module", metavar="PACKAGE:FUNCTION", help="The function that goldens of modules are of."
)
@click.option("--infini-root", type=PATH, help="InfiniCore's install folder.")
@click.option(
    "--tolerance",
    metavar="NAME|FILE",
    help="Judge by this instead of the manifest's own tolerance.",
)
@strict_option
@click.option("--keep", type=PATH, help="Keep what is recorded and replayed in this folder.")
@report_outputs
@report_shown
@click.option(
    "--attestation",
    type=PATH,
    metavar="FILE",
    help="Judge another machine's run again, from the file that goldenctl attest wrote.",
)
@goldens_option(expose=True)
def check_command(names: tuple[str, ...], attestation: Path | None, **options: Any) -> int:
    """Check golden sets: their bytes, and what computes them today.

    NAME is a set or its manifest.json; all sets unless given. Where the golden file is here it is
    hashed, replayed and judged. Where only the manifest is here, the golden is recorded again and
    replayed, and the manifest's sketches judge the recording. Anything missing is a failure that
    says how to get it.

    Ends with the worst exit code of all steps: 4 damaged, 3 missing, 1 beyond tolerance.
    """
    if attestation is not None:
        options["outputs"].check()
        from goldenctl.commands.attest import run_attestation

        return run_attestation(attestation, names, options)
    return run_check(names, **options)


def run_check(
    names: tuple[str, ...],
    *,
    goldens: Path | None,
    outputs: Outputs,
    shown: Shown,
    **options: Any,
) -> int:
    """Check, print, write; return the exit code."""
    from goldenctl.studies.regression import check_set
    from goldenctl.studies.regression_step import exit_code, report_of

    outputs.check()
    if options["integrity"] and (options["record"] or options["against"] == "manifest"):
        message = "--integrity: it computes nothing, so --record and --against manifest do not fit"
        raise UsageError(message)
    chosen = _sets(names, goldens)
    steps: list[Step] = []
    with progress_bar("checking") as progress:
        wanted = _wanted(options, progress, pictures=outputs.pictures)
        for golden_set in chosen:
            steps += check_set(golden_set, wanted)
    deliver(report_of(steps), outputs, shown)
    return exit_code(steps)


def _wanted(options: dict[str, Any], progress: Any, *, pictures: bool) -> Wanted:
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.replay.backend import parse_device
    from goldenctl.studies.regression import Wanted

    parse_device(options["replaying"].device)
    keep = options["keep"]
    if keep is not None:
        with os_errors_named(keep):
            keep.mkdir(parents=True, exist_ok=True)
    return Wanted(
        integrity_only=options["integrity"],
        against=options["against"] or "",
        record=options["record"],
        replay=not options["no_replay"],
        backend=options["backend"],
        options=options["replaying"],
        model_path=options["model_path"] or "",
        module=options["module"],
        infini_root=options["infini_root"],
        policy=load_policy(options["tolerance"]) if options["tolerance"] else None,
        strict=options["strict"],
        keep=keep,
        pictures=pictures,
        progress=progress,
        notify=notify,
    )


def _sets(names: tuple[str, ...], goldens: Path | None) -> list[GoldenSet]:
    """Return the sets that are named, or all; a manifest's path names its set too."""
    from goldenctl.sets.names import MANIFEST, existing_set, goldens_folder, list_sets

    chosen = []
    for name in dict.fromkeys(names):
        path = Path(name)
        if path.name == MANIFEST and len(path.parts) > 1:
            chosen.append(existing_set(path.parent.name, path.parent.parent))
        else:
            chosen.append(existing_set(name, goldens))
    chosen = chosen or list_sets(goldens)
    if not chosen:
        message = f"{goldens_folder(goldens)}: there is no golden set in it"
        raise MissingError(message, hint="goldenctl record CHECKPOINT --name NAME makes one")
    return chosen
