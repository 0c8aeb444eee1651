"""Attention internals of Hugging Face models: rotated queries and keys, scores and patterns as Sites.

transformers looks its attention function up by name. A run that keeps or edits these Sites registers a wrapper of the
original function under a new name, so the output is bit-identical; the mask function is registered with it, since
without one the model would silently attend to later positions. A run that edits or differentiates the pattern uses
eager attention. In a family with its own attention method, that method is wrapped.
Scores are after scaling, soft cap and mask; a masked pair has the lowest number of the dtype, as in the models. A kept
pattern of a fully masked row (a padded query) is uniform.
Suffixes: B batch, H head, Q query, K key, E d_head.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from micrographia.core.errors import UserError
from micrographia.core.pretrained.hooks import HookContext, current_context
from micrographia.core.pretrained.inline import InlineAttention, TorchCalls
from micrographia.core.pretrained.modules import Body, replaced
from micrographia.core.pretrained.weights import score_scale

PREFIX = "micrographia_"
INSIDE = ("rot_q", "rot_k", "scores", "pattern")


class Implementation:
    """The attention implementation in a model's configuration, which a run may replace until it ends."""

    def __init__(self, body: Body) -> None:
        configs = [getattr(module, "config", None) for module in body.module.modules()]
        naming = [each for each in [*configs, body.config] if getattr(each, "_attn_implementation", None) is not None]
        self._configs = list({id(config): config for config in naming}.values())
        own = [place for place, config in enumerate(self._configs) if config is body.config]
        self._own = own[0] if own else -1
        self._before: list[list[str | None]] = []

    @property
    def own(self) -> str:
        """The user's choice, also while a run uses another."""
        if not self._configs:
            return "eager"
        named = self._before[0][self._own] if self._before else self._configs[self._own]._attn_implementation
        return named or "eager"

    @property
    def is_renamed(self) -> bool:
        return bool(self._before)

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        self._before.append([config._attn_implementation for config in self._configs])
        try:
            for config in self._configs:
                config._attn_implementation = name
            yield
        finally:
            for config, before in zip(self._configs, self._before.pop()):
                config._attn_implementation = before


def needs_eager(context: HookContext, implementation: str) -> bool:
    """Whether this run needs eager attention in place of the configured implementation."""
    kinds = ("scores", "pattern")
    edited = any(context.edits(*kinds, layer=i) for i in context.layers)
    kept = any(context.wants(*kinds, layer=i) for i in context.layers)
    return implementation != "eager" and (edited or (kept and (context.grad or implementation != "sdpa")))


@contextmanager
def attending(
    body: Body, implementation: Implementation, context: HookContext, *, eager: bool, padded: bool
) -> Iterator[None]:
    """Pass attention internals to the run's context; the implementation is restored afterwards.

    `padded`: some rows are padded, so that eager attention in float64 needs our mask (`_finite_mask`).
    """
    name = "eager" if eager else implementation.own
    wanted = [i for i in context.layers if i is not None and context.wants(*INSIDE, layer=i)]
    finite = padded and name == "eager" and not body.family.eager_method and body.dtype == torch.float64
    ours = wanted or finite
    if not ours and not implementation.is_renamed:
        yield
    elif not ours:
        with implementation.named(name):
            yield
    elif body.family.inline_attention:
        step = InlineAttention(body, context, _kept_beside)
        modules = {layer: body.part(body.family.attn, layer) for layer in wanted}
        masked = _registered(name) if finite else name
        with implementation.named(masked), TorchCalls(context, modules, step, step.entered):
            yield
    elif name == "eager" and body.family.eager_method:
        own = [(layer, body.part(body.family.attn, layer)) for layer in wanted]
        wrapped = [(part, body.family.eager_method, _method(body, context, part, layer)) for layer, part in own]
        with implementation.named(name), replaced(wrapped):
            yield
    else:
        with implementation.named(_registered(name)):
            yield


def _registered(name: str) -> str:
    """The name of our wrapper of the implementation `name`, registered with its mask function at first use."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ours = PREFIX + name
    if ours not in ALL_ATTENTION_FUNCTIONS:
        if name not in ALL_MASK_ATTENTION_FUNCTIONS or (name != "eager" and name not in ALL_ATTENTION_FUNCTIONS):
            raise UserError(
                f"Sites inside attention were asked for, but attention implementation {name!r} has no mask function to "
                "go with it. Load the model with attn_implementation 'eager' or 'sdpa'."
            )

        def attend(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
            call = _eager_function(module) if name == "eager" else ALL_ATTENTION_FUNCTIONS[name]
            return _attend(call, module, *args, **kwargs)

        AttentionInterface.register(ours, attend)
        mask = ALL_MASK_ATTENTION_FUNCTIONS[name]
        AttentionMaskInterface.register(ours, _finite_mask(mask) if name == "eager" else mask)
    return ours


def _finite_mask(make: Callable[..., Any]) -> Callable[..., Any]:
    """The mask that `make` makes, with float32's lowest number in place of float64's.

    Eager attention takes its softmax in float32, where float64's lowest number is -inf and a row that may attend to
    nothing (padding) becomes NaN, which its value then carries to every later position. The float32 number weighs 0 in
    every other row just so, bit for bit.
    """

    def finite(*args: Any, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Any:
        return make(*args, dtype=torch.float32 if dtype == torch.float64 else dtype, **kwargs)

    return finite


def _eager_function(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """The eager attention that the module's own file defines."""
    for kind in type(module).__mro__:
        found = getattr(sys.modules[kind.__module__], "eager_attention_forward", None)
        if found is not None:
            return found
    raise UserError(
        f"Sites inside attention were asked for; {type(module).__name__} comes from a file without an eager attention "
        "function. Name its attention method in the family's row (eager_method)."
    )


def _attend(
    call: Callable[..., tuple[Tensor, Tensor | None]],
    module: nn.Module,
    q_BHQE: Tensor,
    k_BHKE: Tensor,
    v_BHKE: Tensor,
    mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    context = current_context()
    layer = None if context is None else context.attention_layers.get(id(module))
    if context is None or layer is None:
        return call(module, q_BHQE, k_BHKE, v_BHKE, mask, **kwargs)
    q, k = _rotated(context, layer, q_BHQE, k_BHKE)
    out_BQHE, pattern = call(module, q, k, v_BHKE, mask, **kwargs)
    if not context.wants("scores", "pattern", layer=layer):
        return out_BQHE, pattern
    scaling, softcap = kwargs.get("scaling"), kwargs.get("softcap")
    causal = kwargs.get("is_causal")
    allowed = _allowed(mask, q, k, getattr(module, "is_causal", True) if causal is None else causal)
    scores = _scores(q, k, allowed, q.shape[-1] ** -0.5 if scaling is None else scaling, softcap)
    change = _patterns(context, layer, scores, pattern, kwargs.get("s_aux"))
    if change is not None:
        out_BQHE = out_BQHE + (change @ _for_each_head(v_BHKE, change.shape[1])).transpose(1, 2)
    return out_BQHE, pattern


def _rotated(context: HookContext, layer: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys after rotary, at this run's positions only, without the cached keys of earlier ones."""
    if context.wants("rot_q", layer=layer):
        tapped = context("rot_q", layer, q.transpose(1, 2))
        q = tapped.transpose(1, 2) if context.on_path("rot_q", layer) else q
    if context.wants("rot_k", layer=layer):
        before = k.shape[2] - q.shape[2]
        tapped = context("rot_k", layer, k[:, :, before:].transpose(1, 2))
        if context.on_path("rot_k", layer):
            new = tapped.transpose(1, 2)
            k = torch.cat([k[:, :, :before], new], 2) if before else new
    return q, k


def _scores(q: Tensor, k: Tensor, allowed: Tensor | None, scaling: float, softcap: float | None) -> Tensor:
    scores = q @ _for_each_head(k, q.shape[1]).transpose(-1, -2) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    return scores if allowed is None else scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)


def _for_each_head(x_BKKE: Tensor, n_heads: int) -> Tensor:
    """Keys or values, each for all the query heads that share it."""
    groups = n_heads // x_BKKE.shape[1]
    return x_BKKE if groups == 1 else x_BKKE.repeat_interleave(groups, 1)


def _allowed(mask: Tensor | None, q: Tensor, k: Tensor, causal: bool) -> Tensor | None:
    """Which pairs may attend, from a boolean or additive mask; causal without one, as in sdpa."""
    if mask is not None:
        return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min
    if not causal or q.shape[2] == 1:
        return None
    return torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])


def _patterns(
    context: HookContext, layer: int, scores: Tensor, pattern: Tensor | None, sinks: Tensor | None = None
) -> Tensor | None:
    """Pass scores and pattern to the Tap; return its change of the pattern, None for no change.

    `pattern` is the one that attention itself used: unchanged, it is already on the path.
    """
    used = _softmax(scores, sinks) if pattern is None else pattern
    now = used
    if context.wants("scores", layer=layer):
        tapped = context("scores", layer, scores.view_as(scores))
        if context.on_path("scores", layer):
            now = used + (_softmax(tapped, sinks) - _softmax(scores, sinks))
    if context.wants("pattern", layer=layer):
        tapped = context("pattern", layer, now)
        now = tapped if context.on_path("pattern", layer) else now
    return None if now is used or pattern is None else now - used


def _kept_beside(context: HookContext, layer: int, q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> None:
    if context.wants("scores", "pattern", layer=layer):
        allowed = _allowed(mask, q, k, causal)
        _patterns(context, layer, _scores(q, k, allowed, q.shape[-1] ** -0.5, None), None)


def _softmax(scores: Tensor, sinks: Tensor | None = None) -> Tensor:
    """Softmax in float32 at least, as in the models; gpt-oss has one score more a head, of no key (its sink)."""
    wide = torch.promote_types(scores.dtype, torch.float32)
    if sinks is None:
        return scores.softmax(-1, dtype=wide).to(scores.dtype)
    more = sinks.view(-1, 1, 1).expand(*scores.shape[:-1], 1).to(scores.dtype)
    return torch.cat([scores, more], -1).softmax(-1, dtype=wide)[..., :-1].to(scores.dtype)


def _method(body: Body, context: HookContext, module: nn.Module, layer: int) -> Callable[..., tuple[Tensor, Tensor]]:
    family = body.family
    attend: Callable[..., tuple[Tensor, Tensor]] = getattr(module, family.eager_method)
    scaling = score_scale(body, layer)

    def wrapped(q: Tensor, k: Tensor, v: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, k = _rotated(context, layer, q, k) if context.is_active() else (q, k)
        out, pattern = attend(q, k, v, attention_mask)
        if not context.is_active() or not context.wants("scores", "pattern", layer=layer):
            return out, pattern
        allowed = _allowed(attention_mask, q, k, causal=True)
        if family.eager_mask:
            n_q, n_k = q.shape[2], k.shape[2]
            table: Tensor = getattr(module, family.eager_mask)[:, :, n_k - n_q : n_k, :n_k].bool()
            allowed = table if allowed is None else table & allowed
        change = _patterns(context, layer, _scores(q, k, allowed, scaling, None), pattern)
        if change is not None:
            added = change @ v
            out = out + (added if family.eager_heads_first else added.transpose(1, 2))
        return out, pattern

    return wrapped
