"""Maps, indices and overlaps against networks and tables whose answer is known."""

import math

import pytest
import torch

from micrographia.core.errors import BadShape
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.methods.asymmetry import (
    ablation_effects,
    asymmetry,
    cosines,
    gradient_map,
    logit_map,
    matched,
    ov_map,
    recognisers,
    writers,
)
from small import small_model

N = 12
FIRST, SECOND = torch.arange(0, N), torch.arange(N, 2 * N)


def draw():
    return torch.Generator().manual_seed(0)


def by_hand(forward, reverse):
    """An attention-only network with one-hot embeddings, one head and these associations in W_OV."""
    n = 2 * N + 1
    arch = Architecture(
        d_vocab=n, d_vocab_out=n, n_ctx=2, n_layers=1, d_model=n, n_heads=1, d_head=n, mlp=False
    )  # fmt: skip
    state = {name: torch.zeros_like(w) for name, w in init_weights(arch, draw()).items()}
    state["embed.W_E"] = torch.eye(n)
    state["unembed.W_U"] = torch.eye(n)
    state["blocks.0.attn.W_V"][0] = torch.eye(n)
    state["blocks.0.attn.W_O"][0, FIRST, SECOND] = forward
    state["blocks.0.attn.W_O"][0, SECOND, FIRST] = reverse
    return Transformer(arch, state)


@pytest.mark.parametrize(("reverse", "share"), [(0.0, 0.0), (2.0, 1.0), (1.0, 0.5), (-2.0, -1.0)])
def test_the_share_is_what_was_built_in(reverse, share):
    model = by_hand(2.0, reverse)
    found = asymmetry([ov_map(model, FIRST, SECOND)], [ov_map(model, SECOND, FIRST)], draw(), draws=50)
    assert found.share == pytest.approx(share)
    assert found.forward == pytest.approx(2 * (1 - 1 / N) + 2 / N)


def test_permuted_pairs_lie_about_zero_and_the_true_ones_outside():
    noise = [torch.randn(N, N, generator=draw()) for _ in range(2)]
    both = [each + 3 * torch.eye(N) for each in noise]
    found = asymmetry(both[:1], both[1:], draw(), draws=200)
    assert found.low < 0 < found.high < found.share


def test_a_whole_model_is_its_ov_where_there_is_nothing_else():
    model = by_hand(2.0, 0.5)
    relation = torch.full((N,), 2 * N)
    prompts = torch.stack([FIRST, relation], 1)
    half = ov_map(model, FIRST, SECOND) / 2  # attention is even over two positions
    torch.testing.assert_close(logit_map(model, prompts, SECOND), half)
    whole = gradient_map(model, prompts, SECOND)
    torch.testing.assert_close(whole, half - half.mean(0))


def test_a_gradient_map_of_a_bent_network_is_not_its_ov():
    model = small_model(Architecture(d_vocab=9, d_vocab_out=9, n_ctx=2, d_model=8, n_heads=2, d_head=4, d_mlp=16))
    ids = torch.arange(4)
    prompts = torch.stack([ids, torch.full((4,), 8)], 1)
    found = gradient_map(model, prompts, ids + 4)
    assert found.shape == (4, 4)
    assert not torch.allclose(found, ov_map(model, ids, ids + 4), atol=1e-3)


def test_maps_that_are_not_of_pairs_are_refused():
    with pytest.raises(BadShape, match="square"):
        asymmetry([torch.zeros(3, 4)], [torch.zeros(4, 3)], draw())


def test_matched_pairs_stand_out_and_unmatched_ones_do_not():
    x = torch.randn(40, 16, generator=draw())
    noise = torch.randn(40, 16, generator=torch.Generator().manual_seed(1))
    same, other = (matched([cosines(x, y)], draw(), draws=100) for y in (x + 0.1 * noise, noise))
    assert same.excess > 0.9
    assert same.p < 0.02 < other.p


def test_neurons_of_an_entity_are_read_and_written_where_they_are():
    arch = Architecture(d_vocab=9, d_vocab_out=9, n_ctx=2, d_model=8, n_heads=2, d_head=4, d_mlp=16)
    model = small_model(arch)
    prompts = torch.tensor([[0, 8], [1, 8]])
    cache = model.run(prompts, keep=["L0.neurons"]).cache
    torch.testing.assert_close(recognisers(model, prompts, layer=0), cache["L0.neurons"][:, -1])
    written = writers(model, torch.tensor([3]), layer=0)
    torch.testing.assert_close(written[0], model.weights.W_out[0] @ model.weights.W_U[:, 3])


def test_ablating_a_neuron_costs_what_taking_its_output_away_costs():
    arch = Architecture(d_vocab=9, d_vocab_out=9, n_ctx=2, d_model=8, n_heads=2, d_head=4, d_mlp=16)
    model, prompts, answers = small_model(arch), torch.tensor([[0, 8], [1, 8]]), torch.tensor([3, 4])
    found = ablation_effects(model, prompts, answers, layer=0)
    run = model.run(prompts, keep=["L0.neurons"], logits="last")
    neurons, logits = run.cache["L0.neurons"][:, -1], run.logits[:, -1]
    without = logits - neurons[:, 5, None] * (model.weights.W_out[0][5] @ model.weights.W_U)
    fall = [x.log_softmax(-1).gather(1, answers[:, None])[:, 0] for x in (logits, without)]
    torch.testing.assert_close(found[:, 5], fall[0] - fall[1])
    assert found.abs().max() > 0


def test_nothing_forward_has_no_share_in_reverse():
    noise = torch.randn(N, N, generator=draw())
    found = asymmetry([noise], [noise + 3 * torch.eye(N)], draw(), draws=200)
    assert math.isnan(found.share)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.reverse > 2


def test_what_is_not_known_has_no_p():
    assert math.isnan(matched([torch.full((4, 4), torch.nan)], draw()).p)
    beside = torch.eye(4)
    beside[0, 1] = torch.nan
    assert math.isnan(matched([beside], draw()).p)


@pytest.mark.parametrize("tables", [[], [torch.zeros(1, 1)]])
def test_blocks_without_pairs_are_refused(tables):
    with pytest.raises(BadShape, match="pairs"):
        matched(tables, draw())
