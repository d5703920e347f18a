"""The entries of a map that a dump's names allow for one kind of the golden's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from goldenctl.exchange.dump_tensor import DumpTensor
from goldenctl.exchange.endings import AXES, ENDINGS, FUSED, INTERLEAVED
from goldenctl.exchange.namemap import Entry, fill
from goldenctl.exchange.templates import Index, Template, templates_of
from goldenctl.golden.schema import TensorInfo


class Candidates:
    """Yields the entries that may stand for a pattern, the likeliest first."""

    def __init__(self, dump: Mapping[str, DumpTensor], layers: int) -> None:
        self._dump = dump
        self._layers = layers
        templates = templates_of(dump, layers)
        self._index = Index(templates)
        # The last of transformers' hidden_states is what the final norm yields.
        self.after_norm = {
            t.pattern.replace("{layer+1}", str(layers))
            for t in self._index.hidden
            if max(t.hidden) == layers
        }
        self._fused_mlp = any("gate_up_proj" in t.pattern for t in templates)

    def of(self, pattern: str, info: TensorInfo) -> Iterator[Entry]:
        """Yield entries for ``layers.{layer}.mlp.output`` and such; ``info`` is one of them."""
        kind = pattern.removeprefix("layers.{layer}.")
        layered = pattern != kind
        for entry in self._by_name(pattern, kind, layered):
            yield self._typed(entry, info)
        for template in self._index.hidden:
            yield from self._of_hidden(pattern, kind, template)

    def _by_name(self, pattern: str, kind: str, layered: bool) -> Iterator[Entry]:
        endings = ENDINGS.get(kind, ())
        if kind == "mlp.output":  # vLLM's layers yield the block's output and the residual apart
            for first in self._index.ending_in("layers.{layer}.0", layered=True):
                for entry in _of_ranks(pattern, first, [Entry(pattern, "")]):
                    if entry.dump.endswith(".0"):
                        yield replace(entry, plus=f"{entry.dump[:-1]}1")
        if kind == "mlp.swiglu" and self._fused_mlp:
            endings = ("act_fn", *endings)  # elsewhere that is SiLU alone
        fused_endings, split, part = FUSED.get(kind, ((), (), 0))
        fused = [t for e in fused_endings for t in self._index.ending_in(e, layered=layered)]
        for ending in endings:
            for template in self._index.ending_in(ending, layered=layered):
                if template not in fused:  # gate_up_proj is no up_proj, whatever its size
                    yield from _of_ranks(pattern, template, _plain(pattern, kind))
        for template in fused:
            whole = Entry(pattern, "", split=split, part=part)
            yield from _of_ranks(pattern, template, [whole, replace(whole, per=INTERLEAVED[split])])

    def _of_hidden(self, pattern: str, kind: str, template: Template) -> Iterator[Entry]:
        """transformers' hidden_states: the embedding, every layer but the last, the last norm."""
        last = max(template.hidden)
        whole = last == self._layers
        if kind == "mlp.output":
            yield Entry(pattern, template.pattern)
        elif kind in ("embedding.output", "final_norm.output") and whole:
            number = 0 if kind == "embedding.output" else last
            yield Entry(pattern, template.pattern.replace("{layer+1}", str(number)))

    def _typed(self, entry: Entry, info: TensorInfo) -> Entry:
        """Say of two-byte arrays without a type what they are, where the golden tells."""
        tensor = self._dump.get(fill(entry.dump, info))
        bits = tensor is not None and tensor.dtype in ("uint16", "void16")
        return replace(entry, dtype="bfloat16") if bits and info.dtype == "bfloat16" else entry


def _plain(pattern: str, kind: str) -> list[Entry]:
    entries = [Entry(pattern, "", axes=axes) for axes in AXES]
    if kind == "lm_head.output":  # padded to a multiple that the kernels like
        padded: tuple[tuple[str, ...], ...] = (
            ("token", "vocab"), ("batch", "token", "vocab"), ("batch*token", "vocab"),
            ("last_token", "vocab"), ("batch", "last_token", "vocab"), ("batch", "vocab"),
        )  # fmt: skip
        entries += [Entry(pattern, "", axes=axes, crop=("vocab",)) for axes in padded]
    return entries


def _of_ranks(pattern: str, template: Template, entries: list[Entry]) -> Iterator[Entry]:
    """Yield entries of a template: where it is of several ranks, what each holds whole, then
    what they hold parts of."""
    if template.ranks == 1:
        yield from (replace(entry, dump=template.pattern) for entry in entries)
        return
    start = template.pattern.index("{rank")
    end = template.pattern.index("}", start) + 1
    first = fill_rank(template.pattern[start:end])
    whole = template.pattern[:start] + first + template.pattern[end:]
    if "{rank" not in whole:
        yield from (replace(entry, dump=whole) for entry in entries)
    for join in ("sum", -1, 0, 1, 2):
        for entry in entries:
            yield replace(entry, dump=template.pattern, ranks=template.ranks, join=join)


def fill_rank(field: str) -> str:
    """Return what a field of ranks is for the first of them: ``1`` for ``{rank+1}``."""
    number = 1 if "+1" in field else 0
    width = field.partition(":0")[2].rstrip("}")
    return f"{number:0{width}d}" if width else str(number)
