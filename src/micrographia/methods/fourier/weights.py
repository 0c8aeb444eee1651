"""Products of weight matrices that show the algorithm (W_L, W_attn), and the size of the weights.

Weights are a dict in TransformerLens' names and shapes (x @ W): `embed.W_E [V, d]`, `blocks.0.attn.W_Q [H, d, d_head]`,
`blocks.0.mlp.W_in [d, m]`, `unembed.W_U [d, V]` and so on. Tokens 0 .. p - 1 are residues, p is "=". `residues` and
`out` select and order tokens (`Characters.left`, `.out`), so that rows and columns are in cyclic order. Norms are not
part of these products: with them the maps hold up to the norm's scale and gain.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), section 4.
"""

import re
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.errors import UnreadableWeights


def squared_weights(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Sum of squares of each tensor, in float64. Their sum is the paper's total.

    Source: Nanda et al. (2023), section 5.2, figure 7.
    """
    return {name: tensor.double().square().sum().item() for name, tensor in weights.items()}


def neuron_logit_map(weights: Mapping[str, Tensor], out: Int[Tensor, "n"]) -> Float[Tensor, "m n"]:
    """W_L = W_out W_U of the last layer, over the answers `out` only (without "="), centred over them; in float64.

    Source: Nanda et al. (2023), section 4.2.
    """
    W_U = weights["unembed.W_U"] if "unembed.W_U" in weights else _get(weights, "embed.W_E").T
    W_out = _get(weights, f"blocks.{n_layers(weights) - 1}.mlp.W_out")
    W_L = W_out.double() @ W_U[:, out].double()
    return W_L - W_L.mean(dim=1, keepdim=True)


def attention_map(weights: Mapping[str, Tensor], residues: Int[Tensor, "n"]) -> Float[Tensor, "head n"]:
    """W_attn = (E_"=" + pos_2) W_Q W_K^T W_E^T of the first layer: the score of each residue for the query "=";
    float64.

    As published: without positions of the operands, biases, or the division by sqrt(d_head). "=" is the last token of
    the vocabulary and comes last.
    Source: Nanda et al. (2023), section 4.
    """
    W_E, W_pos = _get(weights, "embed.W_E").double(), _get(weights, "pos_embed.W_pos").double()
    W_Q, W_K = (_get(weights, f"blocks.0.attn.W_{name}").double() for name in "QK")
    query = torch.einsum("d,hde->he", W_E[-1] + W_pos[-1], W_Q)
    return torch.einsum("he,hde,nd->hn", query, W_K, W_E[residues])


def n_layers(weights: Mapping[str, Tensor]) -> int:
    """The number of blocks of these weights."""
    return 1 + max((int(match[1]) for name in weights if (match := re.match(r"blocks\.(\d+)\.", name))), default=-1)


def _get(weights: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in weights:
        raise UnreadableWeights(
            f"{name} was asked for; these weights hold {', '.join(weights)}. Parts that the network does "
            "not have cannot be measured."
        )
    return weights[name]
