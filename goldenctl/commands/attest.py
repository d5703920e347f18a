"""``goldenctl attest``: what was found on this machine, for another to judge again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldenctl.commands.options import GOLDEN, PATH, TEXT, goldens_option, plural
from goldenctl.commands.reporting import Shown, deliver
from goldenctl.commands.targets import refuse_other
from goldenctl.errors import DamagedError, UsageError, printable

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile
    from goldenctl.sets.manifest import Manifest
    from goldenctl.sets.names import GoldenSet
    from goldenctl.studies.attestation import Attestation


@click.command("attest", short_help="Write down what this machine found, for others to judge")
@click.argument("run", type=GOLDEN)
@click.option(
    "--output",
    type=PATH,
    metavar="FILE",
    help="File to write; by default RUN's name with .attestation.json.",
)
@click.option("--name", type=TEXT, help="The golden set to use, if several hold this golden.")
@goldens_option(expose=True)
def attest_command(run: Path, output: Path | None, name: str | None, goldens: Path | None) -> int:
    """Write down what this machine found about RUN, so that one without its accelerator can judge
    it again.

    The file holds the manifest's digest, the engine's digests, the device, each tensor's verdict,
    digest and sketch, but no tensors. Judge it by goldenctl check --attestation FILE. Ends with
    exit code 1 when RUN is beyond tolerance; the file says so too.
    """
    from goldenctl.atomic import write_whole
    from goldenctl.golden.file import open_golden
    from goldenctl.report.console import print_report
    from goldenctl.studies.attestation import attest, dump

    output = output or run.with_name(f"{run.name}.attestation.json")
    refuse_other(output, "attestation")
    opened = open_golden(run, kind="run")
    golden_set, manifest = _manifest_of(opened, name, goldens)
    path = golden_set.path(manifest.version)
    golden = open_golden(path, kind="golden") if path.is_file() else None
    attestation, report = attest(manifest, golden_set.manifest_path, golden, opened)
    write_whole(output, dump(attestation))
    print_report(report)
    click.echo(
        f"wrote {output}: {plural(len(attestation.tensors), 'tensor')}, judged by their "
        f"{attestation.judged_by}, against {golden_set.name}@v{manifest.version}"
    )
    return report.exit_code


def run_attestation(file: Path, names: tuple[str, ...], options: dict[str, Any]) -> int:
    """Judge an attestation again and print the report; return the exit code."""
    from goldenctl.sets.against_manifest import described
    from goldenctl.sets.manifest import load_manifest
    from goldenctl.sets.names import open_set
    from goldenctl.studies.attestation import judge_again, load

    attestation = load(file)
    name = attestation.golden.name
    if names not in ((), (name,)):
        message = f"--attestation {file}: is of {name}, not of {', '.join(names)}"
        raise UsageError(message)
    golden_set = open_set(name, options["goldens"])
    manifest = load_manifest(golden_set)
    report = judge_again(attestation, manifest, golden_set.manifest_path, file)
    shown: Shown = options["shown"]
    if not shown.quiet:
        _say(attestation, len(described(manifest, golden_set.manifest_path).sublayers))
    return deliver(report, options["outputs"], shown)


def _say(attestation: Attestation, sublayers: int) -> None:
    """Say who attests what, and how much it is of a golden of so many sublayers."""
    recipe = attestation.run.recipe
    engine = recipe.backend.get("name", "an unknown engine")
    verdict = "passed" if attestation.ok else "failed"
    said = (
        f"attested {attestation.created_utc} by goldenctl {attestation.tool_version}: {engine} on "
        f"{recipe.device or 'an unknown device'} {verdict}, judged by its {attestation.judged_by}"
    )
    click.echo(printable(f"{said}; judged again here by sketches"))
    ran = len(attestation.run.sublayers)
    if ran < sublayers:
        click.echo(f"ONLY IN PART: {ran} of the golden's {sublayers} sublayers were replayed")


def _manifest_of(
    run: GoldenFile, name: str | None, goldens: Path | None
) -> tuple[GoldenSet, Manifest]:
    """Return the set whose manifest describes the golden that ``run`` was replayed from."""
    from goldenctl.sets.manifest import load_manifest
    from goldenctl.sets.names import existing_set, goldens_folder, list_sets

    content = run.recipe.get("golden", {}).get("content_digest")
    candidates = [existing_set(name, goldens)] if name else list_sets(goldens)
    with_manifest = [each for each in candidates if each.manifest_path.is_file()]
    found = [(each, load_manifest(each)) for each in with_manifest]
    matching = [pair for pair in found if pair[1].current.content_digest == content]
    if len(matching) > 1:
        names = ", ".join(each.name for each, _ in matching)
        message = f"{run.path}: {names} describe the golden that it was replayed from"
        raise UsageError(message, hint="choose one with --name")
    if not matching:
        where = name or goldens_folder(goldens)
        message = f"{run.path}: was replayed from a golden that no manifest of {where} describes"
        hint = "record --name NAME makes a set; manifest NAME describes another version of one"
        raise DamagedError(message, hint=hint)
    return matching[0]
