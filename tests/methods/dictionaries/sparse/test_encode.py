"""Encoding and reconstructing through the active latents is what the Dictionary does."""

import pytest
import torch

from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import ACTIVATIONS, COUNTED, THRESHOLDED, Form
from micrographia.core.errors import BadShape
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.sparse import encode
from micrographia.methods.dictionaries.sparse.encode import encode_sparse, reconstruct_sparse

D, N = 12, 60


def dictionary(activation: str, *, skip: bool = False, **form) -> Dictionary:
    random = generator(0)

    def draw(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64)

    names = ("b_gate", "b_mag", "r_mag") if activation == "gated" else ("b_enc",)
    if activation in THRESHOLDED:
        names += ("threshold",)
    weights = DictionaryWeights(
        W_enc=draw(D, N),
        W_dec=draw(N, D),
        b_dec=draw(D),
        W_skip=draw(D, D) if skip else None,
        **{name: draw(N) for name in names},
    )
    return Dictionary(weights, Form(activation=activation, k=5 if activation in COUNTED else None, **form))


def inputs(*shape):
    return torch.randn(shape, generator=generator(1), dtype=torch.float64)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_entries_are_those_of_the_dense_latents(activation, monkeypatch):
    for block in (1, 7 * N, 1 << 21):
        monkeypatch.setattr(encode, "BLOCK", block)
        here, x = dictionary(activation), inputs(19, D)
        active = encode_sparse(here, x)
        torch.testing.assert_close(active.dense(N), here.encode(x))
        assert (active.values != 0).all()


@pytest.mark.parametrize("activation", ["relu", "topk", "jumprelu"])
@pytest.mark.parametrize(
    "form",
    [
        {"normalise": "layer-norm"},
        {"normalise": "constant-norm", "decoder_norms": True},
        {"skip": True, "subtract_b_dec": False},
        {"axes": (3, 4)},
    ],
    ids=str,
)
def test_reconstructions_are_those_of_the_dictionary(activation, form):
    here = dictionary(activation, **form)
    last = (3, 4) if "axes" in form else (D,)
    for leading in ((), (7,), (2, 5)):
        x = inputs(*leading, *last)
        torch.testing.assert_close(reconstruct_sparse(here, x), here.reconstruct(x))
        assert encode_sparse(here, x).n_rows == x.numel() // D


def test_no_rows_give_no_entries():
    here = dictionary("topk")
    assert encode_sparse(here, inputs(0, D)).offsets.tolist() == [0]
    assert reconstruct_sparse(here, inputs(0, D)).shape == (0, D)


def test_another_width_and_bfloat16_are_refused():
    here = dictionary("relu")
    with pytest.raises(BadShape, match="reads activations"):
        encode_sparse(here, inputs(4, D + 1))
    half = here.to(dtype=torch.bfloat16)
    torch.testing.assert_close(encode_sparse(half, inputs(9, D)).dense(N), half.encode(inputs(9, D)))
    with pytest.raises(BadShape, match="dense plan"):
        reconstruct_sparse(half, inputs(4, D))
