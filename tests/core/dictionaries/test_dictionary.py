"""A Dictionary: its latents against formulas written out, its scale, and its place in a run."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import ACTIVATIONS, COUNTED, THRESHOLDED, Form
from micrographia.core.edits import put, splice
from micrographia.core.errors import BadConfig, BadEdit, BadShape
from micrographia.core.runtime import generator
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from small import A_FEW, SIZES

N = 24
PLAIN = [name for name in ACTIVATIONS if name != "gated"]


def dictionary(activation: str = "relu", d: int = 6, seed: int = 0, **form: object) -> Dictionary:
    g = generator(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    gated = activation == "gated"
    weights = DictionaryWeights(
        W_enc=draw(d, N), W_dec=draw(N, d), b_dec=draw(d), b_enc=None if gated else draw(N),
        threshold=draw(N).abs() if activation in THRESHOLDED else None,
        b_gate=draw(N) if gated else None, b_mag=draw(N) if gated else None, r_mag=draw(N) if gated else None,
    )  # fmt: skip
    k = 4 if activation in COUNTED else None
    return Dictionary(weights, Form(activation=activation, k=k, **form))  # pyright: ignore[reportArgumentType]


def rows(d: int = 6, n: int = 9) -> Tensor:
    return torch.randn(n, d, generator=generator(1), dtype=torch.float64)


def by_hand(of: Dictionary, row: Tensor) -> list[float]:
    """The latents of one row, one at a time."""
    w, form = of.weights, of.form
    h = row - w.b_dec if form.subtract_b_dec else row
    p = [float(h @ w.W_enc[:, i] + (0 if w.b_enc is None else w.b_enc[i])) for i in range(N)]
    kept = sorted(range(N), key=lambda i: -abs(p[i]) if form.activation == "abstopk" else -p[i])[: form.k]
    size = N // (form.k or 1)
    found = []
    for i in range(N):
        group = p[i // size * size : (i // size + 1) * size]
        threshold = 0.0 if w.threshold is None else float(w.threshold[i])
        on = {
            "relu": p[i] > 0, "tanh-relu": p[i] > 0, "jumprelu": p[i] > max(threshold, 0), "jump": p[i] > threshold,
            "topk": i in kept and p[i] > 0, "topk-signed": i in kept, "abstopk": i in kept,
            "groupmax": p[i] == max(group) and p[i] > 0,
        }[form.activation]  # fmt: skip
        value = float(torch.tensor(p[i]).double().tanh()) if form.activation == "tanh-relu" else p[i]
        found.append(value if on else 0.0)
    return found


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("activation", PLAIN)
def test_latents_are_those_of_the_formula(activation: str, subtract: bool):
    one = dictionary(activation, subtract_b_dec=subtract)
    expected = torch.tensor([by_hand(one, row) for row in rows()], dtype=torch.float64)
    assert expected.count_nonzero() > 0
    torch.testing.assert_close(one.encode(rows()), expected)


def test_a_gated_latent_is_gate_times_size():
    one = dictionary("gated")
    w = one.weights
    assert w.b_gate is not None
    assert w.b_mag is not None
    assert w.r_mag is not None
    h = rows() - w.b_dec
    expected = (h @ w.W_enc + w.b_gate > 0) * (h @ (w.W_enc * w.r_mag.exp()) + w.b_mag).relu()
    torch.testing.assert_close(one.encode(rows()), expected)
    torch.testing.assert_close(one.pre_activations(rows()), h @ w.W_enc + w.b_gate)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_decode_with_the_input_is_reconstruct(activation: str):
    one = dictionary(activation, normalise="layer-norm")
    torch.testing.assert_close(one.decode(one.encode(rows()), rows()), one.reconstruct(rows()))


def test_a_layer_normed_dictionary_follows_the_scale_of_its_input():
    one = dictionary(normalise="layer-norm")
    once, twice = one.reconstruct(rows()), one.reconstruct(1000 * rows() + 5)
    torch.testing.assert_close(twice, 1000 * once + 5, rtol=1e-3, atol=1.0)
    assert not torch.allclose(one.decode(one.encode(rows())), once)


def test_a_row_of_zeros_has_no_norm_to_divide_by():
    assert dictionary(normalise="constant-norm").reconstruct(torch.zeros(1, 6, dtype=torch.float64)).isfinite().all()


def test_latents_in_units_of_decoder_norms_decode_to_the_same():
    one = dictionary()
    norms = one.weights.W_dec.norm(dim=-1)
    scaled = Dictionary(one.weights, replace(one.form, decoder_norms=True))
    torch.testing.assert_close(scaled.encode(rows()), one.encode(rows()) * norms)
    torch.testing.assert_close(scaled.reconstruct(rows()), one.reconstruct(rows()))


def test_a_skip_is_added_to_what_is_reconstructed_but_not_to_what_is_decoded():
    one = dictionary(subtract_b_dec=False)
    skip = torch.randn(6, 6, generator=generator(2), dtype=torch.float64)
    skipping = Dictionary(replace(one.weights, W_skip=skip), one.form)
    torch.testing.assert_close(skipping.reconstruct(rows()) - one.reconstruct(rows()), rows() @ skip)
    torch.testing.assert_close(skipping.decode(one.encode(rows())), one.decode(one.encode(rows())))


def test_heads_are_read_as_one():
    one = dictionary()
    heads = rows().unflatten(-1, (2, 3))
    apart = one.reading(heads)
    torch.testing.assert_close(apart.encode(heads), one.encode(rows()))
    torch.testing.assert_close(apart.reconstruct(heads), one.reconstruct(rows()).unflatten(-1, (2, 3)))
    assert one.reading(rows()) is one
    of_heads = Dictionary(one.weights, replace(one.form, heads=True))  # it need not be told their sizes
    torch.testing.assert_close(of_heads.encode(heads), one.encode(rows()))
    torch.testing.assert_close(of_heads.reconstruct(heads), one.reconstruct(rows()).unflatten(-1, (2, 3)))
    torch.testing.assert_close(of_heads.reconstruct(rows()), one.reconstruct(rows()))


@pytest.mark.parametrize("site", ["L1.resid_pre", "L0.z"])
def test_a_spliced_dictionary_leaves_the_run_as_it_was_until_it_is_edited(site: str):
    arch = replace(A_FEW["plain-2"])
    model = Transformer(arch, init_weights(arch, generator(3)))
    d = SIZES["d_model"] if site == "L1.resid_pre" else SIZES["n_heads"] * SIZES["d_head"]
    one = dictionary("jumprelu", d=d, normalise="layer-norm").to(dtype=torch.float32)
    tokens = torch.tensor([[1, 2, 3]])
    clean = model.run(tokens)
    kept = model.run(tokens, keep=[f"{site}[sae].latents", f"{site}[sae].error"], edits=[splice(site, one)])
    torch.testing.assert_close(kept.logits, clean.logits)
    assert kept.cache[f"{site}[sae].latents"].shape == (1, 3, N)
    silent = put(f"{site}[sae].latents", torch.zeros(1, 3, N))
    assert not torch.allclose(model.run(tokens, edits=[splice(site, one), silent]).logits, clean.logits)


def test_what_does_not_fit_is_refused():
    one = dictionary()
    with pytest.raises(BadShape, match="reads activations"):
        one.encode(torch.zeros(2, 7))
    with pytest.raises(BadShape, match="has threshold of shape"):
        Dictionary(one.weights, Form(activation="jumprelu"))
    with pytest.raises(BadShape, match="b_enc of shape"):
        Dictionary(one.weights, Form(activation="gated"))
    wide = replace(one.weights, W_dec=torch.zeros(N, 8), b_dec=torch.zeros(8))
    with pytest.raises(BadShape, match="subtract_b_dec=False"):
        Dictionary(wide, one.form)
    with pytest.raises(BadEdit, match="transcoder"):
        splice("L0.mlp_out", Dictionary(wide, replace(one.form, subtract_b_dec=False)))
    for wrong in ({"activation": "topk"}, {"k": 3}, {"activation": "topk", "k": 0}, {"activation": "swish"}):
        with pytest.raises(BadConfig):
            Form(**wrong)


def test_it_says_what_it_is():
    assert repr(dictionary("topk")) == "Dictionary(topk dictionary (k = 4), 24 latents of 6)"
