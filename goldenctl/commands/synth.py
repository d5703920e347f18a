"""``goldenctl synth``: make a random checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from goldenctl.commands.options import PATH, os_errors_named, progress_bar


class _ListsPresets(click.Command):
    """A command whose help ends in the presets that there are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from goldenctl.families import PRESETS

        with formatter.section("Presets"):
            formatter.write_dl([(name, _described(shape)) for name, shape in PRESETS.items()])


def _described(shape: dict[str, Any]) -> str:
    layers, width = shape["num_hidden_layers"], shape["hidden_size"]
    return f"{shape['model_type']}, {layers} layers, hidden size {width}"


@click.command("synth", cls=_ListsPresets, short_help="Make a random checkpoint")
@click.argument("preset")
@click.argument("out", type=PATH)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same bits.")
def synth_command(preset: str, out: Path, seed: int) -> None:
    """Make a random checkpoint of shape PRESET in the folder OUT."""
    from goldenctl.model.synth import synth

    with os_errors_named(out), progress_bar("writing") as progress:
        synth(preset, out, seed, progress=lambda name, done, total: progress(done, total, name))
    click.echo(f"wrote {out}: random weights of shape {preset}, seed {seed}")
