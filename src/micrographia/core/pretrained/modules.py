"""The modules, sizes and Sites of a Hugging Face model, found by its family's row.

A `Body` is made once per model and holds no tensor of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from micrographia.core.errors import UnknownModel, UserError
from micrographia.core.model import ModelShape
from micrographia.core.pretrained.families import Family, Location
from micrographia.core.sites import Site

MLP_KINDS = ("mlp_norm_scale", "mlp_norm", "router_logits", "router_probs", "expert_out")
MLP_KINDS += ("mlp_pre", "mlp_up", "neurons", "mlp_raw", "mlp_out")


UNLIMITED = 1_000_000


class SiteList(tuple[Site, ...]):
    """The Sites in order, with membership tests in constant time."""

    @cached_property
    def _set(self) -> frozenset[Site]:
        return frozenset(self)

    def __contains__(self, site: object) -> bool:
        return site in self._set


class Accessor(NamedTuple):
    """How to read a Site's value in a module's tensor, and how to replace it."""

    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Body:
    """The modules of one model. `module` is the whole, `layers` its blocks, `config` that of its language model."""

    module: nn.Module
    family: Family
    config: Any

    @property
    def dtype(self) -> torch.dtype:
        """That of the embedding, and so of the residual stream."""
        return next(self.part(self.family.embed).parameters()).dtype

    def find(self, path: str, layer: int | None = None) -> nn.Module | None:
        """The module at a dotted path of the model or of a layer; None where the path or the module is empty."""
        if not path:
            return None
        found: Any = self.module if layer is None else self.layers[layer]
        for name in path.split("."):
            found = getattr(found, name, None)
        return found

    def part(self, path: str, layer: int | None = None) -> nn.Module:
        """The module at this path. Raises UnknownModel where the family's row is wrong about it."""
        found = self.find(path, layer)
        if not path and not self.family.stream_only:
            raise UserError(
                f"Asked for the head of {type(self.module).__name__}, which predicts no words and has none. Its "
                "activations can be kept, edited and compared; for logits load a model with a language-modelling head."
            )
        if found is None and self.family.stream_only:
            raise UserError(
                f"{self.family.name}: a part of a block was asked for, of a model loaded with residual_only=True. Its "
                "Sites are embed, resid_pre, resid_post and logits; for more, its family needs a row."
            )
        if found is None:
            where = "the model" if layer is None else f"layer {layer}"
            raise UnknownModel(
                f"The row of {self.family.name} expects {path!r} in {where}; {type(self.module).__name__} has no "
                "such module. Pass a model with a language-modelling head, or correct the row in families.py."
            )
        return found

    @cached_property
    def layers(self) -> list[nn.Module]:
        found = self.find(self.family.layers)
        if not isinstance(found, nn.ModuleList):
            raise UnknownModel(
                f"{type(self.module).__name__} has no layers at {self.family.layers!r}, where {self.family.name} has "
                "them. Pass the model with its language-modelling head (such as AutoModelForCausalLM gives), and not "
                "what wraps it (of PEFT: the module that `merge_and_unload()` gives)."
            )
        return list(found)

    @cached_property
    def attention_layers(self) -> dict[int, int]:
        """id of an attention module -> its layer."""
        attn = self.family.attn
        return {id(self.part(attn, i)): i for i in range(len(self.layers))} if attn else {}

    @cached_property
    def shape(self) -> ModelShape:
        config = self.config
        if self.family.stream_only:
            return self._stream_shape
        n_heads, named = config.num_attention_heads, self.family.kv_heads
        head = self.find(self.family.head)
        return ModelShape(
            n_layers=len(self.layers),
            d_model=config.hidden_size,
            n_heads=n_heads,
            n_kv_heads=(named if isinstance(named, int) else getattr(config, named, None)) or n_heads,
            d_head=getattr(config, "head_dim", None) or config.hidden_size // n_heads,
            d_mlp=self._d_mlp,
            d_vocab=config.vocab_size,
            d_vocab_out=getattr(head, "out_features", config.vocab_size) if self.family.head else 0,
            n_ctx=self._n_ctx,
            causal=not self.family.encoder,
        )

    @property
    def _stream_shape(self) -> ModelShape:
        """No heads and no neurons; recurrent models have no limit of positions."""
        config, head = self.config, self.part(self.family.head)
        return ModelShape(
            n_layers=len(self.layers),
            d_model=config.hidden_size,
            n_heads=0,
            n_kv_heads=0,
            d_head=0,
            d_mlp=0,
            d_vocab=config.vocab_size,
            d_vocab_out=getattr(head, "out_features", config.vocab_size),
            n_ctx=max(getattr(config, "max_position_embeddings", None) or 0, 0) or UNLIMITED,
            causal=not self.family.encoder,
        )

    @property
    def _d_mlp(self) -> int:
        """The neurons of a layer's MLP, or where all layers have experts those of one expert."""
        plain = next((i for i in range(len(self.layers)) if not self.has_experts(i)), None)
        if plain is not None:
            return width_in(self.part(self.family.down, plain))
        return getattr(self.config, "moe_intermediate_size", self.config.intermediate_size)

    def has_experts(self, layer: int) -> bool:
        return self.find(self.family.router, layer) is not None

    @property
    def n_experts(self) -> int:
        layer = next((i for i in range(len(self.layers)) if self.has_experts(i)), None)
        return 0 if layer is None else int(getattr(self.part(self.family.router, layer), "num_experts"))  # noqa: B009

    @property
    def _n_ctx(self) -> int:
        """The usable rows of the position table, or the number of the config or of the row."""
        table = self.find(self.family.pos_embed)
        rows: int = getattr(table, "num_embeddings", 0)
        if rows:
            return rows - self.family.pos_offset
        return self.family.n_ctx or self.config.max_position_embeddings

    @cached_property
    def short_context(self) -> int | None:
        """Up to how many tokens LongRoPE turns by its short factors (Ding et al. 2024); None for other positions.

        transformers decides for a whole batch, by its longest row.
        """
        given: Any = getattr(self.config, "rope_parameters", None) or {}
        each = [given, *(inner for inner in given.values() if isinstance(inner, dict))]  # or one a type of layer
        found = [one["original_max_position_embeddings"] for one in each if one.get("rope_type") == "longrope"]
        return min(found, default=None)

    @cached_property
    def sites(self) -> SiteList:
        """Every Site, in the order in which a run reaches them."""
        family = self.family
        if family.stream_only:
            stream = [Site(kind, i) for i in range(self.shape.n_layers) for kind in ("resid_pre", "resid_post")]
            plain = getattr(self.part(family.embed), "embedding_dim", None) == self.shape.d_model
            return SiteList([*([Site("embed")] if plain else []), *stream, Site("logits")])
        found = [Site("embed"), *([Site("pos_embed")] if family.pos_embed else [])]
        for i in range(self.shape.n_layers):
            found += [Site(kind, i) for kind in layer_kinds(family, experts=self.has_experts(i))]
        final = self.find(family.final_norm) is not None
        found += [Site(kind) for kind in ("final_norm_scale", "final_norm") if final]
        return SiteList([*found, *([Site("logits")] if family.head else [])])

    def heads(self, part: Location, name: str) -> Accessor:
        """q, k or v as (batch, pos, head, d_head) in the output of their module."""
        shape = self.shape
        n_heads = shape.n_heads if name == "q" else shape.n_kv_heads
        if part.layout == "heads":
            return PLAIN
        if part.layout == "heads_first":
            return Accessor(lambda x: x.transpose(1, 2), lambda x, new: new.transpose(1, 2))
        if part.layout == "interleaved":
            return _interleaved(shape, name)
        split = Accessor(lambda x: x.unflatten(-1, (n_heads, shape.d_head)), lambda x, new: new.flatten(-2))
        return _within(self.share(part), split) if part.share else split

    def share(self, part: Location) -> slice:
        """Which of a fused output's last axis this part is."""
        shape = self.shape
        q, kv, f = shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head, shape.d_mlp
        ends = {"q": (0, q), "k": (q, q + kv), "v": (q + kv, q + 2 * kv), "gate": (0, f), "up": (f, 2 * f)}
        return slice(*ends[part.share]) if part.share else slice(None)


def layer_kinds(family: Family, *, experts: bool = False) -> list[str]:
    """The kinds of Sites in a layer, in the order of a run."""
    inner_norm = bool(family.attn_post_norm) and not family.post_ln
    present = {
        "attn_norm_scale": family.attn_norm,
        "attn_norm": family.attn_norm,
        "rot_q": family.rotary,
        "rot_k": family.rotary,
        "attn_raw": inner_norm,
        "resid_mid": not family.parallel,
        "mlp_norm_scale": family.mlp_norm,
        "mlp_norm": family.mlp_norm,
        "router_logits": experts,
        "router_probs": experts,
        "expert_out": experts,
        "mlp_pre": not experts,
        "neurons": not experts,
        "mlp_up": family.gate and not experts,
        "mlp_raw": inner_norm,
    }
    order = ("resid_pre", "attn_norm_scale", "attn_norm", "q", "k", "v", "rot_q", "rot_k", "scores", "pattern", "z")
    order += ("result", "attn_raw", "attn_out", "resid_mid", *MLP_KINDS, "resid_post")
    return [kind for kind in order if present.get(kind, True)]


def width_in(linear: nn.Module) -> int:
    """The input width of a projection (`nx` in GPT-2's Conv1D). Raises UserError for a wrapper that does not say it."""
    width = getattr(linear, "in_features", None) or getattr(linear, "nx", None)
    if width is None:
        raise UserError(
            f"The number of neurons was asked for. {type(linear).__name__} stands where a projection is expected and "
            "has no in_features. Pass the module without what wraps its projections (merge adapters first)."
        )
    return int(width)


@contextmanager
def replaced(calls: Iterable[tuple[nn.Module, str, Callable[..., Any]]]) -> Iterator[None]:
    """Functions in the place of modules' methods of these names; what was there is put back."""
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for module, name, call in calls:
            before.append((vars(module), name, vars(module).get(name)))
            vars(module)[name] = call
        yield
    finally:
        for own, name, old in reversed(before):
            own.pop(name) if old is None else own.update({name: old})


PLAIN = Accessor(lambda x: x, lambda x, new: new)
COPIED = Accessor(lambda x: x.clone(), lambda x, new: new.clone())


def flattened(batch: int) -> Accessor:
    """(batch, pos, unit) in a tensor of (batch * pos, unit)."""
    return Accessor(lambda x: x.unflatten(0, (batch, -1)), lambda x, new: new.flatten(0, 1))


def within(share: slice) -> Accessor:
    """A slice of the last axis."""
    return _within(share, PLAIN)


def _within(share: slice, inner: Accessor) -> Accessor:
    def write(x: Tensor, new: Tensor) -> Tensor:
        part = inner.write(x, new)
        return torch.cat([x[..., : share.start], part, x[..., share.stop :]], -1)

    return Accessor(lambda x: inner.read(x[..., share]), write)


def grouped(shape: ModelShape, x: Tensor, name: str) -> Tensor:
    """q, k or v (..., head, d_head) in a last axis that has them group by group: queries, then a key and a value."""
    return _groups(shape, x)[..., PLACES[name], :].flatten(-3, -2)


PLACES = {"q": slice(None, -2), "k": slice(-2, -1), "v": slice(-1, None)}


def _groups(shape: ModelShape, x: Tensor) -> Tensor:
    return x.unflatten(-1, (shape.n_kv_heads, shape.group + 2, shape.d_head))


def _interleaved(shape: ModelShape, name: str) -> Accessor:
    def write(x: Tensor, new: Tensor) -> Tensor:
        parts = {part: _groups(shape, x)[..., place, :] for part, place in PLACES.items()}
        parts[name] = new.unflatten(-2, parts[name].shape[-3:-1])
        return torch.cat([parts[part] for part in "qkv"], -2).flatten(-3)

    return Accessor(lambda x: grouped(shape, x, name), write)
