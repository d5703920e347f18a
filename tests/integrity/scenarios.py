"""Commands that write, each with a folder to begin with and what must hold of it afterwards."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from forked import run

from goldenctl.digests import BLAKE3, hex_of, of_file
from goldenctl.errors import GoldenctlError, MissingError
from goldenctl.golden.file import open_golden
from goldenctl.infini.find import find_install
from goldenctl.sets.manifest import read_manifest

SMALL = ["--layers", "0", "--taps", "sublayer", "--token-ids", "1", "--threads", "1"]
STORE = ["--store", "store", "--part-size", "8KiB"]


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
        *_recorded_by_name(folder, model),
        _replayed(folder),
        _manifest(folder),
        _pushed(folder),
        _pulled(folder),
    ]
    return made


def _recorded(folder: Path, model: Path) -> Scenario:
    start = folder / "record"
    start.mkdir()
    _succeed(["synth", "tiny", str(model)], start)
    arguments = ["record", str(model), "g.h5", *SMALL]
    _succeed(arguments, start)
    return Scenario("record", start, [*arguments, "--force"], ("g.h5", "g.h5.times.json"))


def _recorded_by_name(folder: Path, model: Path) -> list[Scenario]:
    """Into a set of two versions, and as the first of another set beside it."""
    start = folder / "record-name"
    start.mkdir()
    record = ["record", str(model), "--name"]
    _succeed([*record, "tiny", *SMALL], start)
    other = [*SMALL[:-3], "2", *SMALL[-2:]]
    assert run([*record, "tiny", *other], start).code == 1, "other tokens are another meaning"
    _succeed(["manifest", "tiny", "--renew"], start)
    changes = ("goldens/tiny/manifest.json", "goldens/tiny/.lock")
    adds = ("v", "manifest.json", ".lock")
    return [
        Scenario("record --name", start, [*record, "tiny", *other], changes, adds),
        Scenario("record --name, a new set", start, [*record, "other", *other], (), adds),
    ]


def _replayed(folder: Path) -> Scenario:
    start = folder / "replay"
    shutil.copytree(folder / "record", start)
    backend = "simulated"
    with contextlib.suppress(MissingError):
        find_install(None)
        backend = "infinicore"
    arguments = ["replay", "g.h5", "run.h5", "--backend", backend, "--force"]
    _succeed(arguments, start)
    return Scenario(f"replay --backend {backend}", start, arguments, ("run.h5",))


def _manifest(folder: Path) -> Scenario:
    start = folder / "manifest"
    shutil.copytree(folder / "record-name", start)
    arguments = ["manifest", "tiny@v1", "--note", "again", "--renew"]
    changes = ("goldens/tiny/manifest.json", "goldens/tiny/.lock")
    return Scenario("manifest", start, arguments, changes)


def _pushed(folder: Path) -> Scenario:
    """The first of two versions is in the store already; the second is cut into parts."""
    start = folder / "push"
    shutil.copytree(folder / "record-name", start)
    (start / "store").mkdir()
    _succeed(["push", "tiny@v1", *STORE], start)
    changes = ("goldens/tiny/.lock",)
    return Scenario("push", start, ["push", "tiny", *STORE], changes, tuple("0123456789abcdef"))


def _pulled(folder: Path) -> Scenario:
    start = folder / "pull"
    shutil.copytree(folder / "push", start)
    _succeed(["push", "tiny", *STORE], start)
    (start / "goldens" / "tiny" / "v2.h5").unlink()
    changes = ("goldens/tiny/.lock",)
    return Scenario("pull", start, ["pull", "tiny@v2", *STORE[:2]], changes, ("v2",))


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
    """Return the temporary files in a folder tree, and what a replay keeps to go on from."""
    found = [*folder.rglob(".*.part*"), *folder.rglob("*.resume")]
    return sorted(str(path.relative_to(folder)) for path in found)


def _visible(folder: Path) -> dict[str, Path]:
    """Every file but temporary ones, by its path in the folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    visible = (p for p in files if ".part" not in p.name.removesuffix(".parts"))
    return {str(p.relative_to(folder)): p for p in visible if ".resume" not in p.parent.name}


def _unsound(name: str, path: Path) -> list[str]:
    """Return why a file is not whole."""
    check = {".h5": _whole_golden, ".json": _whole_json}.get(path.suffix, _whole_blob)
    try:
        check(path)
    except (GoldenctlError, ValueError, AssertionError) as error:
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
        json.loads(path.read_bytes())


def _whole_blob(path: Path) -> None:
    """A blob of a store is named after its digest."""
    if BLAKE3 in path.parts and not path.suffix:
        digest = hex_of(of_file(path))
        assert digest == path.parent.name + path.name, "is not what its name says"
