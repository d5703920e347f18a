"""``goldenctl export``: a golden or run in another format, whole or in part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.options import (
    GOLDEN,
    PATH,
    TEXT,
    goldens_option,
    human_bytes,
    plural,
    progress_bar,
)
from goldenctl.commands.targets import refuse_other, refuse_taken
from goldenctl.errors import UsageError

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile

FORMATS = ("archive", "safetensors", "npz", "infiniop-test")
_BY_SUFFIX = {
    ".h5": "archive",
    ".hdf5": "archive",
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".gguf": "infiniop-test",
}


@click.command("export", short_help="Write a golden or run in another format")
@click.argument("file", type=GOLDEN)
@click.argument("out", type=PATH)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    help="By default OUT's suffix decides: .h5 (compressed archive), .safetensors, .npz, .gguf.",
)
@click.option(
    "--only",
    multiple=True,
    type=TEXT,
    metavar="PATTERN",
    help="Only tensors such as 'layers.03.attention.*' (repeatable).",
)
@click.option("--case", "cases", multiple=True, type=TEXT, help="Only this case (repeatable).")
@click.option(
    "--op",
    type=TEXT,
    metavar="TENSOR",
    help="infiniop-test: the tensor whose op to test; for a run, by default the first wrong one.",
)
@click.option(
    "--model-path", type=PATH, help="infiniop-test: where the checkpoint is now, if it has moved."
)
@click.option(
    "--golden", type=GOLDEN, help="infiniop-test: where the run's golden is now, if it has moved."
)
@goldens_option()
@click.option("--force", is_flag=True, help="Replace OUT.")
def export_command(
    file: Path,
    out: Path,
    format_name: str | None,
    only: tuple[str, ...],
    cases: tuple[str, ...],
    op: str | None,
    model_path: Path | None,
    golden: Path | None,
    force: bool,
) -> None:
    """Write FILE, a golden or a run, to OUT in another format.

    An archive, a safetensors and an npz file hold what `goldenctl import` needs to write the
    same golden again, byte for byte. infiniop-test is a test case for InfiniCore's own tester
    of one op: its inputs and weights, and the golden's output as the answer.
    """
    from goldenctl.golden.file import open_golden

    chosen = format_name or _BY_SUFFIX.get(out.suffix)
    if chosen is None:
        msg = f"{out}: its suffix names no format"
        raise UsageError(msg, hint=f"pass --format {', '.join(FORMATS)}")
    _refuse_unfit(chosen, parts=bool(only or cases), op=bool(op or model_path or golden))
    refuse_taken(out, force=force)
    refuse_other(out, chosen)
    source = open_golden(file)
    if chosen == "infiniop-test":
        _export_case(source, out, op=op, model_path=model_path, golden=golden)
    else:
        _export_tensors(source, out, chosen, only=only, cases=cases)


def _refuse_unfit(chosen: str, *, parts: bool, op: bool) -> None:
    if op and chosen != "infiniop-test":
        msg = f"--op, --model-path and --golden are for --format infiniop-test, not {chosen}"
        raise UsageError(msg)
    if parts and chosen == "infiniop-test":
        msg = "--only and --case are not for infiniop-test"
        raise UsageError(msg, hint="name the tensor with --op")


def _export_tensors(
    source: GoldenFile, out: Path, chosen: str, *, only: tuple[str, ...], cases: tuple[str, ...]
) -> None:
    from goldenctl.atomic import whole_file
    from goldenctl.exchange.archive import write_archive
    from goldenctl.exchange.npz import write_npz
    from goldenctl.exchange.safetensors import write_safetensors
    from goldenctl.exchange.select import select

    catalog = select(source, only=only, cases=cases)
    write = {"archive": write_archive, "safetensors": write_safetensors, "npz": write_npz}[chosen]
    with progress_bar("exporting") as progress, whole_file(out) as temporary:
        write(temporary, source, catalog, progress=progress)
    count, whole = len(catalog.tensors), len(source.tensors)
    tensors = plural(whole, "tensor")
    part = tensors if count == whole else f"{count} of {tensors}"
    size = out.stat().st_size
    share = f"{size / max(catalog.nbytes, 1):.0%} of their bytes"
    click.echo(f"wrote {out}: {part}, {human_bytes(size)}, {share}")


def _export_case(
    source: GoldenFile,
    out: Path,
    *,
    op: str | None,
    model_path: Path | None,
    golden: Path | None,
) -> None:
    from goldenctl.atomic import whole_file
    from goldenctl.exchange.gguf import write_gguf
    from goldenctl.replay.infiniop_case import find_case

    case = find_case(
        source,
        op,
        golden_path=golden,
        model_path=model_path,
    )
    with whole_file(out) as temporary:
        write_gguf(temporary, case.metadata, case.tensors)
    click.echo(f"wrote {out}: {case.summary}, {human_bytes(out.stat().st_size)}")
    click.echo(f"run: infiniop-test {out} --atol {case.atol:.3g} --rtol 0")
