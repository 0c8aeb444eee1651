"""PyTorch hooks of one run: installed for its Sites only, and always removed when it ends.

A `HookContext` connects the run's Tap with the modules of its Sites. Hooks act for their own run only: nested runs (an
edit that runs the model) do not trigger each other's hooks, and the user's hooks are never touched. A value that is
only kept is read off the path; one that is edited or differentiated is replaced on the path by the tensor that the Tap
returns.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from micrographia.core.edits import wide
from micrographia.core.model import Tap
from micrographia.core.pretrained.families import Norm
from micrographia.core.pretrained.modules import COPIED, PLAIN, Accessor, Body, flattened, within
from micrographia.core.pretrained.weights import check_plain, results
from micrographia.core.sites import Site

Step = Callable[[Tensor, Tensor], Tensor]
"""(tensor at a place, first input of the module) -> the tensor to continue with."""

Side = Literal["in", "out"]

_CURRENT: ContextVar["HookContext | None"] = ContextVar("current_context", default=None)


class Hook(NamedTuple):
    """Steps at the input or output of one module."""

    module: nn.Module
    side: Side
    step: Step


class HookContext:
    """The Tap of one run, the Sites that it keeps or edits, and values stored between two hooks."""

    def __init__(
        self, body: Body, tap: Tap, kept: Iterable[Site], edited: Iterable[Site], *, grad: bool, batch: int
    ) -> None:
        self._tap = tap
        self.attention_layers = body.attention_layers
        self._edited = {(site.kind, site.layer) for site in edited}
        self._wanted = self._edited | {(site.kind, site.layer) for site in kept}
        self.layers = {layer for _, layer in self._wanted}
        self.grad = grad
        self.batch = batch
        self.memory: dict[tuple[str, int | None], Tensor] = {}

    def __call__(self, kind: str, layer: int | None, value: Tensor) -> Tensor:
        """Pass a value to the Tap. Runs that an edit starts meanwhile do not trigger this run's hooks."""
        token = _CURRENT.set(None)
        try:
            return self._tap(kind, layer, value)
        finally:
            _CURRENT.reset(token)

    def wants(self, *kinds: str, layer: int | None) -> bool:
        return any((kind, layer) in self._wanted for kind in kinds)

    def edits(self, *kinds: str, layer: int | None) -> bool:
        return any((kind, layer) in self._edited for kind in kinds)

    def on_path(self, kind: str, layer: int | None) -> bool:
        """Whether the run must continue with the value that the Tap returns."""
        return self.edits(kind, layer=layer) or (self.grad and self.wants(kind, layer=layer))

    def is_active(self) -> bool:
        return _CURRENT.get() is self


def current_context() -> HookContext | None:
    """The context of the current run, None outside of runs."""
    return _CURRENT.get()


@contextmanager
def installed_hooks(context: HookContext, hooks: Sequence[Hook]) -> Iterator[None]:
    """Install the hooks and make the context current; both are undone on exit, also after an exception."""
    handles: list[Any] = []
    token = _CURRENT.set(context)
    try:
        for module, side, steps in _gathered(hooks):
            handles.append(_install(context, module, side, steps))
        yield
    finally:
        _CURRENT.reset(token)
        for handle in handles:
            handle.remove()


def _gathered(hooks: Sequence[Hook]) -> list[tuple[nn.Module, Side, list[Step]]]:
    """One hook per module and side, its steps in order."""
    found: dict[tuple[int, Side], tuple[nn.Module, Side, list[Step]]] = {}
    for module, side, step in hooks:
        found.setdefault((id(module), side), (module, side, []))[2].append(step)
    return list(found.values())


def _install(context: HookContext, module: nn.Module, side: Side, steps: Sequence[Step]) -> Any:
    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not context.is_active():
            return None
        value = _through(steps, args[0], args[0])
        return None if value is args[0] else (value, *args[1:])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not context.is_active():
            return None
        several = isinstance(output, tuple)
        old = output[0] if several else output
        value = _through(steps, old, args[0])
        return None if value is old else (value, *output[1:]) if several else value

    return module.register_forward_pre_hook(before) if side == "in" else module.register_forward_hook(after)


def _through(steps: Sequence[Step], value: Tensor, read: Tensor) -> Tensor:
    for step in steps:
        value = step(value, read)
    return value


def hooks_for(body: Body, context: HookContext, layers: range, *, from_tokens: bool, to_logits: bool) -> list[Hook]:
    """The hooks that this run needs in these layers, before them and after them."""
    if body.family.stream_only:
        embed = body.part(body.family.embed)
        entry = _plain(body, context, "embed", None, embed, "out") if from_tokens else []
        return [*entry, *(hook for i in layers for hook in _stream_hooks(body, context, i))]
    found = _embedding_hooks(body, context) if from_tokens else []
    for layer in (layer for layer in layers if layer in context.layers):
        found += _attention_hooks(body, context, layer)
        found += _sum_hooks(body, context, layer)
        found += _mlp_hooks(body, context, layer)
        found += _plain(body, context, "resid_post", layer, body.layers[layer], "out")
    if to_logits:
        found += _norm_hooks(body, context, "final_norm", None, body.find(body.family.final_norm), PLAIN)
    return found


def _stream_hooks(body: Body, context: HookContext, layer: int) -> list[Hook]:
    block = body.layers[layer]
    return [
        *_plain(body, context, "resid_pre", layer, block, "in"),
        *_plain(body, context, "resid_post", layer, block, "out"),
    ]


def _embedding_hooks(body: Body, context: HookContext) -> list[Hook]:
    family = body.family
    embed = body.find(family.embed_projection) or body.part(family.embed)
    found = _plain(body, context, "embed", None, embed, "out")
    if context.wants("pos_embed", layer=None):
        rows = Accessor(lambda x: x.expand(context.batch, -1, -1), lambda x, new: new)
        found += _plain(body, context, "pos_embed", None, body.part(family.pos_embed), "out", rows)
    return found


def _attention_hooks(body: Body, context: HookContext, layer: int) -> list[Hook]:
    family = body.family
    found = _plain(body, context, "resid_pre", layer, body.layers[layer], "in")
    if _follows_mid(body, context, layer):
        found.append(Hook(body.layers[layer], "in", _remember(context, "resid", layer)))
    found += _norm_hooks(body, context, "attn_norm", layer, body.find(family.attn_norm, layer), PLAIN)
    for name, part in zip("qkv", family.qkv):
        if context.wants(name, layer=layer):
            module = body.part(part.path, layer)
            found += _plain(body, context, name, layer, module, "out", body.heads(part, name))
    out = body.part(family.o, layer)
    if context.wants("z", layer=layer):
        shape = body.shape
        split = Accessor(lambda x: x.unflatten(-1, (shape.n_heads, shape.d_head)), lambda x, new: new.flatten(-2))
        found += _plain(body, context, "z", layer, out, "in", split)
    if context.wants("result", layer=layer):
        found.append(Hook(out, "out", _result(body, context, layer)))
    return found


def _sum_hooks(body: Body, context: HookContext, layer: int) -> list[Hook]:
    """attn_raw, attn_out, and the residual stream between attention and MLP."""
    family = body.family
    out = body.part(family.o, layer)
    post = body.find(family.attn_post_norm, layer)
    found: list[Hook] = []
    if post is not None and not family.post_ln:
        found += _plain(body, context, "attn_raw", layer, out, "out")
        out = post
    found += _plain(body, context, "attn_out", layer, out, "out")
    if family.post_ln:
        return found + _plain(body, context, "resid_mid", layer, post, "out", _mid_accessor(body, context))
    reader = body.find(family.mlp_norm or family.mlp, layer)
    if _follows_mid(body, context, layer):
        assert reader is not None
        return [*found, Hook(out, "out", _mid(context, layer)), Hook(reader, "in", _recall(body, context, layer))]
    return found + _plain(body, context, "resid_mid", layer, reader, "in", _mid_accessor(body, context))


def _mid_accessor(body: Body, context: HookContext) -> Accessor:
    """OPT flattens the residual stream before its MLP; in a post-LN model, after it."""
    flat = body.family.flattened_mlp and not body.family.post_ln
    return flattened(context.batch) if flat else PLAIN


def _mlp_hooks(body: Body, context: HookContext, layer: int) -> list[Hook]:
    family = body.family
    accessor = flattened(context.batch) if family.flattened_mlp else PLAIN
    found = _norm_hooks(body, context, "mlp_norm", layer, body.find(family.mlp_norm, layer), accessor)
    if body.has_experts(layer):
        return found + _expert_hooks(body, context, layer)
    if context.wants("mlp_up", layer=layer):
        shared = within(body.share(family.up)) if family.up.share else PLAIN
        found += _plain(body, context, "mlp_up", layer, body.part(family.up.path, layer), "out", shared)
    if family.gate is not None and family.gate.share:  # activations of a slice and of its copy round differently
        shared = within(body.share(family.gate))
        found += _plain(body, context, "mlp_pre", layer, body.part(family.gate.path, layer), "out", shared)
    else:
        found += _plain(body, context, "mlp_pre", layer, body.find(family.act, layer), "in", accessor)
    down, post = body.part(family.down, layer), body.find(family.mlp_post_norm, layer)
    found += _plain(body, context, "neurons", layer, down, "in", accessor)
    if post is not None and not family.post_ln:
        return [
            *found,
            *_plain(body, context, "mlp_raw", layer, down, "out", accessor),
            *_plain(body, context, "mlp_out", layer, post, "out"),
        ]
    return found + _plain(body, context, "mlp_out", layer, down, "out", COPIED if family.sums_in_place else accessor)


def _expert_hooks(body: Body, context: HookContext, layer: int) -> list[Hook]:
    """The experts' parts; what their router computes is tapped in `experts`."""
    found: list[Hook] = []
    if context.wants("expert_out", layer=layer):
        found.append(Hook(body.part(body.family.experts, layer), "out", _expert_out(body, context, layer)))
    return found + _plain(body, context, "mlp_out", layer, body.part(body.family.mlp, layer), "out")


def _expert_out(body: Body, context: HookContext, layer: int) -> Step:
    """Each expert's part of the sum, computed off the path from the tokens that chose it; an edit adds its change."""
    experts, stays = body.part(body.family.experts, layer), context.on_path("expert_out", layer)

    def step(value: Tensor, tokens: Tensor) -> Tensor:
        weights, chosen = context.memory["router_weights", layer], context.memory["router_choice", layer]
        parts = tokens.new_zeros(len(tokens), body.n_experts, tokens.shape[-1])
        for expert in chosen.unique().tolist():
            rows, slots = torch.where(chosen == expert)
            part = experts.forward(tokens[rows], chosen[rows, slots, None], weights[rows, slots, None])
            parts = parts.index_put((rows, torch.full_like(rows, expert)), part.to(parts.dtype))
        by_prompt = flattened(context.batch).read(parts)
        tapped = context("expert_out", layer, by_prompt.view_as(by_prompt))
        return value + (tapped - by_prompt).flatten(0, 1).sum(1) if stays else value

    return step


def _plain(
    body: Body,
    context: HookContext,
    kind: str,
    layer: int | None,
    module: nn.Module | None,
    side: Side,
    accessor: Accessor = PLAIN,
) -> list[Hook]:
    """The hook of one Site whose value is a module's input or output, tapped through `accessor`."""
    if not context.wants(kind, layer=layer):
        return []
    assert module is not None, f"{body.family.name} lists {kind} but has no module for it"
    stays = context.on_path(kind, layer)

    def step(value: Tensor, read: Tensor) -> Tensor:
        tapped = context(kind, layer, accessor.read(value))
        return accessor.write(value, tapped) if stays else value

    return [Hook(module, side, step)]


def _norm_hooks(
    body: Body, context: HookContext, kind: str, layer: int | None, module: nn.Module | None, accessor: Accessor
) -> list[Hook]:
    scale = f"{kind}_scale"
    found = []
    if context.wants(scale, layer=layer) and module is not None:
        check_plain(body, module)
        found.append(Hook(module, "out", _scale(body.family.norm, module, context, scale, layer, accessor)))
    return found + _plain(body, context, kind, layer, module, "out", accessor)


def _scale(
    norm: Norm, module: nn.Module, context: HookContext, kind: str, layer: int | None, accessor: Accessor
) -> Step:
    """The scale, computed off the path; a changed one rescales the module's output: bias + (y - bias) * scale / new.

    The ratio's numerator is the scale as a function of x, its denominator the Tap's value: an unchanged scale then
    changes neither value nor gradient, a frozen one removes its gradient.
    """
    stays = context.on_path(kind, layer)
    bias: Any = getattr(module, "bias", None) if norm.kind == "layernorm" else None

    def step(value: Tensor, x: Tensor) -> Tensor:
        scale = norm_scale(norm, module, x)
        tapped = context(kind, layer, accessor.read(scale.view_as(scale)))
        if not stays:
            return value
        ratio = scale / accessor.write(scale, tapped) - 1
        return value + (value if bias is None else value - bias) * ratio

    return step


def norm_scale(norm: Norm, module: nn.Module, x: Tensor) -> Tensor:
    """The divisor of the norm, (..., 1), in the dtype of x; computed in float32 at least, as in the norms."""
    centred = wide(x)
    if norm.kind == "layernorm":
        centred = centred - centred.mean(-1, keepdim=True)
    eps: float = getattr(module, norm.eps) if isinstance(norm.eps, str) else norm.eps
    return (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt().to(x.dtype)


def _result(body: Body, context: HookContext, layer: int) -> Step:
    """Each head's part of the attention output, computed off the path; an edit adds its change."""
    stays = context.on_path("result", layer)

    def step(value: Tensor, z: Tensor) -> Tensor:
        result = results(body, z, layer)
        tapped = context("result", layer, result.view_as(result))
        return value + (tapped - result).sum(-2) if stays else value

    return step


def _follows_mid(body: Body, context: HookContext, layer: int) -> bool:
    return not body.family.post_ln and context.edits("resid_mid", layer=layer)


def _remember(context: HookContext, name: str, layer: int) -> Step:
    def step(value: Tensor, read: Tensor) -> Tensor:
        context.memory[name, layer] = value
        return value

    return step


def _mid(context: HookContext, layer: int) -> Step:
    """An edit of resid_mid: its change is added to attention's output, through which it reaches the skip connection.

    The layer computes the sum itself, out of reach of hooks, so the skip connection is exact to one rounding; the MLP's
    norm gets the edited value itself (`_recall`).
    """

    def step(value: Tensor, read: Tensor) -> Tensor:
        mid = value + context.memory["resid", layer].to(value.device)
        tapped = context("resid_mid", layer, mid.view_as(mid))
        context.memory["mid", layer] = tapped
        return value + (tapped - mid)

    return step


def _recall(body: Body, context: HookContext, layer: int) -> Step:
    accessor = _mid_accessor(body, context)
    return lambda value, read: accessor.write(value, context.memory["mid", layer])
