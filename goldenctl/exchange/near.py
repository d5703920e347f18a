"""What is different about a tensor whose name fits and whose shape does not: the likely cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations

from goldenctl.exchange.fit import is_merged
from goldenctl.golden.schema import TensorInfo

Shape = tuple[int, ...]
Attempt = Callable[[Shape], bool]
_RANKS = (2, 4, 8, 16, 3, 6)
_WORDS = {2: "half", 3: "a third", 4: "a quarter", 8: "an eighth"}


def likely_cause(
    shape: Shape, info: TensorInfo, sizes: Mapping[str, int], attempt: Attempt, *, decoded: int
) -> str:
    """Return the likeliest cause, empty where none is.

    ``attempt`` tells whether a tensor of another shape would fit, ``decoded`` is how many tokens
    the golden's decode steps have.
    """
    return next(_causes(shape, info, sizes, attempt, decoded), "")


def shown(info: TensorInfo) -> str:
    """Return the golden's axes with their sizes: ``[batch 1, token 6, vocab 512]``."""
    pairs = zip(info.dims, info.shape, strict=True)
    return f"[{', '.join(f'{dim} {size}' for dim, size in pairs)}]"


def _causes(
    shape: Shape, info: TensorInfo, sizes: Mapping[str, int], attempt: Attempt, decoded: int
) -> Iterator[str]:
    tokens = sizes.get("token", 0)
    for axis, size in enumerate(shape):
        if size != tokens and attempt(_with(shape, axis, tokens)):
            yield _tokens(size, tokens, decoded, info)
    if any(attempt((*shape[:at], tokens, *shape[at:])) for at in range(len(shape) + 1)):
        yield _tokens(1, tokens, decoded, info)
    yield from _repeated(shape, sizes, attempt)
    yield from _parts(shape, attempt)
    yield from _transposed(shape, info)
    rows = sizes.get("batch", 1)
    if rows > 1 and any(attempt((*shape[:at], rows, *shape[at:])) for at in (0, 1)):
        yield f"one of the golden's {rows} rows? its batch axis is missing: dump all rows"


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _tokens(size: int, tokens: int, decoded: int, info: TensorInfo) -> str:
    """Say why a tensor may be of so many tokens."""
    said = f"{size} token{'' if size == 1 else 's'}, the golden has {tokens}: "
    ids = "give the engine the golden's token ids"
    if size == 1:
        keep = ", or record the golden with --logits last" if info.sublayer == "lm_head" else ""
        return f"{said}the last token only, or a decode step? dump the whole prompt's{keep}"
    if decoded and size == tokens + decoded:
        return f"{said}the decode steps appended? stacked = true takes each step's own"
    if size == tokens + 1:
        return f"{said}one BOS too many? {ids}"
    if size == tokens - 1:
        return f"{said}one BOS too few? {ids}"
    if size and size % 8 == 0 and tokens < size <= 2 * max(tokens, 128):
        return f'{said}padded? crop = ["token"] keeps the first, crop_front the last'
    if size and size % tokens == 0:
        return f"{said}{size // tokens} prompts in a batch? dump one, or name its axes"
    if size < tokens:
        return f"{said}a chunk of the prompt? dump it whole"
    return f'{said}decode steps or padding after them? crop = ["token"] keeps the first; else {ids}'


def _repeated(shape: Shape, sizes: Mapping[str, int], attempt: Attempt) -> Iterator[str]:
    heads, kv_heads = sizes.get("head", 0), sizes.get("kv_head", 0)
    width = sizes.get("head_dim", 1)
    for axis, size in enumerate(shape):
        for scale in (1, width):
            if (
                heads != kv_heads
                and size == heads * scale
                and attempt(_with(shape, axis, kv_heads * scale))
            ):
                yield (
                    f"{heads} heads, the golden has {kv_heads}: repeated for each query head? "
                    "dump them before that"
                )


def _parts(shape: Shape, attempt: Attempt) -> Iterator[str]:
    for ranks in _RANKS:
        for axis, size in reversed(list(enumerate(shape))):
            if attempt(_with(shape, axis, size * ranks)):
                part = _WORDS.get(ranks, f"1/{ranks}")
                last = axis == len(shape) - 1
                join = "" if last else f", join = {axis}"
                yield (
                    f"{part} of axis {axis}: one of {ranks} tensor-parallel ranks? "
                    f"ranks = {ranks} joins all, with {{rank}} in the name{join}"
                )


def _transposed(shape: Shape, info: TensorInfo) -> Iterator[str]:
    if len(shape) > 5:
        return
    for order in permutations(range(len(shape))):
        if is_merged(tuple(shape[axis] for axis in order), info.shape):
            dims = list(info.dims)
            if len(dims) != len(shape):
                pairs = zip(dims, info.shape, strict=True)
                dims = [dim for dim, size in pairs if size != 1]
            if len(dims) != len(shape):
                yield "transposed? name its axes"
                return
            named = [""] * len(shape)
            for dim, axis in zip(dims, order, strict=True):
                named[axis] = f'"{dim}"'
            yield f"transposed? axes = [{', '.join(named)}]"
            return
