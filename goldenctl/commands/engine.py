"""Which engine replays, and from which checkpoint: the options that commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from goldenctl.commands.options import notify, recorded_folder
from goldenctl.errors import UsageError
from goldenctl.flags import flag

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile
    from goldenctl.replay.backend import Backend


@dataclass(frozen=True)
class Engine:
    """A backend by name, where its InfiniCore is, and where the checkpoint has moved to."""

    backend: str = flag(
        "infinicore", "infinicore, torch, simulated, or exec:PROGRAM.", metavar="NAME", shown=True
    )
    model_path: Path | None = flag(
        None, "Where the checkpoint is now, if it has moved.", kind="path"
    )
    module: str | None = flag(
        None,
        "For a golden of modules: the function that returns the module and its inputs, the one "
        "recorded or a port of it.",
        metavar="PACKAGE:FUNCTION",
    )
    infini_root: Path | None = flag(None, "InfiniCore's install folder.", kind="path")

    @property
    def simulated(self) -> bool:
        return self.backend == "simulated"

    def open(self, *, quiet: bool = False) -> Backend:
        """Return the backend, built where it must be; raises MissingError or UsageError."""
        from goldenctl.replay.backend import open_backend

        said = silent if quiet else notify
        return open_backend(self.backend, infini_root=self.infini_root, notify=said)

    def folder(self, golden: GoldenFile) -> Path:
        """Return the checkpoint that a golden was recorded from; raises MissingError."""
        return recorded_folder(golden, self.model_path)

    def refuse_simulated(self, why: str) -> None:
        """Raise UsageError, saying ``why``, for the simulated backend."""
        if self.simulated:
            raise UsageError(why, hint="use infinicore, torch or exec:PROGRAM")


def silent(_message: str) -> None:
    """Say nothing."""
