"""Signals: non-negative tensors that walk through a network as paths do.

What is linear applies to a signal. Normalisations, activations and dropout hand it on, element by
element, as modules and as functions alike. Constants that are added are no part of it; constants
that multiply it count by their size. A product of several signals, as of a gate or in attention,
counts the paths through each of them: it is their sum, as a product's derivative is where the
factors are 1. Anything else would be a guess, and is refused by name.
"""

import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from sculpt.errors import InputError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names of functions, methods and properties, without the underscores around them.
READ = _words(
    "shape dtype device layout ndim requires_grad is_cuda is_cpu is_meta is_leaf is_sparse "
    "is_quantized is_nested is_mkldnn itemsize nbytes names grad_fn size dim ndimension numel "
    "nelement stride is_floating_point is_complex is_contiguous get_device element_size len repr "
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_tensor"
)
"""They tell about a tensor, or make a constant of its shape."""
LIKE_ANOTHER = _words("to type_as view_as reshape_as expand_as")
HANDED_ON = _words(
    "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish softplus softsign tanh "
    "tanhshrink hardtanh hardswish hardsigmoid hardshrink softshrink sigmoid logsigmoid "
    "log_sigmoid threshold softmax log_softmax softmin exp expm1 log log1p log2 log10 sqrt rsqrt "
    "square pow rpow abs absolute neg negative pos positive reciprocal rdiv sin cos erf sinh cosh "
    "asinh atan clamp clamp_min clamp_max clip nan_to_num batch_norm layer_norm group_norm "
    "instance_norm rms_norm local_response_norm normalize dropout dropout1d dropout2d dropout3d "
    "alpha_dropout feature_dropout feature_alpha_dropout to type_as float double half bfloat16 cpu "
    "cuda"
)
ADDED = _words("add iadd radd sub isub rsub subtract maximum minimum")
JOINED = _words("cat concat concatenate stack hstack vstack dstack")
BY_ELEMENT = _words("mul imul rmul multiply")
MULTIPLIED = BY_ELEMENT | _words("div truediv itruediv divide matmul rmatmul mm bmm mv einsum")
WEIGHTED = _words("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
MAXIMA = {
    f"{kind}max_pool{dimensions}d": getattr(F, f"{kind}avg_pool{dimensions}d")
    for kind in ("", "adaptive_")
    for dimensions in (1, 2, 3)
}
LINEAR = ADDED | JOINED | MULTIPLIED | WEIGHTED | MAXIMA.keys() | {"amax"}
LINEAR |= _words(
    "mean sum cumsum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d pad interpolate upsample pixel_shuffle pixel_unshuffle channel_shuffle "
    "unfold fold view view_as reshape reshape_as flatten unflatten permute transpose movedim "
    "moveaxis swapaxes swapdims t T mT squeeze unsqueeze expand expand_as broadcast_to repeat "
    "repeat_interleave tile flip roll rot90 narrow select index_select getitem chunk split "
    "split_with_sizes tensor_split unbind clone contiguous diagonal tril triu"
)
ATTENTION = _words("scaled_dot_product_attention multi_head_attention_forward")
GATED = ATTENTION | {"glu"}
"""Products of signals even where one alone is given."""
KNOWN = HANDED_ON | LINEAR | GATED
POSITIVE_MODES = ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "area")


class Signal(Tensor):
    """A non-negative tensor that passes through a network; see above.

    `of` wraps a tensor, `sole` reads it.
    """

    bands: dict[int, Tensor]
    """Terms of a sum, all of one shape; here the tensor alone, at 0."""
    averages = True
    """Whether all elements of a maximum are passed on, as their average, and biases are left out:
    then a signal is not zero exactly where there is a path."""

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """Wrap a non-negative tensor."""
        return cls.joined({0: values})

    @classmethod
    def joined(cls, terms: dict[int, Tensor]) -> Self:
        """Wrap the sum of an operation's results, by band."""
        # Its own data is one of the terms, and stands only for shape, device and type.
        tensor = next(iter(terms.values())).as_subclass(cls)
        tensor.bands = terms
        return tensor

    def after_a_product(self) -> Self:
        """Return the signal that goes on after a layer or another product."""
        return self

    @property
    def sole(self) -> Tensor:
        """The only term."""
        (value,) = self.bands.values()
        return value

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Apply a function to each band, and join the results."""
        spelled = func.__self__.__name__ if func.__name__ == "__get__" else func.__name__
        name = spelled.strip("_")
        in_place = (spelled.endswith("_") and not spelled.endswith("__")) or (
            name[0] == "i" and name[1:] in ADDED | MULTIPLIED  # __iadd__
        )
        with torch._C.DisableTorchFunctionSubclass():
            signals = [o for o in tree_leaves((args, kwargs)) if isinstance(o, Signal)]
            first, given = signals[0], args[0] if args else None
            several = len(signals) > 1
            if name in GATED or (several and name in MULTIPLIED):
                with torch._C._EnableTorchFunction():
                    product = _product(name, func, args, dict(kwargs or {}))
                if in_place and isinstance(given, Signal):
                    given.bands = product.bands
                    return given
                return product
            if name in LIKE_ANOTHER and len(args) > 1:
                args = (given, *tree_map(_plain, args[1:]))
                signals = [given] if isinstance(given, Signal) else []
            if not signals or (name in READ and not in_place):
                return func(*tree_map(_plain, args), **tree_map(_plain, kwargs or {}))
            if name not in KNOWN:
                raise _refusal(repr(name))
            if several and name not in ADDED | JOINED:
                raise _refusal(f"{name!r} to several signals")
            if name in HANDED_ON:
                leaves, layout = [first.joined(first.bands)], None
            else:
                func, args, kwargs = _linear(name, func, args, dict(kwargs or {}), first)
                operands, structure = tree_flatten((args, kwargs))
                results: dict[int, list[Any]] = {}
                for band in sorted({band for signal in signals for band in signal.bands}):
                    parts = [_term(operand, band, copied=in_place) for operand in operands]
                    terms, named = tree_unflatten(parts, structure)
                    results[band], layout = tree_flatten(func(*terms, **named))
                # One leaf for each tensor of the result.
                leaves = [
                    first.joined(dict(zip(results, leaf, strict=True)))
                    for leaf in zip(*results.values(), strict=True)
                ]
            if name in WEIGHTED | MULTIPLIED:
                leaves = [leaf.after_a_product() for leaf in leaves]
        if in_place and isinstance(given, Signal):
            given.bands = leaves[0].bands
            return given
        if in_place and not spelled.startswith("__"):
            raise _refusal(f"{spelled!r} to a constant")
        return leaves[0] if layout is None else tree_unflatten(leaves, layout)


def _linear(
    name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], signal: Signal
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Make a call one on signals alone: without what is added to them, or made negative."""
    if name in ADDED:
        pair = (*args, *(kwargs[key] for key in ("input", "other") if key in kwargs))
        alpha = {"alpha": abs(kwargs["alpha"])} if "alpha" in kwargs else {}
        return torch.add, tuple(map(_without, pair)), alpha
    if name in JOINED:
        return func, ([*map(_without, args[0])], *args[1:]), kwargs
    if name in MULTIPLIED | WEIGHTED:
        if name in WEIGHTED and signal.averages:
            kwargs.pop("bias", None)
            args = (*args[:2], *(None for _ in args[2:3]), *args[3:])
        if "div" in name and not (isinstance(args[0], Signal) and not kwargs.get("rounding_mode")):
            raise _refusal(f"{name!r} by a signal, or with rounding")
        return func, tree_map(_sized, args), tree_map(_sized, kwargs)
    if name == "amax" and signal.averages:
        return torch.mean, args, kwargs
    if name in MAXIMA and signal.averages:
        if name.startswith("adaptive"):
            return MAXIMA[name], args[:2], {}
        return MAXIMA[name], args[:1], _averaging(args, kwargs)
    if name in ("interpolate", "upsample") and kwargs.get("mode") not in POSITIVE_MODES:
        raise _refusal(f"{name!r} in mode {kwargs.get('mode')!r}")
    if name == "pad":
        kwargs.pop("value", None)
        args = args[:3]
    return func, args, kwargs


def _product(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Follow the paths through each of several factors, beside ones for the others."""
    if name == "scaled_dot_product_attention":
        return _attention(*args, **kwargs)
    if name == "multi_head_attention_forward":
        return _multi_head_attention(*args, **kwargs)
    if name == "glu":
        values, gates = args[0].chunk(2, *args[1:], **kwargs)
        return values * gates
    if kwargs.get("rounding_mode"):
        raise _refusal(f"{name!r} with rounding")
    # A quotient depends on what it is divided by as a product does; nothing is done in place.
    multiply = torch.mul if "div" in name or name in BY_ELEMENT else func
    operands, structure = tree_flatten((args, kwargs))
    terms = []
    for place, operand in enumerate(operands):
        if isinstance(operand, Signal):
            alone = [
                torch.ones_like(_plain(other))
                if isinstance(other, Signal) and i != place
                else other
                for i, other in enumerate(operands)
            ]
            factors, named = tree_unflatten(alone, structure)
            terms.append(multiply(*factors, **named))
    return sum(terms[1:], terms[0])


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Follow paths through softmax(Q Kᵀ) V."""
    if enable_gqa:
        key, value = (
            x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3) for x in (key, value)
        )
    weights = query @ key.transpose(-2, -1)
    seen = None
    if is_causal:
        seen = torch.ones(weights.shape[-2:], device=weights.device).tril()
    elif attn_mask is not None:
        seen = attn_mask if attn_mask.dtype == torch.bool else attn_mask > -math.inf
    if seen is not None:
        weights = weights * seen.to(weights.dtype)
    return weights @ value


def _multi_head_attention(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    **rest: Any,
) -> Any:
    """Follow paths through `torch.nn.functional.multi_head_attention_forward`, (L, N, E)."""
    if rest.get("use_separate_proj_weight"):
        projections = [rest[f"{which}_proj_weight"] for which in "qkv"]
    else:
        projections = in_proj_weight.chunk(3)

    def heads(tokens: Any, weight: Tensor) -> Any:
        """(L, N, E) to (N, heads, L, features of a head)."""
        projected = F.linear(tokens, weight)
        return projected.unflatten(-1, (num_heads, -1)).movedim(0, -2)

    attended = _attention(*map(heads, (query, key, value), projections))
    joined = attended.movedim(-2, 0).flatten(-2)
    output = F.linear(joined, out_proj_weight)
    return output, None


def _averaging(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Turn the arguments of a maximum into those of an average."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given = dict(zip(names, args[1:], strict=False)) | kwargs
    if given.pop("return_indices", False) or {*tree_leaves(given.pop("dilation", 1))} != {1}:
        raise _refusal("a maximum with dilation or indices")
    return given


def _plain(operand: Any) -> Any:
    """Return a signal's tensor, for its shape alone."""
    return next(iter(operand.bands.values())) if isinstance(operand, Signal) else operand


def _term(operand: Any, band: int, *, copied: bool) -> Any:
    """Return the part of an operand in one band, which other signals may have, too."""
    if not isinstance(operand, Signal):
        return operand
    if band not in operand.bands:
        return torch.zeros_like(_plain(operand))
    return operand.bands[band].clone() if copied else operand.bands[band]


def _without(constant: Any) -> Any:
    """Return zeros instead of a constant."""
    if isinstance(constant, Signal):
        return constant
    return torch.zeros_like(constant) if isinstance(constant, Tensor) else 0


def _sized(constant: Any) -> Any:
    """Return the sizes of a constant factor; anything else as it is."""
    if isinstance(constant, Signal) or not isinstance(constant, Tensor | int | float):
        return constant
    if isinstance(constant, Tensor) and constant.requires_grad:
        # Not its size, which has no slope at 0: a pruned weight must still be found.
        if (constant < 0).any():
            raise _refusal("weights that it computes from the layers' own")
        return constant
    return abs(constant)


def _refusal(what: str) -> InputError:
    return InputError(
        "paths are followed through linear operations, activations, norms and pools, but the "
        f"forward pass applies {what}; leave that part of the network out, or prune by another "
        "criterion and without effective=True"
    )
