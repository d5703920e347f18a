"""``goldenctl import``: a run from another engine's dump, or a golden from its own export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from goldenctl.exchange.assign import Assignment


@click.command("import", short_help="Make a run of another engine's dump")
@click.argument("dump", type=PATH)
@click.argument("out", type=PATH, required=False)
@click.option(
    "--map", "map_path", type=PATH, help="Name map: which tensor is which (TOML or JSON)."
)
@click.option("--golden", type=GOLDEN, help="The golden whose tokens the engine was given.")
@click.option("--case", "cases", multiple=True, type=TEXT, help="Only this case (repeatable).")
@click.option(
    "--step",
    "steps",
    multiple=True,
    type=click.IntRange(0),
    help="Only this step, 0 for the prompt (repeatable).",
)
@click.option(
    "--lacking",
    type=click.Choice(["error", "missing", "not-computed"]),
    help="What to do with golden tensors that the dump lacks; by default what the map says.",
)
@click.option("--list", "listing", is_flag=True, help="List the dump's tensors and suggest a map.")
@goldens_option()
@click.option("--force", is_flag=True, help="Replace OUT.")
def import_command(
    dump: Path,
    out: Path | None,
    map_path: Path | None,
    golden: Path | None,
    cases: tuple[str, ...],
    steps: tuple[int, ...],
    lacking: str | None,
    listing: bool,
    force: bool,
) -> None:
    """Write OUT, a run file, from DUMP: another engine's tensors, as safetensors, npz, npy,
    PyTorch's .pt, what goldenctl_tap.h and goldenctl.capture wrote, or a folder of these with
    its subfolders. `goldenctl diff GOLDEN OUT` then judges the engine.

    Without --map, DUMP is what `goldenctl export` wrote, and OUT the same golden or run again.
    --list prints a map to start from: import DUMP --golden GOLDEN --list > map.toml
    """
    if listing:
        _list(dump, golden)
        return
    if out is None:
        msg = "import needs a file to write: import DUMP OUT, or --list"
        raise UsageError(msg)
    refuse_taken(out, force=force)
    if map_path is None and golden is None:
        if cases or steps or lacking:
            msg = "--case, --step and --lacking need --map and --golden"
            raise UsageError(msg)
        _restore(dump, out)
    elif map_path is None or golden is None:
        msg = "a dump of another engine needs --map and --golden"
        raise UsageError(msg, hint="import DUMP --golden GOLDEN --list suggests a map")
    else:
        refuse_other(out, "run")
        chosen = {"cases": cases, "steps": steps, "lacking": lacking and lacking.replace("-", "_")}
        _import_run(dump, out, map_path, golden, chosen)


def _restore(dump: Path, out: Path) -> None:
    from goldenctl.exchange.bring import restore
    from goldenctl.exchange.exports import open_export
    from goldenctl.golden.file import kind_of
    from goldenctl.golden.schema import KINDS

    if not dump.exists():
        msg = f"{dump}: there is no such file"
        raise UsageError(msg)
    if (kind := kind_of(dump)) in KINDS:
        msg = f"{dump}: is a {kind} already"
        raise UsageError(msg, hint="diff, inspect and export take it as it is")
    with open_export(dump) as opened:
        if opened is None:
            msg = f"{dump}: is not a goldenctl export"
            raise UsageError(msg, hint="another engine's dump needs --map and --golden")
        catalog, read = opened
        refuse_other(out, catalog.kind)
        with progress_bar("importing") as progress:
            restore(out, catalog, read, where=str(dump), progress=progress)
    count = len(catalog.tensors)
    click.echo(
        f"wrote {out}: a {catalog.kind} of {plural(count, 'tensor')}, {human_bytes(catalog.nbytes)}"
    )
    click.echo(f"content digest {catalog.content_digest}")


def _import_run(
    dump: Path, out: Path, map_path: Path, golden: Path, chosen: dict[str, Any]
) -> None:
    from goldenctl.exchange.assign import assign
    from goldenctl.exchange.bring import import_run
    from goldenctl.exchange.dump import read_dump
    from goldenctl.exchange.namemap import load_map
    from goldenctl.golden.file import open_golden

    mapping = load_map(map_path)
    source = open_golden(golden, kind="golden")
    tensors = read_dump(dump)
    found = assign(source, tensors, mapping, **chosen)
    with progress_bar("importing") as progress:
        import_run(out, source, mapping, found, dump=dump, progress=progress)
    click.echo(f"wrote {out}: a run of {plural(len(found.fits), 'tensor')}")
    for line in (*_leftovers(found), *_uncompared(found), *tensors.left_out()):
        click.echo(line)


def _leftovers(found: Assignment) -> list[str]:
    """Say what was left out, and of what."""
    from goldenctl.errors import printable

    lists = (
        ("marked not computed", found.not_computed),
        ("missing, and will fail", found.missing),
        ("in the dump and not used", found.unused),
    )
    return [
        f"{len(names)} {what}: {printable(', '.join(names[:3]))}{', ...' if names[3:] else ''}"
        for what, names in lists
        if names
    ]


def _uncompared(found: Assignment) -> list[str]:
    """Name the outputs that diff will not judge, the logits first."""
    from goldenctl.exchange.select import dotted_name

    names = dict.fromkeys(dotted_name(n) for n in found.not_computed if n.endswith("/output"))
    if not names:
        return []
    ordered = sorted(names, key=lambda name: not name.startswith("lm_head."))
    logits = "the logits among them: " if ordered[0].startswith("lm_head.") else ""
    more = ", ..." if ordered[3:] else ""
    count = plural(len(names), "output")
    return [f"{count} will not be compared, {logits}{', '.join(ordered[:3])}{more}"]


def _list(dump: Path, golden: Path | None) -> None:
    from goldenctl.exchange.dump import read_dump
    from goldenctl.exchange.suggest import listing
    from goldenctl.golden.file import open_golden

    tensors = read_dump(dump)
    source = open_golden(golden, kind="golden") if golden is not None else None
    for line in listing(tensors, source):
        click.echo(line)
