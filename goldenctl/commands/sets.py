"""What the commands on golden sets share: recording into a set, and saying what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.options import human_bytes, plural, progress_bar
from goldenctl.commands.targets import refuse_existing
from goldenctl.errors import EXIT_BEYOND_TOLERANCE, UsageError

if TYPE_CHECKING:
    from goldenctl.records.policy import Policy
    from goldenctl.sets.names import GoldenSet

# Prints what was done. Printing may fail, so it comes when all that belongs together is written.
Tell = Callable[[], None]


@dataclass(frozen=True)
class Destination:
    """Where a recording goes: the file ``golden``, or the next version of the set ``name``."""

    golden: Path | None
    name: str | None
    goldens: Path | None
    note: str = ""
    force: bool = False
    resume: bool = False

    def check(self) -> None:
        """Raise UsageError for two places or none, for a version that would be replaced, and
        for a note that nothing would keep."""
        if (self.golden is None) == (self.name is None):
            message = "record needs either GOLDEN, the file to write, or --name, the set"
            raise UsageError(message)
        if self.name is not None and self.force:
            message = "--force: a version of a golden set is never changed"
            raise UsageError(message, hint="goldenctl rm removes one")
        if self.name is None and self.note:
            message = "--note: stands in the history of a golden set, and GOLDEN is of none"
            raise UsageError(message, hint="leave it out, or give --name in place of GOLDEN")

    def was_finished(self) -> bool:
        """Whether the golden had its name already when its recording was interrupted; says so.

        Raises UsageError when another file would be replaced.
        """
        if self.golden is None:
            return False
        if self.resume and _forget_finished(self.golden):
            _tell_finished(self.golden)
            return True
        refuse_existing(self.golden, force=self.force)
        return False

    def record(self, run: Callable[[Path], Tell]) -> int:
        """Let ``run`` write the golden and tell it; return the exit code."""
        if self.golden is not None:
            run(self.golden)()
            return 0
        from goldenctl.sets.names import open_set

        assert self.name is not None
        found = open_set(self.name, self.goldens)
        return _record_version(found, run, note=self.note, resume=self.resume)


def _forget_finished(golden: Path) -> bool:
    from goldenctl.golden.journal import Journal

    return golden.exists() and Journal(golden, {}).forget_finished()


def _tell_finished(golden: Path) -> None:
    click.echo(f"{golden} was finished before it was interrupted")


def _record_version(
    golden_set: GoldenSet, run: Callable[[Path], Tell], *, note: str, resume: bool
) -> int:
    """Record the next version of a set and settle what becomes of it; return the exit code.

    The set is held meanwhile. The first version gets a manifest; a later one is sorted
    against the version that the manifest describes, which stays as it is.
    """
    from goldenctl.atomic import remove_leftovers
    from goldenctl.sets.names import locked
    from goldenctl.sets.renew import manifest_or_none, next_version, restore

    with locked(golden_set):
        remove_leftovers(golden_set.manifest_path, of_all=True)  # of other versions too
        manifest = manifest_or_none(golden_set)
        version = next_version(golden_set, manifest)
        if resume and _forget_finished(golden_set.path(version - 1)):
            version -= 1
            tell: Tell = partial(_tell_finished, golden_set.path(version))
        else:
            tell = run(golden_set.path(version))
        if manifest is None:
            code = renew(golden_set, version, note=note, tell=tell)
            _say_init(golden_set)
            return code
        restored = restore(golden_set, manifest, version) != version
        tell()
        if restored:
            click.echo(
                f"the same bytes as {golden_set.name}@v{manifest.version}, which was not here: "
                f"it is {golden_set.path(manifest.version)} now"
            )
            return 0
        return _settle(golden_set, version)


def _say_init(golden_set: GoldenSet) -> None:
    """With the first set of a folder, say what keeps its goldens out of git."""
    from goldenctl.sets.names import list_sets

    folder = golden_set.folder.parent
    if len(list_sets(folder)) == 1 and not (folder / ".gitignore").exists():
        click.echo(f"next: goldenctl init {folder} keeps the goldens themselves out of git")


def _settle(golden_set: GoldenSet, version: int) -> int:
    """Say what a new version changes, and what to do with it; return the exit code."""
    from goldenctl.report.render_console import show
    from goldenctl.report.triage import triage_view
    from goldenctl.sets.renew import compare_versions, manifest_or_none

    manifest = manifest_or_none(golden_set)
    assert manifest is not None
    with progress_bar("comparing") as progress:
        triage = compare_versions(golden_set, manifest, version, progress=progress)
    show(triage_view(triage))
    name, current = golden_set.name, manifest.version
    click.echo(f"{golden_set.manifest_path} still describes v{current}")
    if not triage.ok:
        click.echo(f"if v{version} is right: goldenctl manifest {name}@v{version} --renew")
        return EXIT_BEYOND_TOLERANCE
    if not golden_set.path(current).exists():
        click.echo(
            f"v{current} is not here; to take v{version} instead: goldenctl manifest "
            f"{name}@v{version}"
        )
    elif triage.of("closer"):
        click.echo(f"to take v{version} instead: goldenctl manifest {name}@v{version}")
    else:
        click.echo(f"v{version} is not needed: goldenctl gc {name} --delete removes it")
    return 0


def renew(
    golden_set: GoldenSet,
    version: int,
    *,
    tolerance: Policy | None = None,
    note: str = "",
    force: bool = False,
    tell: Tell = lambda: None,
) -> int:
    """Write or renew a held set's manifest and say what changes, after ``tell``; return the exit
    code."""
    from goldenctl.report.render_console import show
    from goldenctl.report.triage import triage_view
    from goldenctl.sets.renew import renewal

    with progress_bar("describing") as progress:
        new = renewal(golden_set, version, tolerance=tolerance, note=note, progress=progress)
    refused = new.triage is not None and not new.triage.ok and not force
    changes = new.changes()
    written = not refused and (new.before is None or bool(changes))
    if written:
        new.write()
    tell()
    if new.triage is not None:
        show(triage_view(new.triage))
    if refused:
        click.echo(f"{new.path} was not changed; pass --renew if v{version} is right")
        return EXIT_BEYOND_TOLERANCE
    if not written:
        click.echo(f"{new.path} is up to date: v{version}")
        return 0
    size = human_bytes(new.path.stat().st_size)
    click.echo(
        f"wrote {new.path}: v{version}, {plural(len(new.manifest.tensors), 'tensor')}, {size}"
    )
    for change in changes:
        click.echo(f"  {change}")
    return 0
