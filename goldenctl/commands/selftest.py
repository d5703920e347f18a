"""``goldenctl selftest``: prove on a golden that verdicts can be trusted."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import GOLDEN, PATH, goldens_option, parse_layers, recorded_folder
from goldenctl.commands.reporting import Outputs, Shown, deliver, report_outputs
from goldenctl.errors import require_torch

LAYERS = 4


@click.command("selftest", short_help="Prove on a golden what is caught and named")
@click.argument("golden", type=GOLDEN)
@click.option("--backend", default="infinicore", show_default=True, help="As for replay.")
@click.option("--model-path", type=PATH, help="The checkpoint, when it has moved.")
@click.option(
    "--layers", metavar="LIST", help="Decoder layers; four spread over depth if not given."
)
@click.option("--infini-root", type=PATH, help="InfiniCore's install folder.")
@click.option("-v", "--verbose", is_flag=True, help="List every fault by op.")
@report_outputs
@goldens_option()
def selftest_command(
    golden: Path,
    backend: str,
    model_path: Path | None,
    layers: str | None,
    infini_root: Path | None,
    verbose: bool,
    outputs: Outputs,
) -> int:
    """Inject every fault and every correct alternative; count what is caught and named.

    GOLDEN needs --oracle and --taps op. Ends with exit code 1 when a visible fault escapes,
    something correct is called wrong, or a bug gets a wrong name beyond the stated rates.
    """
    from goldenctl.golden.file import open_golden
    from goldenctl.replay.backend import open_backend

    outputs.check()
    source = open_golden(golden, kind="golden")
    count = source.config.num_hidden_layers
    kept = source.recipe.get("layers") or range(count)
    require_torch("selftest")
    from goldenctl.studies.selftest import Tester, spread

    tester = Tester(
        source,
        recorded_folder(source, model_path),
        backend=open_backend(backend, infini_root=infini_root, notify=_notify),
        layers=parse_layers(layers, count) or (spread(kept) if count > LAYERS else None),
        notify=_notify,
    )
    return deliver(tester.report(), outputs, Shown(verbose=verbose))


def _notify(message: str) -> None:
    click.echo(message, err=True)
