"""Any module in a wider type: every op that it calls computes in float64, whatever it asks for.

A dispatch mode sees each op that PyTorch executes. Operands are widened on their way in, and
casts to narrower floats are left out, so that a parameter is wide only while an op reads it. A
*twin* adds to each result what rounding it would: noise of the size that the type has which the
module itself computes that result in (docs/budgets.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from goldenctl.reference.modules.values import Given

WIDE = torch.float64
_COMPLEX = {torch.complex64: torch.complex128, torch.complex32: torch.complex128}
_ROUNDOFF = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
_FLOAT32 = _ROUNDOFF[torch.float32]
# Ops that move values, choose among them, or change their sign: their results are exact.
_EXACT = frozenset((
    "abs", "alias", "amax", "amin", "any", "arange", "argmax", "argmin", "argsort", "cat", "ceil",
    "clamp", "clamp_max", "clamp_min", "clone", "conj", "complex", "constant_pad_nd",
    "contiguous", "detach", "diag", "embedding", "empty", "empty_like", "empty_strided", "expand",
    "eye", "fill", "flip", "floor", "full", "full_like", "gather", "hardtanh", "im2col", "imag",
    "index", "index_copy", "index_fill", "index_put", "index_select", "isfinite", "isin", "isinf",
    "isnan", "lift_fresh", "masked_fill", "masked_scatter", "masked_select", "max",
    "max_pool2d_with_indices", "maximum", "min", "minimum", "neg", "new_empty",
    "new_empty_strided", "new_full", "new_ones", "new_zeros", "nonzero", "ones", "ones_like",
    "pad", "permute", "pixel_shuffle", "real", "reflection_pad1d", "relu", "repeat",
    "repeat_interleave", "replication_pad1d", "reshape", "resize", "roll", "round",
    "scalar_tensor", "scatter", "select_scatter", "set", "sign", "slice_scatter", "sort", "split",
    "stack", "threshold", "topk", "tril", "triu", "trunc", "unfold", "unsqueeze",
    "upsample_nearest2d", "view_as_complex", "view_as_real", "where", "zero", "zeros",
    "zeros_like", "_conj", "_unsafe_view", "_reshape_alias", "_local_scalar_dense",
))  # fmt: skip
_CHOICES = frozenset(("topk", "argmax", "argmin", "sort", "argsort", "nonzero"))
_CASTS = frozenset(("_to_copy", "copy"))
# What a correct kernel may round twice.
_TWICE = frozenset((
    "_softmax", "_log_softmax", "native_layer_norm", "native_group_norm", "native_batch_norm",
    "rms_norm", "_fused_rms_norm", "gelu", "silu", "mish", "hardswish", "softplus", "sigmoid",
    "tanh", "erf", "exp", "expm1", "log", "log1p", "sin", "cos", "rsqrt", "sqrt", "pow",
    "reciprocal",
))  # fmt: skip
_CONTRACTIONS = {"mm": 0, "bmm": 0, "mv": 0, "addmm": 1, "baddbmm": 1, "addbmm": 1}
_ACTIVATIONS = frozenset(
    ("gelu", "silu", "mish", "hardswish", "softplus", "sigmoid", "exp", "tanh")
)
_SUMS = frozenset(("sum", "mean", "cumsum", "var", "std", "linalg_vector_norm", "var_mean"))


class Wide(TorchDispatchMode):
    """Computes in float64 while it is active. ``narrow`` is the type of the module, which is what
    a result is meant to have where the module says ``x.dtype``; with ``noise`` it is a twin.

    ``random`` gathers the ops that drew random numbers, ``discrete`` those that round to integers,
    ``narrowed`` the types of fewer bits than the module's own that something was cast to.
    A twin counts the results that are ``noisy``, and keeps the last one's noise, ``sigma``.
    """

    def __init__(self, narrow: torch.dtype, noise: torch.Generator | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._narrow = narrow
        self._noise = noise
        self._meant: Any = WeakTensorKeyDictionary()
        self.random: set[str] = set()
        self.discrete: set[str] = set()
        self.narrowed: set[str] = set()
        self._own = False  # whether an op is this mode's, not the module's
        self.noisy = 0
        self.sigma = torch.empty(0)
        self._choices: list[tuple[str, Tensor]] = []

    def widened(self, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor in the wide type, which is meant to have its own."""
        wide = _wide(tensor)
        copy = tensor.clone() if wide is None else tensor.to(wide)
        self._meant[copy] = tensor.dtype
        return copy

    def tips(self, twins: Sequence[Wide]) -> list[str]:
        """Return the ops whose choices are others in one of the twins."""
        found = set()
        for twin in twins:
            pairs = zip(self._choices, twin._choices, strict=False)
            found |= {name for (name, a), (_, b) in pairs if not torch.equal(a, b)}
        return sorted(found)

    def cast(self, tensor: Tensor) -> Tensor:
        """Return a tensor after a cast that the module asks for and that changes nothing here."""
        meant = self._meant.get(tensor)
        if meant is None or _ROUNDOFF.get(meant, 0.0) >= _ROUNDOFF.get(self._narrow, 0.0):
            return tensor
        self._own = True
        copy = tensor.clone()
        if self._noise is not None:
            self._draw(copy, copy.abs() * (_ROUNDOFF.get(self._narrow, 0.0) / math.sqrt(3.0)))
        self._own = False
        self._meant[copy] = self._narrow
        return copy

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._own:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        plain = name if name.startswith("__") else name.rstrip("_")
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.random.add(plain)
        if plain in ("round", "floor", "ceil", "trunc"):
            self.discrete.add(plain)
        meant = self._meant_of(func, plain, args, kwargs)
        before = self._first_meant(args)
        wide_args, wide_kwargs = tree_map(_widened, (tuple(args), kwargs))
        out = _INSTEAD.get(plain, func)(*wide_args, **wide_kwargs)
        if plain in _CHOICES:
            self._choices += [(plain, t) for t in _tensors([out]) if not t.is_floating_point()]
        return self._finished(func, plain, (meant, before), wide_args, out)

    def _finished(
        self, func: Any, name: str, meant: tuple[torch.dtype, torch.dtype], args: Any, out: Any
    ) -> Any:
        """Widen what is still narrow, note what each result is meant to be, and add noise."""
        view = any(
            each.alias_info is not None and not each.alias_info.is_write
            for each in func._schema.returns
        )
        exact = view or name in _EXACT
        if name == "_to_copy" and _ROUNDOFF.get(meant[0], 1.0) > _ROUNDOFF.get(self._narrow, 0.0):
            self.narrowed.add(str(meant[0]).removeprefix("torch."))
        if name in _CASTS:
            exact = _ROUNDOFF.get(meant[0], 0.0) <= _ROUNDOFF.get(meant[1], 0.0)

        def finish(value: Any) -> Any:
            if not isinstance(value, Tensor) or not (
                value.is_floating_point() or value.is_complex()
            ):
                return value
            wide = _widened(value)
            self._meant[wide] = meant[0]
            if self._noise is not None and not exact:
                self._add_noise(func, name, meant[0], args, wide)
            return wide

        return tree_map(finish, out)

    def _meant_of(self, func: Any, name: str, args: Sequence[Any], kwargs: Any) -> torch.dtype:
        """Return the type that the module's own result would have."""
        asked = [
            value
            for value in (*args, *kwargs.values())
            if isinstance(value, torch.dtype) and value.is_floating_point
        ]
        if asked:
            return self._narrow if asked[0] == WIDE else asked[0]
        given = [t for t in _tensors(args) if t.is_floating_point() or t.is_complex()]
        if not given:
            return self._narrow
        if func._schema.is_mutable or name == "copy":
            return self._of(given[0])
        dimensioned = [self._of(t) for t in given if t.dim()] or [self._of(t) for t in given]
        result = dimensioned[0]
        for other in dimensioned[1:]:
            result = torch.promote_types(result, other)
        return result

    def _first_meant(self, args: Sequence[Any]) -> torch.dtype:
        """What a cast or a copy reads."""
        given = [t for t in _tensors(args) if t.is_floating_point()]
        return self._of(given[-1]) if given else WIDE

    def _of(self, tensor: Tensor) -> torch.dtype:
        known = self._meant.get(tensor)
        if known is not None:
            return known  # type: ignore[no-any-return]
        return self._narrow if tensor.dtype in (WIDE, torch.complex128) else tensor.dtype

    def _add_noise(self, func: Any, name: str, meant: torch.dtype, args: Any, out: Tensor) -> None:
        if not out.numel() or (not out.is_complex() and torch.equal(out, out.round())):
            return  # whole numbers, such as positions and counts, are exact
        times = 2.0 if name in _TWICE else 1.0
        sigma = out.abs() * (_ROUNDOFF.get(meant, _FLOAT32) * math.sqrt(times / 3.0))
        if meant not in (torch.bfloat16, torch.float16):
            sigma = sigma.hypot(_of_sums(func, name, args, out))
        self._draw(out, sigma)

    def _draw(self, out: Tensor, sigma: Tensor) -> None:
        self.noisy, self.sigma = self.noisy + 1, sigma
        draw = torch.randn(out.shape, generator=self._noise, dtype=torch.float32)
        out.add_(draw.to(out.device, WIDE) * sigma.nan_to_num(0.0, 0.0, 0.0))


class _Asked(TorchFunctionMode):
    """Sees what the dispatch mode does not: casts to the type that a tensor has already, and
    convolutions, which want their operands of one type before they are taken apart."""

    def __init__(self, mode: Wide) -> None:
        super().__init__()
        self._mode = mode

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name.startswith("conv") and name != "conj":
            args, kwargs = tree_map(self._whole, (tuple(args), kwargs))
        out = func(*args, **kwargs)
        if name in ("to", "type", "type_as") and out is args[0] and out.is_floating_point():
            asks = any(isinstance(v, torch.dtype | Tensor) for v in (*args[1:], *kwargs.values()))
            return self._mode.cast(out) if asks else out
        return out

    def _whole(self, value: Any) -> Any:
        narrow = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != WIDE
        return self._mode.widened(value) if narrow else value


def _grouped_mm(
    x: Tensor, w: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, _dtype: Any = None
) -> Tensor:
    """Products of rows [T, K] with one of the matrices [E, K, N] each; E's end at ``offs``."""
    if x.dim() != 2 or w.dim() != 3 or offs is None or bias is not None:
        message = "a grouped product of this form is not known"
        raise NotImplementedError(message)
    ends = offs.tolist()
    parts = [x[a:b] @ w[n] for n, (a, b) in enumerate(zip([0, *ends], ends, strict=False))]
    rest = x.new_zeros(x.shape[0] - (ends[-1] if ends else 0), w.shape[-1])
    return torch.cat([*parts, rest])


_INSTEAD: dict[str, Any] = {"_grouped_mm": _grouped_mm}


def roundoff(dtype: torch.dtype) -> float:
    """Return the unit roundoff of a type."""
    return _ROUNDOFF.get(dtype, 2.0**-53)


def run_wide(module: nn.Module, given: Given, mode: Wide) -> Any:
    """Return what a module yields in ``mode``; neither what it is given nor its buffers change."""
    wide = given.mapped(lambda _path, tensor: mode.widened(tensor), objects=True)
    buffers = {name: mode.widened(value) for name, value in module.named_buffers()}
    with computing(mode):
        return torch.func.functional_call(
            module, buffers, wide.args, dict(wide.kwargs), tie_weights=True
        )


@contextmanager
def computing(mode: Wide) -> Iterator[None]:
    """Compute in ``mode``, with ops that kernels fuse taken apart."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), mode, _Asked(mode):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _of_sums(func: Any, name: str, args: Any, out: Tensor) -> Tensor:
    """What arithmetic in float32 before the last rounding does to each element of a result."""
    if name == "_grouped_mm":
        spread = _grouped_mm(args[0].square(), args[1].square(), args[2])
        return _of_products(out, spread, args[0].shape[-1])
    if name in _CONTRACTIONS:
        first = _CONTRACTIONS[name]
        x, w = args[first], args[first + 1]
        bias = (args[0] * 0.0,) if first else ()
        return _of_products(out, func(*bias, x * x, w * w), x.shape[-1])
    if name == "convolution":
        x, w, _, *rest = args
        return _of_products(out, func(x * x, w * w, None, *rest), math.prod(w.shape[1:]))
    if name in _ACTIVATIONS:  # their argument's own rounding, and a few steps of a polynomial
        size, x = out.abs(), args[0].abs()
        small: Tensor = size * (x + 4.0) + x.minimum(size + 1.0)
        return small * (_FLOAT32 / math.sqrt(3.0))
    if name in _SUMS or name in _TWICE:
        return _of_reduction(func, name, args, out)
    return torch.zeros_like(out.abs())


def _of_products(out: Tensor, spread: Tensor, count: int) -> Tensor:
    """What a sum of K products in float32 errs by, in whatever order.

    u √(K / 3) hypot(o, √Σ(x w)²), after Higham and Mary (2019); ``spread`` is Σ(x w)².
    """
    return (out.square() + spread.clamp_min(0.0)).sqrt() * (_FLOAT32 * math.sqrt(count / 3.0))


def _of_reduction(func: Any, name: str, args: Any, out: Tensor) -> Tensor:
    x = args[0]
    count = max(x.numel() // max(out.numel(), 1), x.shape[-1] if x.dim() else 1)
    scale = out.abs()
    if name in ("sum", "mean") and x.numel() != out.numel():
        scale = scale.maximum(_spread_of(func, name, args, count))
    long = name in _SUMS or "softmax" in name or "norm" in name
    return scale * (_FLOAT32 * math.sqrt((count if long else 1.0) / 3.0))


def _spread_of(func: Any, name: str, args: Any, count: int) -> Tensor:
    """√Σx² of what is summed, over the count for a mean."""
    squares: Tensor = func(args[0].square(), *args[1:])
    total = squares * count if name == "mean" else squares
    spread: Tensor = total.abs().sqrt()
    return spread / count if name == "mean" else spread


def _wide(tensor: Tensor) -> torch.dtype | None:
    """The wide type of a tensor; None where it has none."""
    if tensor.is_floating_point():
        return WIDE
    return torch.complex128 if tensor.is_complex() else None


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        wide = _wide(value)
        return value if wide is None or value.dtype == wide else value.to(wide)
    if isinstance(value, torch.dtype):
        return WIDE if value.is_floating_point else _COMPLEX.get(value, value)
    return value


def _tensors(args: Sequence[Any]) -> Iterator[Tensor]:
    for value in args:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
