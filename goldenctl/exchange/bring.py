"""Import: a run file from another engine's dump, a golden or run from its own export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from goldenctl import digests
from goldenctl.atomic import write_whole
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError
from goldenctl.exchange.assign import Assignment
from goldenctl.exchange.catalog import Catalog, sublayer_infos
from goldenctl.exchange.catalog import Tensor as CatalogTensor
from goldenctl.exchange.fit import Fit, convert
from goldenctl.exchange.namemap import NameMap, encode
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import SublayerInfo, TensorSpec
from goldenctl.golden.times import Times, times_path
from goldenctl.golden.writer import GoldenWriter
from goldenctl.places import place

Progress = Callable[[int, int, str], None]


def restore(
    path: Path,
    catalog: Catalog,
    read: Callable[[CatalogTensor], np.ndarray],
    *,
    where: str,
    progress: Progress = lambda *_: None,
) -> None:
    """Write the golden or run of a catalog; ``read`` returns a tensor's bytes.

    Raises DamagedError when they do not match their digest; nothing is then at ``path``.
    """
    tensors = [tensor.spec for tensor in catalog.tensors]
    groups = [sublayer.name for sublayer in catalog.sublayers]
    recipe = _restored_recipe(catalog)
    with GoldenWriter(
        path, kind=catalog.kind, recipe=recipe, tensors=tensors, links=catalog.links, groups=groups
    ) as writer:
        done = 0
        for tensor in catalog.tensors:
            progress(done, catalog.nbytes, tensor.name)
            data = read(tensor)
            if not digests.matches(tensor.digest, data.data):
                message = f"{where}: {tensor.name} does not match its digest"
                raise DamagedError(message, hint="export the golden again")
            writer.write(tensor.name, data.data)
            done += data.nbytes
        writer.seal(
            sublayers=sublayer_infos(catalog),
            digests={tensor.name: tensor.digest for tensor in catalog.tensors},
            times_ns={tensor.name: tensor.time_ns for tensor in catalog.tensors},
            simulated=catalog.simulated,
        )
    if catalog.kind == "golden":
        _restore_times(path, catalog)


def _restore_times(path: Path, catalog: Catalog) -> None:
    """Say beside a golden when it was recorded, not when it was imported."""
    time_ns = {t.name: t.time_ns for t in catalog.tensors}
    time_ns |= {s.name: s.time_ns for s in catalog.sublayers}
    iqr_ns = {t.name: t.iqr_ns for t in catalog.tensors if t.iqr_ns}
    iqr_ns |= {s.name: s.iqr_ns for s in catalog.sublayers if s.iqr_ns}
    times = Times(catalog.content_digest, catalog.created_utc, time_ns, iqr_ns)
    write_whole(times_path(path), msgspec.json.encode(times) + b"\n")


def import_run(
    path: Path,
    golden: GoldenFile,
    mapping: NameMap,
    assignment: Assignment,
    *,
    dump: Path,
    progress: Progress = lambda *_: None,
) -> None:
    """Write a run of ``golden`` from a dump's tensors; DamagedError when one cannot be read."""
    specs = [
        TensorSpec(info.name, _dtype(fits), info.shape, info.dims, info.role, info.op)
        for info in golden.tensors.values()
        if (fits := assignment.fits.get(info.name))
    ]
    written = {spec.name for spec in specs}
    groups = _groups(golden, [*written, *assignment.missing])
    links = {link: target for link, target in golden.aliases.items() if target in written}
    total = sum(spec.nbytes for spec in specs)
    with GoldenWriter(
        path,
        kind="run",
        recipe=_recipe(golden, mapping, assignment, specs, groups, dump),
        tensors=specs,
        links={link: target for link, target in links.items() if place(link).group in groups},
        groups=groups,
    ) as writer:
        done = 0
        for spec in specs:
            progress(done, total, spec.name)
            writer.write(spec.name, _bits(assignment.fits[spec.name], spec).data)
            done += spec.nbytes
        writer.seal(sublayers=[SublayerInfo(name, 0) for name in groups])


def _bits(fits: tuple[Fit, ...], spec: TensorSpec) -> np.ndarray:
    """Return the run's bytes of a tensor. A sum is rounded once, from float64."""
    first, *others = (fit.values() for fit in fits)
    if others:
        total = first.astype(np.float64) + others[0].astype(np.float64)
        values = total.astype(DTYPES[spec.dtype].numpy)
    else:
        values = convert(first, spec.dtype, spec.name)
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _dtype(fits: tuple[Fit, ...]) -> str:
    """The coarsest type of those that are added."""
    return max((fit.dtype for fit in fits), key=lambda name: DTYPES[name].eps)


def _groups(golden: GoldenFile, names: list[str]) -> list[str]:
    folders = {place(name).group for name in names}
    return [name for name in golden.sublayers if name in folders]


def _recipe(
    golden: GoldenFile,
    mapping: NameMap,
    assignment: Assignment,
    specs: list[TensorSpec],
    groups: list[str],
    dump: Path,
) -> dict[str, Any]:
    dtypes = Counter(spec.dtype for spec in specs)
    return {
        "golden": {"path": str(golden.path), "content_digest": golden.content_digest},
        "model": golden.recipe.get("model", {}),
        "cases": golden.recipe.get("cases", []),
        "backend": {
            "name": "import",
            "engine": mapping.engine,
            "dump": str(dump),
            "dump_digest": _digest(dump, assignment),
        },
        "map": encode(mapping),
        "device": "",
        "mode": mapping.mode,
        "dtype": dtypes.most_common(1)[0][0],
        "attention": "eager",
        "repeat": 1,
        "sublayers": groups,
        "not_computed": list(assignment.not_computed),
        "faults": [],
        "grafts": [],
    }


def _digest(dump: Path, assignment: Assignment) -> str:
    """Return one digest of a dump: of its bytes, or of the names and digests of the files of a
    folder that the run's tensors came from."""
    if dump.is_dir():
        files = {Path(file) for fits in assignment.fits.values() for f in fits for file in f.files}
        lines = [f"{p.relative_to(dump).as_posix()} {digests.of_file(p)}\n" for p in sorted(files)]
        return digests.of_text("".join(lines))
    return digests.of_file(dump)


def _restored_recipe(catalog: Catalog) -> Mapping[str, Any]:
    """Return the recipe; a part of a golden says of which."""
    if catalog.content_digest == catalog.source_content_digest:
        return catalog.recipe
    return {**catalog.recipe, "part_of": catalog.source_content_digest}
