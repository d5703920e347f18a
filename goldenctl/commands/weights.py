"""The opening of a checkpoint for a command, and what its user is told of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.records.units import plural

if TYPE_CHECKING:
    from goldenctl.golden.selection import Selection
    from goldenctl.model.checkpoint import Checkpoint


def open_weights(folder: Path, selection: Selection, *, verbose: bool) -> Checkpoint:
    """Return the checkpoint, which has every weight that a recording of ``selection`` reads.

    What the user should know of it is printed on standard error. Raises as
    ``Checkpoint.check_against`` does, ``verbose`` with all that is wrong.
    """
    from goldenctl.golden.layout import weights_read
    from goldenctl.model.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(folder)
    read = weights_read(checkpoint.config, selection)
    unread = checkpoint.check_against(checkpoint.config, read=read, verbose=verbose)
    for note in notes(checkpoint, unread, verbose=verbose):
        click.echo(f"{folder}: {note}", err=True)
    return checkpoint


def notes(checkpoint: Checkpoint, unread: tuple[str, ...], *, verbose: bool) -> Iterator[str]:
    """Yield a line for each thing about the weights that is not as usual."""
    from goldenctl.model.fit import LISTED, listed, of_layers
    from goldenctl.model.shards import INDEX
    from goldenctl.model.weight_names import grouped, is_known_to_transformers

    odd = [pair for pair in checkpoint.renamed.items() if not is_known_to_transformers(*pair)]
    if pairs := odd or (list(checkpoint.renamed.items()) if verbose else []):
        stored, name = pairs[0]
        tail = ", which transformers would not find" if odd else ""
        yield f"{plural(len(pairs), 'tensor')} read by other names: {stored} as {name}{tail}"
    if checkpoint.untied:
        yield (
            "config.json ties the embeddings, but lm_head.weight holds other values: it is read, "
            "as transformers 5 reads it"
        )
    if verbose and checkpoint.files.misplaced:
        count = plural(checkpoint.files.misplaced, "tensor")
        yield f"{INDEX} is stale: {count} are not where it says"
    strange = of_layers(unread)
    if strange:
        names = listed(grouped(strange), None if verbose else LISTED)
        yield f"the model of config.json has no {names}: ignored, as transformers ignores it"
    if rest := [name for name in unread if name not in strange]:
        count = plural(len(rest), "tensor")
        names = f": {listed(grouped(rest), None)}" if verbose else "; -v names them"
        yield f"{count} not read{names}"
