"""How one run meets the modules: hooks that are there for its length only, and only for what it asked for.

A `Listener` carries the run's Tap to the places where its Sites are. Hooks listen for the run they were made for: runs
within runs (an edit that runs the model) do not hear each other, and a hook of the user's is never touched. A value
that is only kept is read beside the path; one that is edited, or differentiated, goes on in the path, as the tensor
that the Tap gave back.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from micrographia.core.model import Tap
from micrographia.core.pretrained.body import PLAIN, Body, Lens, flattened, within
from micrographia.core.pretrained.families import Norm
from micrographia.core.pretrained.weights import results
from micrographia.core.sites import Site

Step = Callable[[Tensor, Tensor], Tensor]
"""Takes the tensor at a place, and the first input of the module; gives the tensor to go on with."""

Side = Literal["in", "out"]

_HEARD: ContextVar["Listener | None"] = ContextVar("heard", default=None)


class Hook(NamedTuple):
    """Steps at the input or output of one module."""

    module: nn.Module
    side: Side
    step: Step


class Listener:
    """The Tap of one run, what it wants where, and what the run remembers between two hooks."""

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
        """Hand a value to the Tap. Whatever an edit runs meanwhile is not heard by this run."""
        token = _HEARD.set(None)
        try:
            return self._tap(kind, layer, value)
        finally:
            _HEARD.reset(token)

    def wants(self, *kinds: str, layer: int | None) -> bool:
        return any((kind, layer) in self._wanted for kind in kinds)

    def edits(self, *kinds: str, layer: int | None) -> bool:
        return any((kind, layer) in self._edited for kind in kinds)

    def on_path(self, kind: str, layer: int | None) -> bool:
        """Whether the run must go on with what the Tap gives back."""
        return self.edits(kind, layer=layer) or (self.grad and self.wants(kind, layer=layer))

    def is_heard(self) -> bool:
        return _HEARD.get() is self


def heard() -> Listener | None:
    """The run that is under way in this context."""
    return _HEARD.get()


@contextmanager
def listening(listener: Listener, hooks: Sequence[Hook]) -> Iterator[None]:
    """Install the hooks and be heard; both end here, also when an exception passes."""
    handles: list[Any] = []
    token = _HEARD.set(listener)
    try:
        for module, side, steps in _gathered(hooks):
            handles.append(_install(listener, module, side, steps))
        yield
    finally:
        _HEARD.reset(token)
        for handle in handles:
            handle.remove()


def _gathered(hooks: Sequence[Hook]) -> list[tuple[nn.Module, Side, list[Step]]]:
    """One hook per module and side, its steps in order."""
    found: dict[tuple[int, Side], tuple[nn.Module, Side, list[Step]]] = {}
    for module, side, step in hooks:
        found.setdefault((id(module), side), (module, side, []))[2].append(step)
    return list(found.values())


def _install(listener: Listener, module: nn.Module, side: Side, steps: Sequence[Step]) -> Any:
    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not listener.is_heard():
            return None
        value = _through(steps, args[0], args[0])
        return None if value is args[0] else (value, *args[1:])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not listener.is_heard():
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


def hooks_for(body: Body, listener: Listener, layers: range, *, from_tokens: bool, to_logits: bool) -> list[Hook]:
    """The hooks that this run needs in these layers, before them and behind them."""
    found = _embedding_hooks(body, listener) if from_tokens else []
    for layer in (layer for layer in layers if layer in listener.layers):
        found += _attention_hooks(body, listener, layer)
        found += _sum_hooks(body, listener, layer)
        found += _mlp_hooks(body, listener, layer)
        found += _plain(body, listener, "resid_post", layer, body.layers[layer], "out")
    if to_logits:
        found += _norm_hooks(body, listener, "final_norm", None, body.find(body.family.final_norm), PLAIN)
    return found


def _embedding_hooks(body: Body, listener: Listener) -> list[Hook]:
    family = body.family
    embed = body.find(family.embed_projection) or body.part(family.embed)
    found = _plain(body, listener, "embed", None, embed, "out")
    if listener.wants("pos_embed", layer=None):
        rows = Lens(lambda x: x.expand(listener.batch, -1, -1), lambda x, new: new)
        found += _plain(body, listener, "pos_embed", None, body.part(family.pos_embed), "out", rows)
    return found


def _attention_hooks(body: Body, listener: Listener, layer: int) -> list[Hook]:
    family = body.family
    found = _plain(body, listener, "resid_pre", layer, body.layers[layer], "in")
    if _follows_mid(body, listener, layer):
        found.append(Hook(body.layers[layer], "in", _remember(listener, "resid", layer)))
    found += _norm_hooks(body, listener, "attn_norm", layer, body.find(family.attn_norm, layer), PLAIN)
    for name, part in zip("qkv", family.qkv):
        if listener.wants(name, layer=layer):
            module = body.part(part.path, layer)
            found += _plain(body, listener, name, layer, module, "out", body.heads(part, name))
    out = body.part(family.o, layer)
    if listener.wants("z", layer=layer):
        shape = body.shape
        split = Lens(lambda x: x.unflatten(-1, (shape.n_heads, shape.d_head)), lambda x, new: new.flatten(-2))
        found += _plain(body, listener, "z", layer, out, "in", split)
    if listener.wants("result", layer=layer):
        found.append(Hook(out, "out", _result(body, listener, layer)))
    return found


def _sum_hooks(body: Body, listener: Listener, layer: int) -> list[Hook]:
    """attn_raw, attn_out, and the residual stream between attention and MLP."""
    family = body.family
    out = body.part(family.o, layer)
    post = body.find(family.attn_post_norm, layer)
    found: list[Hook] = []
    if post is not None and not family.post_ln:
        found += _plain(body, listener, "attn_raw", layer, out, "out")
        out = post
    found += _plain(body, listener, "attn_out", layer, out, "out")
    if family.post_ln:
        return found + _plain(body, listener, "resid_mid", layer, post, "out", _mid_lens(body, listener))
    reader = body.find(family.mlp_norm or family.mlp, layer)
    if _follows_mid(body, listener, layer):
        assert reader is not None
        return [*found, Hook(out, "out", _mid(listener, layer)), Hook(reader, "in", _recall(body, listener, layer))]
    return found + _plain(body, listener, "resid_mid", layer, reader, "in", _mid_lens(body, listener))


def _mid_lens(body: Body, listener: Listener) -> Lens:
    """OPT flattens the residual stream before its MLP; with the norm behind the sum, after it."""
    flat = body.family.flattened_mlp and not body.family.post_ln
    return flattened(listener.batch) if flat else PLAIN


def _mlp_hooks(body: Body, listener: Listener, layer: int) -> list[Hook]:
    family = body.family
    lens = flattened(listener.batch) if family.flattened_mlp else PLAIN
    found = _norm_hooks(body, listener, "mlp_norm", layer, body.find(family.mlp_norm, layer), lens)
    if listener.wants("mlp_up", layer=layer):
        shared = within(body.share(family.up)) if family.up.share else PLAIN
        found += _plain(body, listener, "mlp_up", layer, body.part(family.up.path, layer), "out", shared)
    if family.gate is not None and family.gate.share:  # activations of a slice and of its copy round differently
        shared = within(body.share(family.gate))
        found += _plain(body, listener, "mlp_pre", layer, body.part(family.gate.path, layer), "out", shared)
    else:
        found += _plain(body, listener, "mlp_pre", layer, body.find(family.act, layer), "in", lens)
    down, post = body.part(family.down, layer), body.find(family.mlp_post_norm, layer)
    found += _plain(body, listener, "neurons", layer, down, "in", lens)
    if post is not None and not family.post_ln:
        return [
            *found,
            *_plain(body, listener, "mlp_raw", layer, down, "out", lens),
            *_plain(body, listener, "mlp_out", layer, post, "out"),
        ]
    return found + _plain(body, listener, "mlp_out", layer, down, "out", lens)


def _plain(
    body: Body,
    listener: Listener,
    kind: str,
    layer: int | None,
    module: nn.Module | None,
    side: Side,
    lens: Lens = PLAIN,
) -> list[Hook]:
    """The hook of one Site whose value is a module's input or output, seen through `lens`."""
    if not listener.wants(kind, layer=layer):
        return []
    assert module is not None, f"{body.family.name} lists {kind} but has no module for it"
    stays = listener.on_path(kind, layer)

    def step(value: Tensor, read: Tensor) -> Tensor:
        seen = listener(kind, layer, lens.read(value))
        return lens.write(value, seen) if stays else value

    return [Hook(module, side, step)]


def _norm_hooks(
    body: Body, listener: Listener, kind: str, layer: int | None, module: nn.Module | None, lens: Lens
) -> list[Hook]:
    scale = f"{kind}_scale"
    found = []
    if listener.wants(scale, layer=layer) and module is not None:
        found.append(Hook(module, "out", _scale(body.family.norm, module, listener, scale, layer, lens)))
    return found + _plain(body, listener, kind, layer, module, "out", lens)


def _scale(norm: Norm, module: nn.Module, listener: Listener, kind: str, layer: int | None, lens: Lens) -> Step:
    """The scale, computed beside; another one divides what the module gave: bias + (y - bias) * scale / new.

    The ratio's numerator is the scale as a function of x, its denominator what the Tap gave back: an untouched scale
    then changes neither value nor gradient, a frozen one takes its gradient away.
    """
    stays = listener.on_path(kind, layer)
    bias: Any = getattr(module, "bias", None) if norm.kind == "layernorm" else None

    def step(value: Tensor, x: Tensor) -> Tensor:
        scale = norm_scale(norm, module, x)
        seen = listener(kind, layer, lens.read(scale.view_as(scale)))
        if not stays:
            return value
        ratio = scale / lens.write(scale, seen) - 1
        return value + (value if bias is None else value - bias) * ratio

    return step


def norm_scale(norm: Norm, module: nn.Module, x: Tensor) -> Tensor:
    """What the norm divides by, (..., 1), in the dtype of x; computed in float32 at least, as the norms do."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if norm.kind == "layernorm":
        wide = wide - wide.mean(-1, keepdim=True)
    return (wide.pow(2).mean(-1, keepdim=True) + getattr(module, norm.eps)).sqrt().to(x.dtype)


def _result(body: Body, listener: Listener, layer: int) -> Step:
    """Each head's part of the attention output, beside the path; an edit adds what it changed."""
    stays = listener.on_path("result", layer)

    def step(value: Tensor, z: Tensor) -> Tensor:
        result = results(body, z, layer)
        seen = listener("result", layer, result.view_as(result))
        return value + (seen - result).sum(-2) if stays else value

    return step


def _follows_mid(body: Body, listener: Listener, layer: int) -> bool:
    return not body.family.post_ln and listener.edits("resid_mid", layer=layer)


def _remember(listener: Listener, name: str, layer: int) -> Step:
    def step(value: Tensor, read: Tensor) -> Tensor:
        listener.memory[name, layer] = value
        return value

    return step


def _mid(listener: Listener, layer: int) -> Step:
    """An edit of resid_mid: what it changes is added to attention's output, whence it reaches the skip.

    The stream that the layer sums itself is out of reach, so the skip is right to one rounding; the MLP's norm is
    handed the edited value itself (`_recall`).
    """

    def step(value: Tensor, read: Tensor) -> Tensor:
        mid = value + listener.memory["resid", layer].to(value.device)
        seen = listener("resid_mid", layer, mid.view_as(mid))
        listener.memory["mid", layer] = seen
        return value + (seen - mid)

    return step


def _recall(body: Body, listener: Listener, layer: int) -> Step:
    lens = _mid_lens(body, listener)
    return lambda value, read: lens.write(value, listener.memory["mid", layer])
