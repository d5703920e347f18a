"""``goldenctl bench``: time backends on a golden's inputs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.engine import Engine
from goldenctl.commands.groups import takes
from goldenctl.commands.options import GOLDEN, PATH, check_layers, goldens_option, progress_bar
from goldenctl.commands.targets import refuse_other
from goldenctl.errors import EXIT_BEYOND_TOLERANCE, UsageError
from goldenctl.replay.options import Options

if TYPE_CHECKING:
    from goldenctl.studies.bench import Bench, Entrant


@click.command("bench", short_help="Time backends side by side")
@click.argument("golden", type=GOLDEN)
@goldens_option()
@click.option(
    "--backend",
    "backends",
    multiple=True,
    default=("infinicore", "torch"),
    show_default=True,
    metavar="NAME[@DEVICE]",
    help="As for replay (repeatable); the others are compared with the first.",
)
@takes("engine", Engine, "model_path", "infini_root")
@takes("options", Options, "device", "dtype", "layers", "timeout_s")
@click.option(
    "--repeat",
    type=click.IntRange(1, 10_000),
    default=5,
    show_default=True,
    help="Passes over all backends, in turn.",
)
@click.option(
    "--launches",
    type=click.IntRange(1, 10_000),
    default=3,
    show_default=True,
    help="Timed launches of each op in a pass, after one warm-up launch.",
)
@click.option("--json", "json_path", type=PATH, help="Also write what was measured as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show every sublayer.")
def bench_command(
    golden: Path,
    backends: tuple[str, ...],
    engine: Engine,
    options: Options,
    repeat: int,
    launches: int,
    json_path: Path | None,
    verbose: bool,
) -> int:
    """Time backends on GOLDEN's inputs, interleaved, and say which is faster.

    ``--backend infinicore:FOLDER`` is the build in that folder. Ends with exit code 1 when a
    sublayer failed.
    """
    from goldenctl.golden.file import open_golden
    from goldenctl.replay.backend import check_dtype
    from goldenctl.replay.run import open_source
    from goldenctl.report.bench import bench_view
    from goldenctl.report.render_console import show
    from goldenctl.studies.bench import Settings, bench

    if json_path is not None:
        refuse_other(json_path, "bench")
    file = open_golden(golden, kind="golden")
    check_layers(options.layers, file.config.num_hidden_layers)
    entrants = _entrants(backends, options.device, engine)
    wanted = options.dtype or file.recipe["dtype"]
    for entrant in entrants:
        check_dtype(entrant.backend, wanted)
    source = open_source(file, engine.folder(file), options)
    with progress_bar("timing") as progress:
        measured = bench(
            source,
            entrants,
            dtype=wanted,
            settings=Settings(repeat, launches, options.timeout_s),
            progress=progress,
        )
    if json_path is not None:
        _write_json(json_path, measured)
    show(bench_view(measured, verbose=verbose))
    failed = any(result.failed for result in measured.results)
    return EXIT_BEYOND_TOLERANCE if failed else 0


def _entrants(specs: Sequence[str], device: str, engine: Engine) -> list[Entrant]:
    from goldenctl.replay.backend import parse_device
    from goldenctl.studies.bench import Entrant

    entrants: list[Entrant] = []
    for spec in specs:
        name, at, place = spec.rpartition("@")
        where = place if at else device
        parse_device(where)
        if (name or spec) == "simulated":
            msg = "bench: a simulated backend takes no time"
            raise UsageError(msg, hint="use infinicore, torch or exec:PROGRAM")
        label = _short(spec)
        same = sum(label in (e.label, e.label.rpartition(" #")[0]) for e in entrants)
        label = f"{label} #{same + 1}" if same else label
        backend = replace(engine, backend=name if at else spec).open()
        entrants.append(Entrant(label, backend, where))
    return entrants


def _short(spec: str) -> str:
    """``exec:/opt/engine/run@nvidia`` as ``exec:run@nvidia``."""
    kind, colon, path = spec.partition(":")
    return f"{kind}{colon}{Path(path).name}" if colon else spec


def _write_json(path: Path, measured: Bench) -> None:
    import json

    import msgspec

    from goldenctl.atomic import write_out

    data = {"bench_version": measured.bench_version, **msgspec.to_builtins(measured)}
    write_out(path, json.dumps(data, indent=1) + "\n")
