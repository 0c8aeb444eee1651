"""The weights of a Hugging Face model under the names that all families share, as `x @ W`, as views.

Nothing is folded or converted: gains are separate from matrices, keys and values have the model's own number of heads,
and a view shares its memory with the parameter. Only Gemma's gains are computed (1 + weight), and queries that lie in
groups between keys and values (Falcon 40B) are copied. `W_E` is the table as it is stored; the embedding is
`embed_scale` times it, and in BLOOM the norm of it.
Suffixes: H head, K key and value head, E d_head, D d_model, M neuron, V vocab.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from micrographia.core.errors import UserError
from micrographia.core.model import PerLayer
from micrographia.core.pretrained.families import Location
from micrographia.core.pretrained.modules import Body, grouped

OF_THE_WEIGHT = ("parametrizations", "_packed_params")
"""Modules within a module that hold its own weight: torch's parametrised and dynamically quantised ones."""


class PretrainedWeights:
    """Lazily sliced views. Of a layer: W_Q HDE, W_K and W_V KDE, W_O HED, W_in and W_gate DM, W_out MD."""

    def __init__(self, body: Body) -> None:
        self._body = body
        family = body.family

        def per_layer(read: Callable[[int], Any]) -> PerLayer:
            return PerLayer(read, len(body.layers))

        parts = list(zip(family.qkv, "qkv"))
        self.W_Q, self.W_K, self.W_V = (
            per_layer(lambda i, part=part, name=name: _heads_in(body, part, name, i)) for part, name in parts
        )
        self.b_Q, self.b_K, self.b_V = (
            per_layer(lambda i, part=part, name=name: _heads_bias(body, part, name, i)) for part, name in parts
        )
        self.W_O = per_layer(lambda i: output_weight(body, i))
        self.b_O = per_layer(lambda i: bias_of(body, body.part(family.o, i)))
        self.W_in, self.b_in = (
            per_layer(lambda i: _matrix(body, family.up, i)),
            per_layer(lambda i: _vector(body, family.up, i)),
        )
        gate = family.gate
        self.W_gate = per_layer(lambda i: None if gate is None else _matrix(body, gate, i))
        self.b_gate = per_layer(lambda i: None if gate is None else _vector(body, gate, i))
        # The score is score_scale * q . k of the Sites q and k, capped to cap * tanh(score / cap) where capped.
        self.score_scale = per_layer(lambda i: score_scale(body, i))
        self.score_cap = per_layer(lambda i: getattr(body.config, "attn_logit_softcapping", None))
        # A learned score a head that stands in the softmax beside those of the keys (gpt-oss); None without.
        self.score_sinks = per_layer(
            lambda i: _tensor(body, body.part(family.attn, i), "sinks") if family.sinks else None
        )
        self.W_out = per_layer(lambda i: matrix_of(body, _of_mlp(body, family.down, i)))
        self.b_out = per_layer(lambda i: bias_of(body, _of_mlp(body, family.down, i)))
        norms = {name: getattr(family, name) for name in ("attn_norm", "mlp_norm", "attn_post_norm", "mlp_post_norm")}
        for name, path in norms.items():
            setattr(self, f"{name}_w", per_layer(lambda i, path=path: gain_of(body, body.find(path, i))))
            setattr(self, f"{name}_b", per_layer(lambda i, path=path: bias_of(body, body.find(path, i))))

    @property
    def W_E(self) -> Float[Tensor, "vocab d_embed"]:
        return _stored(self._body, self._body.part(self._body.family.embed))

    @property
    def embed_scale(self) -> float:
        """The embedding is this times W_E (Gemma: sqrt(d_model); else 1)."""
        scale = getattr(self._body.part(self._body.family.embed), "embed_scale", 1.0)
        return float(scale)

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"] | None:
        family = self._body.family
        return _stored(self._body, self._body.part(family.pos_embed))[family.pos_offset :] if family.pos_embed else None

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        return _stored(self._body, self._body.part(self._body.family.head)).T

    @property
    def b_U(self) -> Float[Tensor, "vocab"] | None:
        return bias_of(self._body, self._body.part(self._body.family.head))

    @property
    def final_norm_w(self) -> Float[Tensor, "d_model"] | None:
        return gain_of(self._body, self._body.find(self._body.family.final_norm))

    @property
    def final_norm_b(self) -> Float[Tensor, "d_model"] | None:
        return bias_of(self._body, self._body.find(self._body.family.final_norm))

    def final_readout(self, direction: Float[Tensor, "d_out *n"]) -> Float[Tensor, "d_model *n"]:
        """The residual-stream direction that reads `direction` of the final norm's output, before division by the
        scale.

        gain * direction, minus its mean for LayerNorm. The norm's bias always adds `final_norm_b @ direction`. Gemma
        2's cap of the logits comes after. Raises UserError where there is more than a norm in between (BERT).
        """
        body = self._body
        if body.family.encoder:
            raise UserError(
                f"A linear readout was asked for, but {body.family.name} transforms the residual stream before it "
                "unembeds: logits are not linear in it. Read `final_norm` instead, which W_U unembeds."
            )
        projection = body.find(body.family.head_projection)
        if projection is not None:
            direction = _stored(body, projection).T @ direction
        w = self.final_norm_w
        if body.find(body.family.final_norm) is None:
            return direction
        gain = direction if w is None else direction * w.reshape(-1, *[1] * (direction.ndim - 1))
        return gain - gain.mean(0, keepdim=True) if body.family.norm.kind == "layernorm" else gain


def score_scale(body: Body, layer: int) -> float:
    """What q . k is multiplied with: an attribute of the attention module, or 1 / sqrt(d_head)."""
    if body.family.scaled_by == "d_head":
        return body.shape.d_head**-0.5
    return getattr(body.part(body.family.attn, layer), body.family.scaled_by) if body.family.scaled_by else 1.0


def output_weight(body: Body, layer: int) -> Float[Tensor, "head d_head d_model"]:
    return matrix_of(body, body.part(body.family.o, layer)).unflatten(0, (body.shape.n_heads, body.shape.d_head))


def results(
    body: Body, z: Float[Tensor, "batch pos head_d_head"], layer: int
) -> Float[Tensor, "batch pos head d_model"]:
    """The contribution of each head to the attention output: z W_O, head by head."""
    shape = body.shape
    W_O = output_weight(body, layer)
    return torch.einsum("bphe,hed->bphd", z.unflatten(-1, (shape.n_heads, shape.d_head)), W_O)


def matrix_of(body: Body, module: nn.Module) -> Float[Tensor, "into out"]:
    """A projection as `x @ W`."""
    return _stored(body, module) if body.family.transposed else _stored(body, module).T


def bias_of(body: Body, module: nn.Module | None) -> Tensor | None:
    return _own(body, module, "bias")


def gain_of(body: Body, module: nn.Module | None) -> Tensor | None:
    gain, offset = _own(body, module, "weight"), body.family.norm.offset
    return gain + offset if offset and gain is not None else gain


def _heads_in(body: Body, part: Location, name: str, layer: int) -> Tensor:
    """(head, d_model, d_head) of a projection to heads."""
    weight = matrix_of(body, body.part(part.projection, layer))
    n_heads = body.shape.n_heads if name == "q" else body.shape.n_kv_heads
    if part.layout == "interleaved":
        return grouped(body.shape, weight, name).transpose(0, 1)
    return weight[:, body.share(part)].unflatten(1, (n_heads, body.shape.d_head)).transpose(0, 1)


def _heads_bias(body: Body, part: Location, name: str, layer: int) -> Tensor | None:
    bias = bias_of(body, body.part(part.projection, layer))
    if bias is None:
        return None
    n_heads = body.shape.n_heads if name == "q" else body.shape.n_kv_heads
    if part.layout == "interleaved":
        return grouped(body.shape, bias, name)
    return bias[body.share(part)].unflatten(0, (n_heads, body.shape.d_head))


def _matrix(body: Body, part: Location, layer: int) -> Tensor:
    return matrix_of(body, _of_mlp(body, part.path, layer))[:, body.share(part)]


def _vector(body: Body, part: Location, layer: int) -> Tensor | None:
    bias = bias_of(body, _of_mlp(body, part.path, layer))
    return None if bias is None else bias[body.share(part)]


def _of_mlp(body: Body, path: str, layer: int) -> nn.Module:
    if body.has_experts(layer):
        raise UserError(
            f"The MLP's weights of layer {layer} were asked for. It has {body.n_experts} experts with weights of their "
            "own. Read `expert_out` and `router_probs`, or the module's parameters."
        )
    return body.part(path, layer)


def _own(body: Body, module: nn.Module | None, name: str) -> Tensor | None:
    """A parameter that the module may lack."""
    check_plain(body, module)
    return None if getattr(module, name, None) is None else _stored(body, module, name)


def _stored(body: Body, module: nn.Module | None, name: str = "weight") -> Tensor:
    """The parameter, outside any graph. Raises UserError where it is not all of the module, and as `_tensor`."""
    check_plain(body, module)
    return _tensor(body, module, name)


def _tensor(body: Body, module: nn.Module | None, name: str) -> Tensor:
    """A parameter as it stands. Raises UserError where it is no plain tensor of floats."""
    found: Any = getattr(module, name, None)
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.is_meta:
        kind = f"{found.dtype} on {found.device}" if isinstance(found, Tensor) else "packed" if found else "missing"
        raise UserError(
            f"The {name} of {name_of(body, module)}, a {type(module).__name__}, was asked for. It is {kind} (quantised "
            "or off-loaded). Activations can be kept and edited; for weights, load the model unquantised on a device."
        )
    return found.detach()


def check_plain(body: Body, module: nn.Module | None) -> None:
    """Raise UserError for a module that computes more than its own weight and bias say: one with an adapter, a wrapper.

    Its `weight` may well be that of the module inside (peft's layers pass it on), and would be read for the whole.
    """
    if module is None:
        return
    inside = [name for name, _ in module.named_children() if name not in OF_THE_WEIGHT]
    beside = [name for name, _ in module.named_parameters(recurse=False) if name not in ("weight", "bias")]
    if inside or beside:
        raise UserError(
            f"The weights of {name_of(body, module)} were asked for. It is a {type(module).__module__}."
            f"{type(module).__name__} with {', '.join([*inside, *beside][:3])} in it (an unmerged adapter?). "
            "Merge first: pass the module that peft's `merge_and_unload()` gives. Activations can be kept and edited "
            "as they are."
        )


def name_of(body: Body, module: nn.Module | None) -> str:
    """Where in the model this module is."""
    return next((name for name, part in body.module.named_modules() if part is module), "no module")
