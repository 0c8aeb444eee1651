"""The fast plan of a model without attention is the plain forward, with one vector added at a time."""

import dataclasses

import pytest
import torch

from micrographia.core.edits import add
from micrographia.core.errors import BadConfig
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.mlp_stack import MlpStack
from small import A_FEW, SIZES, small_model, some_tokens

NORMS = ("none", "layernorm", "rmsnorm")


@pytest.mark.parametrize("joined", ["summed", "concatenated"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("act", ["gelu", "relu", "swiglu"])
def test_each_vector_does_what_it_does_alone(joined, norm, act):
    arch = Architecture(**SIZES, n_layers=3, attention=False, joined=joined, norm=norm, act=act, unembed_bias=True)
    drawn = torch.Generator().manual_seed(4)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        model, tokens = small_model(arch, dtype=dtype), some_tokens(arch, batch=9)
        amounts = torch.randn(9, 3, generator=drawn, dtype=dtype)
        vectors = torch.randn(3, arch.d_model, generator=drawn, dtype=dtype)
        for layer in range(3):
            stream = model.run(tokens, keep=f"L{layer}.resid_post").cache[f"L{layer}.resid_post"][:, 0]
            found = MlpStack(arch, model.state).logits_after(layer, stream, amounts, vectors)
            for b in range(3):
                added = (amounts[:, b, None] * vectors[b])[:, None]
                plain = model.run(tokens, edits=[add(f"L{layer}.resid_post", added)]).logits[:, 0]
                torch.testing.assert_close(found[b], plain, rtol=tolerance, atol=tolerance)


def test_rows_of_several_blocks_are_each_themselves(monkeypatch):
    monkeypatch.setattr("micrographia.core.small.mlp_stack.BLOCK", 4)
    arch = dataclasses.replace(A_FEW["summed"], act="gelu")
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch, batch=10)
    stream = model.run(tokens, keep="L0.resid_post").cache["L0.resid_post"][:, 0]
    nothing = stream.new_zeros(10, 2)
    found = MlpStack(arch, model.state).logits_after(0, stream, nothing, stream[:2])
    torch.testing.assert_close(found, model.run(tokens).logits[:, 0].expand(2, -1, -1))


def test_a_model_with_attention_has_no_such_plan():
    with pytest.raises(BadConfig, match="attention"):
        MlpStack(A_FEW["plain"], small_model(A_FEW["plain"]).state)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_a_vector_that_cancels_the_stream_leaves_finite_logits(norm):
    arch = Architecture(**SIZES, n_layers=2, attention=False, norm=norm, act="gelu")
    model = small_model(arch)
    stream = 100 * torch.randn(64, arch.d_model, generator=torch.Generator().manual_seed(4))
    found = MlpStack(arch, model.state).logits_after(0, stream, torch.full((64, 64), -1.0), stream)
    assert bool(found.isfinite().all())
