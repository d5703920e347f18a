"""Comparison of a golden or run file with a manifest alone, by digests and sketches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec

from goldenctl.diff.by_sketch import SketchScorer
from goldenctl.diff.judge import compare
from goldenctl.diff.padding import padding_by_recipe, recipe_masks
from goldenctl.diff.sketches import sketch_values
from goldenctl.diff.tolerance import Policy
from goldenctl.digests import algorithm_of
from goldenctl.dtypes import DTYPES
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import FORMAT_VERSION, SublayerInfo, TensorInfo
from goldenctl.golden.sketch import Sketch
from goldenctl.golden.untrusted_recipe import RecipeObject
from goldenctl.records.report import Report, TensorResult
from goldenctl.sets.manifest import Manifest, Tensor


def compare_with_manifest(
    manifest: Manifest, where: Path, file: GoldenFile, policy: Policy, *, mode: str
) -> Report:
    """Judge every tensor of a run, or of another recording, by what the manifest keeps.

    Raises DamagedError when the run belongs to another golden, or its bytes or the sketches
    are damaged.
    """
    masks = recipe_masks(manifest.recipe)

    def observe(info: TensorInfo) -> Sketch:
        return sketch_values(file.map(info.name), info, padding_by_recipe(masks, info))

    scorer = SketchScorer(sketches(manifest.tensors), observe, policy, mode)

    def judge(info: TensorInfo, actual: TensorInfo) -> TensorResult:
        file.verify(actual.name)
        known = file.digest_in(actual.name, algorithm_of(info.digest))
        left_out = padding_by_recipe(masks, info).count
        result = scorer(info, replace(actual, digest=known))
        return msgspec.structs.replace(result, padding_rows=left_out)

    return compare(described(manifest, where), file, policy, mode=mode, scorer=judge)


def sketches(tensors: Iterable[Tensor]) -> dict[str, Sketch]:
    """Return the sketches that tensors of a manifest have, by name."""
    return {tensor.name: tensor.sketch for tensor in tensors if tensor.sketch is not None}


def described(manifest: Manifest, where: Path) -> GoldenFile:
    """Return the golden that a manifest describes, as a file whose tensors cannot be mapped."""
    tensors = tensor_infos(manifest.tensors)
    folders = (info.place.group for info in tensors.values() if info.sublayer)
    names = (folder for folder in folders if not folder.endswith(("/budget", "/oracle")))
    return GoldenFile(
        path=where,
        kind="golden",
        recipe=RecipeObject(msgspec.to_builtins(manifest.recipe), f"{where}: recipe"),
        simulated=False,
        format_version=FORMAT_VERSION,
        tool_version=manifest.current.tool_version,
        created_utc=manifest.current.created_utc,
        content_digest=manifest.current.content_digest,
        tensors=tensors,
        aliases={},
        sublayers={name: SublayerInfo(name, 0) for name in dict.fromkeys(names)},
    )


def tensor_infos(tensors: Iterable[Tensor]) -> dict[str, TensorInfo]:
    """Return a manifest's tensors, in its order, as those of a file."""
    return {
        tensor.name: TensorInfo(
            name=tensor.name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            dims=tensor.dims,
            role=tensor.role,
            op=tensor.op,
            order=order,
            offset=0,
            nbytes=math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize,
            digest=tensor.digest,
            time_ns=0,
        )
        for order, tensor in enumerate(tensors)
    }
