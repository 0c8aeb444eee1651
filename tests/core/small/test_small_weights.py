"""The direct path from neurons to logits, against its definition."""

import pytest
import torch

from micrographia.core.small.architecture import Architecture
from micrographia.core.small.weights import init_weights, neuron_to_logits

P = 5
ORDER = torch.tensor([2, 0, 1, 4, 3])


def network(**choices):
    arch = Architecture(d_vocab=P + 1, d_vocab_out=P + 1, n_ctx=3, d_model=4, n_heads=2, d_head=2, d_mlp=6, **choices)
    weights = init_weights(arch, torch.Generator().manual_seed(21))
    gains = {name: 1 + torch.rand(4, generator=torch.Generator().manual_seed(1)) for name in weights if "ln" in name}
    return arch, weights | {name: gain for name, gain in gains.items() if name.endswith(".w")}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_map_is_centred_and_has_no_column_for_equals(tied, n_layers):
    arch, weights = network(tied=tied, n_layers=n_layers)
    W_U = weights["embed.W_E"].T if tied else weights["unembed.W_U"]
    full = torch.cat([weights[f"blocks.{i}.mlp.W_out"] for i in range(n_layers)]).double() @ W_U.double()
    expected = full[:, :P] - full[:, :P].mean(1, keepdim=True)
    torch.testing.assert_close(neuron_to_logits(arch, weights, ORDER), expected[:, ORDER])


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_a_final_norm_s_gain_is_included(norm):
    arch, weights = network(norm=norm)
    written = weights["blocks.0.mlp.W_out"].double()
    if norm == "layernorm":
        written = written - written.mean(1, keepdim=True)
    full = (written * weights["ln_final.w"].double()) @ weights["unembed.W_U"].double()[:, ORDER]
    torch.testing.assert_close(neuron_to_logits(arch, weights, ORDER), full - full.mean(1, keepdim=True))
