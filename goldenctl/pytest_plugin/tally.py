"""What a test run has done to golden files, and which of them nobody used.

Under pytest-xdist each worker has a tally, and hands it over as plain data at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from goldenctl.pytest_plugin.places import FOLDER

SUFFIXES = (".h5", ".json")


@dataclass
class Tally:
    """``written`` and ``unused`` tensors by file, ``idle`` ones where a test that passed compared
    none of its tensors; the files that collected tests own, by the
    folder of their module; the names of modules that were collected only in part."""

    written: dict[str, list[str]] = field(default_factory=dict)
    unused: dict[str, list[str]] = field(default_factory=dict)
    idle: dict[str, list[str]] = field(default_factory=dict)
    owned: dict[str, set[str]] = field(default_factory=dict)
    in_part: set[str] = field(default_factory=set)

    def own(self, path: Path) -> None:
        """Note that a collected test owns the golden ``path``, whether or not it has one."""
        self.owned.setdefault(str(path.parent), set()).add(path.name)

    def partial(self, module: Path) -> None:
        self.in_part.add(module.with_suffix("").name)

    def to_plain(self) -> dict[str, Any]:
        return {
            "written": self.written,
            "unused": self.unused,
            "idle": self.idle,
            "owned": {folder: sorted(names) for folder, names in self.owned.items()},
            "in_part": sorted(self.in_part),
        }

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Tally:
        return Tally(
            plain["written"],
            plain["unused"],
            plain["idle"],
            {folder: set(names) for folder, names in plain["owned"].items()},
            set(plain["in_part"]),
        )

    def merge(self, other: Tally) -> None:
        for name in ("written", "unused", "idle"):
            mine, theirs = getattr(self, name), getattr(other, name)
            for file, names in theirs.items():
                mine[file] = sorted({*mine.get(file, ()), *names})
        for folder, owned in other.owned.items():
            self.owned.setdefault(folder, set()).update(owned)
        self.in_part |= other.in_part

    def lines(self, root: Path) -> list[str]:
        """Say what was written and what nobody used; nothing when there is nothing to say."""
        lines = [
            f"wrote {_shown(file, root)}: {', '.join(names)}"
            for file, names in sorted(self.written.items())
        ]
        lines += [
            f"unused in {_shown(file, root)}: {', '.join(names)} (--golden-update removes them)"
            for file, names in sorted(self.unused.items())
        ]
        lines += [
            f"nothing was compared with {_shown(file, root)}: {', '.join(names)}"
            for file, names in sorted(self.idle.items())
        ]
        orphans = [f"unused: {_shown(path, root)}" for path in self._orphans()]
        return lines + orphans + (["delete them when their tests are gone"] if orphans else [])

    def _orphans(self) -> list[str]:
        """The golden files beside collected modules that no collected test owns."""
        found = []
        for folder, names in self.owned.items():
            if Path(folder).name not in self.in_part:
                found += [path for path in _golden_files(Path(folder)) if path.stem not in names]
        for parent in {Path(folder).parent for folder in self.owned}:
            if parent.name == FOLDER and parent.is_dir():
                gone = (each for each in parent.iterdir() if _module_is_gone(each))
                found += [each for each in gone if str(each) not in self.owned]
        return sorted(map(str, found))


def _golden_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    paths = (path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in paths if path.suffix in SUFFIXES]


def _module_is_gone(folder: Path) -> bool:
    """Whether a folder of golden files, which is not a golden set, has lost its test module."""
    module = folder.parent.parent / f"{folder.name}.py"
    is_set = (folder / "manifest.json").exists()
    return folder.is_dir() and not is_set and not module.exists() and bool(_golden_files(folder))


def _shown(file: str, root: Path) -> str:
    path = Path(file)
    return str(path.relative_to(root)) if path.is_relative_to(root) else file
