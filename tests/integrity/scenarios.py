"""Commands that write, each with a folder to begin with and what must hold of it afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from forked import run

from goldenctl.errors import GoldenctlError
from goldenctl.golden.file import open_golden
from goldenctl.golden.manifest import read_manifest

SMALL = ["--layers", "0", "--taps", "sublayer", "--token-ids", "1", "--threads", "1"]


@dataclass(frozen=True)
class Scenario:
    """A command line, run in a copy of ``start``. ``changes`` are the files of ``start`` that it
    may replace, ``adds`` the names that it may add; both must be whole whenever they are seen."""

    name: str
    start: Path
    arguments: list[str]
    changes: tuple[str, ...] = ()
    adds: tuple[str, ...] = ()

    def fresh(self, folder: Path) -> Path:
        """Return ``folder`` as the command finds it."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.start, folder, symlinks=True)
        return folder


def scenarios(folder: Path) -> list[Scenario]:
    """Make the folders to begin with; the commands that make them run in forks."""
    model = folder / "model"
    made = [
        _recorded(folder, model),
        _recorded_by_name(folder, model),
        _replayed(folder),
        _manifest(folder),
    ]
    return made


def _recorded(folder: Path, model: Path) -> Scenario:
    start = folder / "record"
    start.mkdir()
    _succeed(["synth", "tiny", str(model)], start)
    arguments = ["record", str(model), "g.h5", *SMALL]
    _succeed(arguments, start)
    return Scenario("record", start, [*arguments, "--force"], ("g.h5", "g.h5.times.json"))


def _recorded_by_name(folder: Path, model: Path) -> Scenario:
    start = folder / "record-name"
    start.mkdir()
    arguments = ["record", str(model), "--name", "tiny", *SMALL]
    _succeed(arguments, start)
    _succeed([*arguments[:-1], "2"], start)
    changes = ("goldens/tiny/manifest.json", "goldens/tiny/.lock")
    return Scenario("record --name", start, arguments, changes, ("v", "manifest.json"))


def _replayed(folder: Path) -> Scenario:
    start = folder / "replay"
    shutil.copytree(folder / "record", start)
    arguments = ["replay", "g.h5", "run.h5", "--backend", "simulated"]
    _succeed(arguments, start)
    return Scenario("replay", start, arguments, ("run.h5",))


def _manifest(folder: Path) -> Scenario:
    start = folder / "manifest"
    shutil.copytree(folder / "record-name", start)
    arguments = ["manifest", "tiny@v1", "--note", "again"]
    changes = ("goldens/tiny/manifest.json", "goldens/tiny/.lock")
    return Scenario("manifest", start, arguments, changes)


def _succeed(arguments: list[str], folder: Path) -> None:
    ended = run(arguments, folder)
    assert ended.code == 0, f"{arguments}: {ended}"


def problems(scenario: Scenario, folder: Path) -> list[str]:
    """Return what is not as it must be after the command ended, however it did."""
    before, after = _visible(scenario.start), _visible(folder)
    found = [f"{name} is gone" for name in before if name not in after]
    for name, path in after.items():
        if name in before and name not in scenario.changes:
            if path.read_bytes() != before[name].read_bytes():
                found.append(f"{name} was changed")
        elif name not in before and not path.name.startswith(scenario.adds or "\0"):
            found.append(f"{name} was added")
        else:
            found += _unsound(name, path)
    return found


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files in a folder tree."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob(".*.part*"))


def _visible(folder: Path) -> dict[str, Path]:
    """Every file but temporary ones, by its path in the folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p for p in files if ".part" not in p.name}


def _unsound(name: str, path: Path) -> list[str]:
    """Return why a file is not whole."""
    check = {".h5": _whole_golden, ".json": _whole_json}.get(path.suffix, lambda _: None)
    try:
        check(path)
    except (GoldenctlError, ValueError) as error:
        return [f"{name}: {error}"]
    return []


def _whole_golden(path: Path) -> None:
    file = open_golden(path)
    for name in file.tensors:
        file.verify(name)


def _whole_json(path: Path) -> None:
    if path.name == "manifest.json":
        read_manifest(path)
    else:
        import json

        json.loads(path.read_bytes())


Check = Callable[[Path], None]
