"""``goldenctl synth``: make a random checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import PATH, os_errors_named, progress_bar


@click.command("synth", short_help="Make a random checkpoint")
@click.argument("preset")
@click.argument("out", type=PATH)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same bits.")
def synth_command(preset: str, out: Path, seed: int) -> None:
    """Make a random checkpoint of shape PRESET in the folder OUT.

    \b
    PRESET is tiny (Qwen3), qwen2-tiny, llama-tiny, mistral-tiny,
    qwen3-0.6b or qwen3-1.7b.
    """
    from goldenctl.model.synth import synth

    with os_errors_named(), progress_bar("writing") as progress:
        synth(preset, out, seed, progress=lambda name, done, total: progress(done, total, name))
    click.echo(f"wrote {out}: random weights of shape {preset}, seed {seed}")
