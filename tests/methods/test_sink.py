"""A sink at position 0: found where one is planted, and nothing said where there is none."""

from dataclasses import replace

import pytest
import torch

from micrographia.core.model import Model
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.tokens import Batch
from micrographia.methods.sink import LEAST, Sink, find_sink

ARCH = Architecture(
    d_vocab=9, d_vocab_out=9, n_ctx=8, n_layers=3, d_model=16, n_heads=2, d_head=8, d_mlp=24, norm="layernorm"
)
TOKENS = torch.arange(24).reshape(3, 8) % 9
DIMENSION = 5


def with_sink(size: float = 300.0) -> Model:
    """The first position's embedding is large in one dimension, and heads read keys from there."""
    weights = init_weights(ARCH, torch.Generator().manual_seed(0))
    weights["pos_embed.W_pos"][0, DIMENSION] = size
    for name in weights:
        if name.endswith("W_K"):
            weights[name][..., DIMENSION, :] = 0.0
    return Transformer(ARCH, weights)


def test_a_planted_sink_is_measured():
    model = with_sink()
    found = find_sink(model, TOKENS)
    if found is None:
        pytest.fail("not found")
    cache = model.run(TOKENS, keep="L1.resid_pre").cache["L1.resid_pre"].double()
    norms = cache.norm(dim=-1)
    assert found.ratio[1].item() == pytest.approx((norms[:, 0].median() / norms[:, 1:].flatten().median()).item())
    assert (found.first, found.last, found.dimension) == (0, 2, DIMENSION)
    assert found.dimension_share > 0.99
    assert float(found.ratio.min()) > LEAST


def test_no_other_model_has_one():
    plain = Transformer(ARCH, init_weights(ARCH, torch.Generator().manual_seed(0)))
    assert find_sink(plain, TOKENS) is None
    flat = replace(ARCH, attention=False, norm="none")
    assert find_sink(Transformer(flat, init_weights(flat, torch.Generator().manual_seed(0))), TOKENS) is None
    assert find_sink(with_sink(), TOKENS[:, :3]) is None, "three positions have no median worth the name"


def test_padding_is_no_position():
    model, mask = with_sink(), torch.ones(3, 8, dtype=torch.bool)
    mask[1:, :3] = False
    alone, padded = find_sink(model, TOKENS[:1]), find_sink(model, Batch(TOKENS, mask))
    assert alone is not None
    assert padded is not None
    assert torch.equal(alone.ratio, padded.ratio)


@pytest.mark.parametrize(
    ("first", "last", "said"), [(1, 3, "from layer 1 on"), (1, 2, "in layers 1 to 2"), (2, 2, "in layer 2")]
)
def test_the_sentence_holds_what_was_measured(first, last, said):
    sink = Sink(torch.tensor([1.0, 144.0, 20.0, 12.0]), first, last, 507, 0.986, 0.5, 0.09)
    assert said in str(sink)
    assert "144 times the median norm (99% of it in dimension 507) and gets 0.50 of attention" in str(sink)
