"""What commands share: option types, parsing of small values, progress on the terminal."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
from click.core import ParameterSource

from goldenctl.errors import MissingError, UsageError
from goldenctl.records.units import human_bytes as human_bytes
from goldenctl.records.units import human_ns as human_ns
from goldenctl.records.units import plural as plural
from goldenctl.sets.names import GOLDENS_ENVIRONMENT
from goldenctl.sets.resolve import resolve

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile


class _Path(click.Path):
    """A path that is not empty: Path("") would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty", param, ctx)
        if value == "-":
            self.fail("is not a file; use /dev/stdin or /dev/stdout for a pipe", param, ctx)
        return super().convert(value, param, ctx)


class _Text(click.types.StringParamType):
    """Text that can be encoded; bytes of the command line that are not UTF-8 are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = super().convert(value, param, ctx)
        if any("\ud800" <= char <= "\udfff" for char in text):
            self.fail("is not UTF-8 text", param, ctx)
        return text


class FiniteRange(click.FloatRange):
    """A range of numbers without NaN and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number", param, ctx)
        return number


class _Golden(_Path):
    """A golden: NAME or NAME@vN of a set (found by --goldens), or a path."""

    name = "golden"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        goldens = ctx.meta.get(_GOLDENS) if ctx is not None else None
        return resolve(value, goldens) if isinstance(value, str) else path


class _GoldenOrFolder(_Golden):
    """A golden, or a folder of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except UsageError:
            if Path(value).is_dir():
                return Path(value)
            raise


class _Out(_Path):
    """A file to write; - is standard output."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return STANDARD_OUTPUT if value == "-" else super().convert(value, param, ctx)


STANDARD_OUTPUT = Path("-")
_GOLDENS = "goldenctl.goldens"


class _Dtypes(click.ParamType[tuple[str, ...]]):
    """Dtypes joined by commas, each once."""

    name = "dtypes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(","))
        wrong = [name for name in names if name not in DTYPE.choices]
        if wrong or len(set(names)) < len(names):
            what = f"{wrong[0]!r} is not a dtype" if wrong else "a dtype is given twice"
            self.fail(f"{what}, expected such as {','.join(list(DTYPE.choices)[:3])}", param, ctx)
        return names


class _Bytes(click.ParamType[int]):
    """A size such as 4GiB, 500MB or 1048576."""

    name = "size"
    _units: ClassVar[dict[str, int]] = {
        unit: factor**power
        for factor, suffix in ((1000, "B"), (1024, "iB"))
        for power, unit in enumerate(("", *(f"{letter}{suffix}" for letter in "KMGT")))
    } | {"B": 1}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*", str(value))
        units = {unit.lower(): size for unit, size in self._units.items()}
        if match is None or match[2].lower() not in units:
            self.fail(f"{value!r} is not a size such as 4GiB or 500MB", param, ctx)
        return int(float(match[1]) * units[match[2].lower()])


class _Layers(click.ParamType[frozenset[int]]):
    """Layers such as 0-4,10."""

    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        layers: set[int] = set()
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if first > last:
                self.fail(f"{part!r} is not a layer or range, such as 0-4,10", param, ctx)
            layers.update(range(first, last + 1))
        return frozenset(layers)


class _Fault(click.ParamType[Any]):
    """A fault and where to put it: FAULT or FAULT@PLACE."""

    name = "fault"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from goldenctl.ops.inject import parse_injection

        return parse_injection(value)


PATH = _Path(path_type=Path)
BYTES = _Bytes()
DTYPES = _Dtypes()
GOLDEN = _Golden(path_type=Path)
GOLDEN_OR_FOLDER = _GoldenOrFolder(path_type=Path)
OUT = _Out(path_type=Path)
TEXT = _Text()
LAYERS = _Layers()
FAULT = _Fault()
DTYPE = click.Choice(["float32", "bfloat16", "float16", "float64"])
Progress = Callable[[int, int, str], None]
_TELL_EVERY_S = 10.0


def check_layers(layers: frozenset[int] | None, count: int) -> frozenset[int] | None:
    """Return the layers of ``--layers``; raises UsageError for one that the model does not have."""
    if layers is not None and max(layers) >= count:
        message = f"--layers: layer {max(layers)} does not exist, the model has {count}"
        raise UsageError(message)
    return layers


def _keep_goldens(ctx: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
    ctx.meta[_GOLDENS] = value
    return value


def goldens_option(*, expose: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--goldens DIR``, which arguments of type GOLDEN are looked up in.

    It is parsed before them; with ``expose`` the command gets it too, as ``goldens``.
    """
    return click.option(
        "--goldens",
        type=PATH,
        envvar=GOLDENS_ENVIRONMENT,
        is_eager=True,
        expose_value=expose,
        callback=_keep_goldens,
        metavar="DIR",
        help="Folder of golden sets; by default $GOLDENS_DIR, else goldens.",
    )


strict_option = click.option(
    "--strict",
    is_flag=True,
    help="Fail on what is otherwise only noted, such as truncated results.",
)


def was_given(name: str) -> bool:
    """Whether the option of this name stands on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def notify(message: str) -> None:
    """Say what is being done, on standard error."""
    click.echo(message, err=True)


def model_folder(source: str | Path) -> Path:
    """Return the checkpoint's folder; a ``synth:`` one is made when it is not there, and says
    so on standard error."""
    from goldenctl.model.source import checkpoint_folder

    return checkpoint_folder(source, notify=notify)


def existing_folder(checkpoint: Path) -> Path:
    """Return the checkpoint's folder; MissingError, with the way to get it, without one."""
    from goldenctl.families import PRESETS

    folder = model_folder(checkpoint)
    if folder.is_dir():
        return folder
    hint, name = "a checkpoint is a folder with config.json and *.safetensors", checkpoint.name
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(checkpoint)):
        hint = f"a model of the Hugging Face Hub? hf download {checkpoint} --local-dir {name}"
        hint += f", then record {name}"
    elif name in PRESETS:
        hint = f"a preset? synth:{name} has random weights of that shape"
    what = "is a file, not a folder" if folder.exists() else "there is no such folder"
    message = f"{checkpoint}: {what}"
    raise MissingError(message, hint=hint)


def recorded_folder(golden: GoldenFile, model_path: Path | None) -> Path:
    """Return the folder of the checkpoint that a golden was recorded from, or ``model_path``.

    Raises MissingError where the recorded one is not here.
    """
    source = str(model_path or golden.recipe["model"]["path"])
    folder = model_folder(source)
    if model_path is None and not folder.is_dir():
        message = f"{golden.path}: was recorded from {source}, which is not a folder here"
        raise MissingError(message, hint="name the checkpoint with --model-path")
    return folder


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a progress bar on standard error when that is a terminal; else a line now and then."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[item]}"),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None, item="")

        told = time.monotonic()

        def update(done: int, total: int, item: str) -> None:
            nonlocal told
            bar.update(task, completed=done, total=total, item=escape(item))
            if not console.is_terminal and time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                notify(f"{title}: {done:,} of {total:,}{f', {item}' if item else ''}")

        yield update


@contextmanager
def os_errors_named(where: Path) -> Iterator[None]:
    """Turn an error of the file system into one line that names its path; ``where`` when the
    error names none, as that of a full disk."""
    try:
        yield
    except OSError as error:
        msg = f"{error.filename or where}: {error.strerror or error}"
        raise UsageError(msg) from error
