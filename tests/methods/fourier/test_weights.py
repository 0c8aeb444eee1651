"""Products of weight matrices, against their definitions written with indices."""

import pytest
import torch

from micrographia.core.errors import UnreadableWeights
from micrographia.methods.fourier.weights import (
    attention_map,
    n_layers,
    neuron_logit_map,
    squared_weights,
)

P, D, H, E, M = 5, 4, 2, 3, 6


def small_network() -> dict[str, torch.Tensor]:
    shapes = {
        "embed.W_E": (P + 1, D),
        "pos_embed.W_pos": (3, D),
        "blocks.0.attn.W_Q": (H, D, E),
        "blocks.0.attn.W_K": (H, D, E),
        "blocks.0.attn.W_V": (H, D, E),
        "blocks.0.attn.W_O": (H, E, D),
        "blocks.0.mlp.W_in": (D, M),
        "blocks.0.mlp.W_out": (M, D),
        "unembed.W_U": (D, P + 1),
    }
    generator = torch.Generator().manual_seed(21)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_the_neuron_logit_map_is_centred_and_has_no_column_for_equals():
    weights, order = small_network(), torch.tensor([2, 0, 1, 4, 3])
    W_L = neuron_logit_map(weights, order)
    full = weights["blocks.0.mlp.W_out"].double() @ weights["unembed.W_U"].double()
    expected = full[:, :P] - full[:, :P].mean(dim=1, keepdim=True)
    torch.testing.assert_close(W_L, expected[:, order])


def test_the_last_layers_neurons_are_the_ones_that_reach_the_logits():
    weights = small_network()
    weights["blocks.1.mlp.W_out"] = 2 * weights["blocks.0.mlp.W_out"]
    assert n_layers(weights) == 2
    torch.testing.assert_close(
        neuron_logit_map(weights, torch.arange(P)), 2 * neuron_logit_map(small_network(), torch.arange(P))
    )


def test_tied_networks_unembed_with_their_embedding():
    weights = small_network()
    tied = {name: tensor for name, tensor in weights.items() if name != "unembed.W_U"}
    untied = weights | {"unembed.W_U": weights["embed.W_E"].T}
    torch.testing.assert_close(neuron_logit_map(tied, torch.arange(P)), neuron_logit_map(untied, torch.arange(P)))


def test_the_attention_map_is_the_score_of_equals_for_each_residue():
    weights = small_network()
    found = attention_map(weights, torch.arange(P))
    equals = weights["embed.W_E"][P] + weights["pos_embed.W_pos"][2]
    for head in range(H):
        query = equals @ weights["blocks.0.attn.W_Q"][head]
        keys = weights["embed.W_E"][:P] @ weights["blocks.0.attn.W_K"][head]
        torch.testing.assert_close(found[head].float(), keys @ query)


def test_squared_weights_sum_over_all_tensors():
    weights = {"x": torch.tensor([3.0, 4.0]), "y": torch.tensor([[2.0]])}
    assert squared_weights(weights) == {"x": 25.0, "y": 4.0}


def test_a_part_that_is_not_there_is_named():
    weights = {name: tensor for name, tensor in small_network().items() if "attn" not in name}
    with pytest.raises(UnreadableWeights, match=r"blocks\.0\.attn\.W_Q.*blocks\.0\.mlp\.W_in"):
        attention_map(weights, torch.arange(P))
    with pytest.raises(UnreadableWeights, match="mlp"):
        neuron_logit_map({"unembed.W_U": weights["unembed.W_U"]}, torch.arange(P))
