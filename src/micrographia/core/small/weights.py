"""The small transformer's weights: initialisation, and views under the names that all families share.

Weights are a mapping of name to tensor, named and shaped as `Architecture.weight_shapes` says; every product is `x @
W`. Views share the weights' memory. Suffixes: H head, E d_head, D d_model.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.model import PerLayer
from micrographia.core.small.architecture import Architecture

Weights = Mapping[str, Tensor]


def init_weights(
    arch: Architecture, generator: Generator, *, dtype: torch.dtype = torch.float32, std_scale: float = 1.0
) -> dict[str, Tensor]:
    """Fresh weights: normal draws / sqrt(d_model) (the unembedding: / sqrt(d_vocab)), biases 0, gains 1.

    Order and layout of the draws are those of the code published with Nanda et al. (2023), where every matrix is (out,
    in): a CPU generator with seed s then gives exactly the weights that `torch.manual_seed(s)` gives there. W_out is
    scaled by d_model too, not by d_mlp, as published.
    """
    weights: dict[str, Tensor] = {}
    for name, shape in arch.weight_shapes().items():
        leaf = name.rpartition(".")[2]
        if leaf.startswith("b"):
            drawn = torch.zeros(shape)
        elif leaf == "w":
            drawn = torch.ones(shape)
        else:
            fan = arch.d_vocab_out if leaf == "W_U" else arch.d_model
            drawn = std_scale * _draw(leaf, shape, generator) / fan**0.5
        weights[name] = drawn.to(dtype).contiguous()
    return weights


def _draw(leaf: str, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Draw in the published layout, return our layout."""
    if leaf in ("W_K", "W_Q", "W_V"):
        H, D, E = shape
        return torch.randn(H, E, D, generator=generator).transpose(1, 2)
    if leaf == "W_O":
        H, E, D = shape
        return torch.randn(D, H * E, generator=generator).reshape(D, H, E).permute(1, 2, 0)
    if leaf in ("W_E", "W_in", "W_gate", "W_out"):
        return torch.randn(*reversed(shape), generator=generator).T
    return torch.randn(*shape, generator=generator)  # W_pos (n_ctx, d_model) and W_U (d_model, vocab) as they are


def unembedding(arch: Architecture, weights: Weights) -> Float[Tensor, "d_model vocab"]:
    """W_U; with tied weights, the first `d_vocab_out` rows of the embedding, transposed."""
    return weights["embed.W_E"][: arch.d_vocab_out].T if arch.tied else weights["unembed.W_U"]


class WeightViews:
    """The weights under the names that all families share, as `x @ W`: `W_E`, `W_pos`, `W_Q[layer, head]`, `W_U` ..."""

    def __init__(self, arch: Architecture, weights: Weights) -> None:
        self.W_E = weights["embed.W_E"]
        self.W_pos = weights.get("pos_embed.W_pos")
        self.W_U = unembedding(arch, weights)
        self.b_U = weights.get("unembed.b_U")
        keys = {name: f"attn.{name}" for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")}
        keys |= {name: f"mlp.{name}" for name in ("W_in", "W_gate", "W_out", "b_in", "b_out")}
        keys |= {"attn_norm_w": "ln1.w", "attn_norm_b": "ln1.b", "mlp_norm_w": "ln2.w", "mlp_norm_b": "ln2.b"}
        for name, key in keys.items():
            setattr(self, name, PerLayer(lambda layer, key=key: weights[f"blocks.{layer}.{key}"], arch.n_layers))
        self.score_scale = [arch.d_head**-0.5] * arch.n_layers  # the score is score_scale * q . k, without a cap
        self.score_cap: list[float | None] = [None] * arch.n_layers
        self.score_sinks = [None] * arch.n_layers
        self.final_norm_w = weights.get("ln_final.w")
        self.final_norm_b = weights.get("ln_final.b")
        self._centred = arch.norm == "layernorm"

    def __repr__(self) -> str:
        named = (name for name, found in vars(self).items() if found is not None and not name.startswith("_"))
        return f"WeightViews({', '.join(named)})"

    def final_readout(self, direction: Float[Tensor, "d_model *n"]) -> Float[Tensor, "d_model *n"]:
        """The residual-stream direction that reads `direction` of the final norm's output, before division by the
        scale.

        gain * direction, minus its mean for LayerNorm. The norm's bias always adds `final_norm_b @ direction`.
        """
        w = self.final_norm_w
        gain = direction if w is None else direction * w.reshape(-1, *[1] * (direction.ndim - 1))
        return gain - gain.mean(0, keepdim=True) if self._centred else gain


def neuron_to_logits(arch: Architecture, weights: Weights, answers: Int[Tensor, "n"]) -> Float[Tensor, "m n"]:
    """What each neuron of any layer adds to each of these logits on the direct path; float64, rows centred.

    With a final norm its gain is included, and for LayerNorm the mean that it takes off.
    """
    read_out = unembedding(arch, weights).double()
    if arch.norm != "none":
        read_out = weights["ln_final.w"].double()[:, None] * read_out
    if arch.norm == "layernorm":
        read_out = read_out - read_out.mean(0)
    W_L = torch.cat([weights[f"blocks.{i}.mlp.W_out"].double() @ read_out[:, answers] for i in range(arch.n_layers)])
    return W_L - W_L.mean(1, keepdim=True)
