"""Goldens whose recipe or tensors were forged, shown to every command that reads them.

``python tests/integrity/recipes.py [--count N] [--seed N]`` tries N forgeries (0: all) and ends
with exit code 1 when a command ended otherwise than with its result or one line.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from attempt import attempt
from campaign import LIMIT_S, MEMORY_BYTES, Tally
from mutate import Mutation

from goldenctl import cli
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.schema import TensorSpec
from goldenctl.golden.writer import GoldenWriter
from goldenctl.model.synth import synth

ODD_VALUES: tuple[Any, ...] = (
    None, [], {}, [[]], {"a": {}}, "", "x", "../../etc/passwd", "\x1b[2J\n", "\x00", "x" * 5000,
    -1, 0, 3, 1 << 62, 10**30, 1.5, 1e308, True,
)  # fmt: skip
REMOVED = object()
ENGINE = "#!/bin/sh\nexit 7\n"


@dataclass(frozen=True)
class Bench:
    """A recorded golden and a run of it, and a checkpoint and an engine to replay with."""

    folder: Path
    golden: Path
    run: Path
    checkpoint: Path
    engine: Path

    @staticmethod
    def of(folder: Path) -> Bench:
        """Record the tiny model; torch is imported."""
        bench = Bench(*(folder / n for n in ("", "golden.h5", "run.h5", "model", "engine")))
        synth("tiny", bench.checkpoint)
        bench.engine.write_text(ENGINE)
        bench.engine.chmod(0o755)
        record = ["record", str(bench.checkpoint), str(bench.golden), "--token-ids", "1,2"]
        simulated = ["--backend", "simulated"]
        for command in (
            [*record, "--layers", "0", "--oracle"],
            ["replay", str(bench.golden), str(bench.run), *simulated],
        ):
            with contextlib.redirect_stdout(io.StringIO()):
                assert cli.run(command) == 0
        return bench

    def commands(self, golden: Path, run: Path) -> Iterator[list[str]]:
        """Yield the command lines that read a golden, a run, or both."""
        out, files = str(self.folder / "out.h5"), (str(golden), str(run))
        engine = ["--backend", f"exec:{self.engine}", "--model-path", str(self.checkpoint)]
        yield ["inspect", files[0]]
        yield ["inspect", files[1]]
        yield ["diff", *files]
        replay = ["replay", files[0], out, "--force"]
        yield [*replay, "--backend", "simulated"]
        yield [*replay, *engine]
        yield [*replay, *engine, "--mode", "op"]
        yield [*replay, "--backend", f"exec:{self.engine}", "--layers", "0"]
        yield ["blame", files[0], *engine]


def forged_recipes(recipe: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what was changed and the recipe, for every place in it and every odd value."""
    for place in _places(recipe):
        for value in (REMOVED, *ODD_VALUES):
            changed = copy.deepcopy(dict(recipe))
            at: Any = changed
            for key in place[:-1]:
                at = at[key]
            if value is REMOVED:
                del at[place[-1]]
            else:
                at[place[-1]] = value
            said = "removed" if value is REMOVED else repr(value)[:20]
            yield f"recipe {'.'.join(map(str, place))} {said}", changed


def _places(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*prefix, key)
        if isinstance(inner, dict | list):
            yield from _places(inner, (*prefix, key))


def forged_tensors(golden: GoldenFile) -> Iterator[tuple[str, dict[str, TensorSpec]]]:
    """Yield what was changed and the specs by name: shapes, types, roles, names that do not fit."""
    specs = {
        i.name: TensorSpec(i.name, i.dtype, i.shape, i.dims, i.role, i.op)
        for i in golden.tensors.values()
    }
    for name, spec in specs.items():
        rank, dims = len(spec.shape), (*spec.dims, "extra")
        odd = {
            "removed": None,
            "a row less": (spec.dtype, (*spec.shape[:-1], max(spec.shape[-1] - 1, 0))),
            "empty": (spec.dtype, (0,) * rank),
            "one dimension less": (spec.dtype, spec.shape[1:]),
            "one dimension more": (spec.dtype, (*spec.shape, 1)),
            "integers": ("int64", spec.shape),
            "wide": ("float64", spec.shape),
        }
        for what, change in odd.items():
            changed = dict(specs)
            if change is None:
                del changed[name]
            else:
                dtype, shape = change
                new = TensorSpec(name, dtype, shape, dims[: len(shape)], spec.role, spec.op)
                changed[name] = new
            yield f"{name} {what}", changed


def forge(
    golden: GoldenFile,
    path: Path,
    recipe: Mapping[str, Any],
    specs: Mapping[str, TensorSpec] | None = None,
) -> None:
    """Write a golden or run again, with right digests, as another."""
    specs = specs or {
        i.name: TensorSpec(i.name, i.dtype, i.shape, i.dims, i.role, i.op)
        for i in golden.tensors.values()
    }
    links = {link: name for link, name in golden.aliases.items() if name in specs}
    with GoldenWriter(
        path,
        kind=golden.kind,
        recipe=recipe,
        tensors=list(specs.values()),
        links=links,
        groups=list(golden.sublayers),
    ) as writer:
        for name, spec in specs.items():
            data = golden.map(name).tobytes()[: spec.nbytes].ljust(spec.nbytes, b"\0")
            writer.write(name, memoryview(data))
        writer.seal(simulated=golden.simulated, sublayers=list(golden.sublayers.values()))


def ending(commands: list[list[str]]) -> str:
    """Run the commands and say ``fine``, or what one said that it should not."""
    for arguments in commands:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run(arguments)
        lines = err.getvalue().splitlines()
        notes = [line for line in lines if not line.startswith("replaying")]
        if code not in range(5) or len(notes) > 1 or (code > 1 and len(notes) != 1):
            return f"BAD {arguments[0]} {code}: {' | '.join(lines)[:300]}"
        if not all(line.isprintable() for line in (*lines, *out.getvalue().splitlines())):
            return f"BAD {arguments[0]} {code}: unprintable output"
    return "fine"


def forgeries(bench: Bench) -> Iterator[tuple[str, str, Mapping[str, Any], Any]]:
    """Yield (what, golden or run, recipe, specs) for everything that can be forged."""
    golden, run = open_golden(bench.golden), open_golden(bench.run)
    for file in (golden, run):
        for what, recipe in forged_recipes(file.recipe):
            yield what, file.kind, recipe, None
        for what, specs in forged_tensors(file):
            yield what, file.kind, file.recipe, specs


def try_forgeries(bench: Bench, *, count: int, seed: int) -> Tally:
    """Forge ``count`` files of all that can be forged (0: all), and run every command on each."""
    every = list(forgeries(bench))
    random = np.random.Generator(np.random.PCG64(seed))
    chosen = random.permutation(len(every))[: count or len(every)]
    forged = bench.folder / "forged.h5"
    tally = Tally()
    for index in chosen:
        what, kind, recipe, specs = every[index]
        source = open_golden(bench.golden if kind == "golden" else bench.run)
        forge(source, forged, recipe, specs)
        pair = (forged, bench.run) if kind == "golden" else (bench.golden, forged)
        run = partial(ending, list(bench.commands(*pair)))
        end = attempt(run, limit_s=LIMIT_S, memory_bytes=MEMORY_BYTES)
        word = end.word.split(" ")[0]
        tally.add(Mutation(f"{kind} {what}", b""), end, word, fine=word == "fine")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = try_forgeries(Bench.of(Path(folder)), count=options.count, seed=options.seed)
    sys.stdout.write(f"forged goldens and runs: {tally}\n")
    for word, mutation in tally.bad:
        sys.stdout.write(f"  {mutation.kind}: {word}\n")
    return 1 if tally.bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
