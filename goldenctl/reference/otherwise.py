"""A run whose ops were computed otherwise, in this process: a correct alternative as a file.

What a selftest judges then goes the way of any engine's run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.modes import BOTH
from goldenctl.golden.run_layout import run_layout
from goldenctl.golden.schema import SublayerInfo
from goldenctl.golden.writer import GoldenWriter
from goldenctl.model.graph import FUSED_TAPS, Op, Sublayer, own_name, with_fused_attention
from goldenctl.places import composed_name, paths_so_far
from goldenctl.reference.patch import Compute, Emulator
from goldenctl.reference.weights import from_numpy, to_numpy


class Otherwise:
    """The sublayers of a golden with ``compute`` in place of every op's arithmetic that it fits.

    ``fused`` makes scores, probs and context one op, which ``compute`` must know.
    """

    def __init__(
        self,
        golden: GoldenFile,
        graph: Mapping[str, Sublayer],
        emulator: Emulator,
        compute: Compute,
        *,
        fused: bool,
    ) -> None:
        self._golden = golden
        self._graph = {p: with_fused_attention(s) if fused else s for p, s in graph.items()}
        self._emulator = emulator
        self._compute = compute
        self._fused = fused

    def run(self, path: Path, mode: str, label: str) -> GoldenFile:
        """Write what a replay in ``mode`` would yield; return it."""
        dtype = self._golden.recipe["dtype"]
        layout = run_layout(self._golden, self._graph, dtype, mode)
        with GoldenWriter(
            path,
            kind="run",
            recipe=self._recipe(mode, dtype, label),
            tensors=layout.tensors,
            links=layout.links,
            groups=layout.groups,
        ) as writer:
            for name, value in self._tensors(mode):
                if name in writer.tensors:
                    data = np.ascontiguousarray(to_numpy(value)).tobytes()
                    writer.write(name, memoryview(data))
            writer.seal(sublayers=[SublayerInfo(name, 0) for name in layout.groups])
        return open_golden(path)

    def _recipe(self, mode: str, dtype: str, label: str) -> dict[str, object]:
        golden = self._golden
        return {
            "golden": {"path": str(golden.path), "content_digest": golden.content_digest},
            "model": golden.recipe["model"],
            "cases": golden.recipe["cases"],
            "backend": {"name": "alternative", "alternative": label},
            "mode": mode,
            "dtype": dtype,
            "attention": "sdpa" if self._fused else "eager",
            "sublayers": list(self._graph),
            "not_computed": list(FUSED_TAPS) if self._fused else [],
        }

    @torch.inference_mode()
    def _tensors(self, mode: str) -> Iterator[tuple[str, Tensor]]:
        chain: dict[str, Tensor] = {}
        for path, sublayer in self._graph.items():
            if mode in ("op", BOTH):
                for op in sublayer.ops:
                    yield f"{path}/{op.output}", self._computed(path, sublayer, op, {})
            if mode != "op":
                for name, value in self._walk(path, sublayer, chain, chained=mode == "chain"):
                    yield composed_name(name) if mode == BOTH else name, value

    def _walk(
        self, path: str, sublayer: Sublayer, chain: dict[str, Tensor], *, chained: bool
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield a sublayer's tensors, each op fed by those before; ``chain`` has what earlier
        sublayers have yielded, by name."""
        given: dict[str, Tensor] = {}
        before = self._golden.aliases.get(f"{path}/input", "")
        if chained and before in chain:
            given["input"] = chain[before]
        for op in sublayer.ops:
            for name in op.inputs:
                own = own_name(name)
                if own != name and own in given:
                    given[name] = self._with_past(path, own, given[own], chain if chained else {})
            given[op.output] = self._computed(path, sublayer, op, given)
            yield f"{path}/{op.output}", given[op.output]
        chain.update({f"{path}/{tap}": given[tap] for tap in sublayer.taps})

    def _with_past(self, path: str, tap: str, own: Tensor, chain: Mapping[str, Tensor]) -> Tensor:
        """Put a step's keys or values after those of earlier steps: the chain's own, else the
        recorded ones."""
        names = [f"{at}/{tap}" for at in paths_so_far(path)[:-1]]
        past = [chain[n] if n in chain else from_numpy(self._golden.verify(n)) for n in names]
        return torch.cat([*past, own], dim=1)

    def _computed(
        self, path: str, sublayer: Sublayer, op: Op, given: Mapping[str, Tensor]
    ) -> Tensor:
        found = self._emulator.tensor(path, sublayer, op, compute=self._compute, given=given)
        if found is None:
            found = self._emulator.tensor(path, sublayer, op, given=given)
        assert found is not None
        return found.reshape(self._golden.info(f"{path}/{op.output}").shape)
