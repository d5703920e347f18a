"""``goldenctl include``: where the header is that an engine taps its own tensors with."""

from __future__ import annotations

from pathlib import Path

import click

_INCLUDE = Path(__file__).parent.parent / "include"


@click.command("include", short_help="Print where goldenctl_tap.h is")
@click.option(
    "--cmake", is_flag=True, help="Print the folder of goldenctlConfig.cmake, for goldenctl_DIR."
)
def include_command(*, cmake: bool) -> None:
    """Print the folder of goldenctl_tap.h, with which a C or C++ engine writes its own tensors.

    \b
    c++ -I"$(goldenctl include)" engine.cpp
    cmake -Dgoldenctl_DIR="$(goldenctl include --cmake)" ...
    """
    click.echo(str(_INCLUDE / "cmake" if cmake else _INCLUDE))
