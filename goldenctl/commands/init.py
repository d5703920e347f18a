"""``goldenctl init``: a folder of golden sets that git keeps the right part of."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import PATH, os_errors_named
from goldenctl.errors import UsageError

_GITIGNORE = """\
# Written by goldenctl init: git keeps the manifests, not the goldens.
# A small golden may be committed: git add -f NAME/v1.h5
*.h5
*.times.json
*.part
*.resume/
.lock
"""
_GITATTRIBUTES = """\
# Written by goldenctl init.
# Two branches' manifests are not merged line by line: a mix describes no golden.
manifest.json text eol=lf -merge
*.h5 binary
# To keep goldens with git-lfs, take the next line's # away and *.h5 out of .gitignore:
# *.h5 filter=lfs diff=lfs merge=lfs -text
"""
_FILES = {".gitignore": _GITIGNORE, ".gitattributes": _GITATTRIBUTES}


@click.command("init", short_help="Make a folder of golden sets")
@click.argument("folder", metavar="[DIR]", type=PATH, required=False)
def init_command(folder: Path | None) -> None:
    """Make DIR a folder of golden sets: write .gitignore and .gitattributes in it.

    DIR is by default $GOLDENS_DIR, else goldens. An existing file with other content is never
    changed.
    """
    from goldenctl.atomic import write_whole
    from goldenctl.sets.names import goldens_folder

    folder = goldens_folder(folder)
    with os_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        new = {name: text for name, text in _FILES.items() if not _is_there(folder / name, text)}
    for name, text in new.items():
        write_whole(folder / name, text.encode())
        click.echo(f"wrote {folder / name}")
    if not new:
        click.echo(f"{folder} is one already")
    else:
        click.echo(f"next: goldenctl record CHECKPOINT --name NAME --goldens {folder}")


def _is_there(path: Path, text: str) -> bool:
    """Whether the file is as it should be; UsageError when it is another one."""
    if not path.exists() and not path.is_symlink():
        return False
    if path.is_file() and path.read_bytes() == text.encode():
        return True
    message = f"{path}: it exists and says something else; nothing was changed"
    raise UsageError(message, hint="docs/goldens.md shows the lines to add")
