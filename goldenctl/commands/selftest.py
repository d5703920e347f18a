"""``goldenctl selftest``: prove on a golden that verdicts can be trusted."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.engine import Engine
from goldenctl.commands.groups import takes
from goldenctl.commands.options import GOLDEN, LAYERS, check_layers, goldens_option, notify
from goldenctl.commands.reporting import Outputs, Shown, deliver, report_outputs
from goldenctl.errors import require_torch

MOST_LAYERS = 4


@click.command("selftest", short_help="Measure on a golden what is caught and named")
@click.argument("golden", type=GOLDEN)
@takes("engine", Engine, "backend", "model_path", "infini_root")
@click.option(
    "--layers",
    type=LAYERS,
    metavar="LIST",
    help="Only these decoder layers; by default four, spread over the depth.",
)
@click.option("-v", "--verbose", is_flag=True, help="List every fault by op.")
@report_outputs
@goldens_option()
def selftest_command(
    golden: Path,
    engine: Engine,
    layers: frozenset[int] | None,
    verbose: bool,
    outputs: Outputs,
) -> int:
    """Inject every fault and every correct alternative; count what is caught and named.

    GOLDEN needs --oracle and --taps op. Ends with exit code 1 when a visible fault escapes,
    something correct is called wrong, or a bug gets a wrong name beyond the stated rates.
    """
    from goldenctl.golden.file import open_golden

    outputs.check()
    source = open_golden(golden, kind="golden")
    count = source.config.num_hidden_layers
    kept = source.recipe.get("layers") or range(count)
    require_torch("selftest")
    from goldenctl.studies.selftest import Tester, spread

    tester = Tester(
        source,
        engine.folder(source),
        backend=engine.open(),
        layers=check_layers(layers, count) or (spread(kept) if count > MOST_LAYERS else None),
        notify=notify,
    )
    return deliver(tester.report(), outputs, Shown(verbose=verbose))
