"""Latents on a text of one's own, and the edit that adds one: against the plain computation."""

from dataclasses import replace

import pytest
import torch

from micrographia.core.dictionaries.dictionary import FIRST_TOKEN, KEPT, About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.errors import BadShape, UnknownSite, UserError
from micrographia.core.load import load_any
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.methods.dictionaries.features.firings import weights_hash
from micrographia.methods.dictionaries.on_text import (
    adding,
    adding_random,
    dictionaries_of,
    fitting_site,
    latents_on,
)
from miniature import CLEAN, save_gpt2

SITE = Site("resid_post", 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_any(save_gpt2(tmp_path_factory.mktemp("gpt2")))


def made(d_in: int = 24, n: int = 40, seed: int = 0, **form) -> Dictionary:
    drawn = torch.randn(n, d_in, generator=generator(seed))
    weights = DictionaryWeights(W_enc=drawn.T, W_dec=drawn, b_enc=torch.zeros(n), b_dec=torch.ones(d_in))
    return Dictionary(weights, Form(**{"activation": "topk", "k": 3, **form}), About(site=SITE))


def test_latents_on_a_text_are_those_of_the_encoder(model):
    own = made()
    found = latents_on(model, own, SITE, CLEAN)
    dense = own.encode(model.run(model.to_tokens(CLEAN), keep=[SITE]).cache[SITE])[0]
    assert dense[0, found.latents].any()
    kept = latents_on(model, replace(own, about=replace(own.about, training={FIRST_TOKEN: KEPT})), SITE, CLEAN)
    torch.testing.assert_close(kept.values, dense[:, kept.latents].T)
    assert kept.values[:, 0].any()
    dense[0] = 0  # the first token is left out
    torch.testing.assert_close(found.values, dense[:, found.latents].T)
    assert "".join(found.tokens).replace(" ", "") == CLEAN.replace(" ", "")
    peaks = dense.amax(0)
    assert found.latents == sorted(peaks.nonzero()[:, 0].tolist(), key=lambda latent: -peaks[latent])
    assert len(latents_on(model, own, SITE, CLEAN, most=2).latents) == 2
    silent = int((dense.amax(0) == 0).nonzero()[0])
    assert not latents_on(model, own, SITE, CLEAN, latents=[silent]).values.any()
    assert latents_on(model, own, SITE, CLEAN[:1]).latents == []


def test_latents_of_both_signs_are_given_by_their_size(model):
    own = made(activation="abstopk", subtract_b_dec=False)
    found = latents_on(model, own, SITE, CLEAN)
    dense = own.encode(model.run(model.to_tokens(CLEAN), keep=[SITE]).cache[SITE])[0, 1:]
    assert bool((dense.amax(0) == 0).logical_and(dense.amin(0) < 0).any())  # some are never above 0
    sizes = dense.abs().amax(0)
    assert found.latents == sorted(sizes.nonzero()[:, 0].tolist(), key=lambda latent: -sizes[latent])


@pytest.mark.parametrize("text", ["", " ".join([CLEAN] * 3)])
def test_a_text_that_the_model_does_not_read_is_refused(model, text):
    with pytest.raises(UserError, match="token"):
        latents_on(model, made(), SITE, text)


@pytest.mark.parametrize("form", [{}, {"decoder_norms": True}, {"normalise": "layer-norm"}])
def test_adding_moves_what_is_decoded_by_so_much_of_a_latent(model, form):
    own = made(**form)
    x = torch.randn(2, 5, 24, generator=generator(1))
    on = torch.zeros(2, 5, 40)
    on[..., 7] = 3.0
    wanted = x + own.decode(on, x) - own.decode(torch.zeros(2, 5, 40), x)
    torch.testing.assert_close(adding(own, SITE, 7, 3.0)(x), wanted)
    assert not torch.allclose(wanted, x)


def test_a_random_direction_is_as_long_at_every_token_and_one_for_the_text():
    own = made(normalise="layer-norm")
    x = torch.randn(2, 5, 24, generator=generator(1)) * torch.arange(1, 6)[:, None]
    added = adding(own, SITE, 7, 3.0)(x) - x
    edit = adding_random(own, SITE, 7, 3.0, generator(2))
    random = edit(x) - x
    torch.testing.assert_close(random.norm(dim=-1), added.norm(dim=-1))
    direction = torch.nn.functional.normalize(random, dim=-1)
    torch.testing.assert_close(direction, direction[:1, :1].expand_as(direction))
    torch.testing.assert_close(edit(x) - x, random)
    assert float(torch.cosine_similarity(random, added, dim=-1).abs().max()) < 0.9


def test_a_latent_of_heads_is_added_to_the_heads(model):
    site = Site("z", 0)
    own = replace(made(), about=About(site=site))
    x = torch.randn(1, 4, 3, 8, generator=generator(1))
    added = adding(own, site, 7, 3.0)(x) - x
    torch.testing.assert_close(added.flatten(2), (3.0 * own.weights.W_dec[7]).expand(1, 4, 24))
    random = adding_random(own, site, 7, 3.0, generator(0))(x) - x
    torch.testing.assert_close(random.flatten(2).norm(dim=-1), added.flatten(2).norm(dim=-1))


def test_a_model_without_the_place_or_of_another_width_is_refused(model):
    assert fitting_site(model, made()) == SITE
    with pytest.raises(BadShape, match="does not fit"):
        fitting_site(model, made(d_in=12))
    with pytest.raises(UnknownSite):
        fitting_site(model, replace(made(), about=About(site=Site("resid_post", 7))))
    with pytest.raises(UserError, match="where it reads"):
        fitting_site(model, replace(made(), about=About()))


def test_dictionaries_are_found_by_their_weights(tmp_path):
    for seed in range(3):
        made(seed=seed).save(tmp_path / f"layer_{seed}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sae_weights.safetensors").write_bytes(b"?")
    (tmp_path / "broken" / "cfg.json").write_text("{}", encoding="utf-8")
    own = Dictionary.load(tmp_path / "layer_1")
    found = dictionaries_of(tmp_path, {"one": weights_hash(own), "none": "?"}, torch.device("cpu"))
    assert list(found) == ["one"]
    torch.testing.assert_close(found["one"].weights.W_dec, own.weights.W_dec)
    assert list(dictionaries_of(tmp_path / "layer_1", {"one": weights_hash(own)}, torch.device("cpu"))) == ["one"]
    assert dictionaries_of(tmp_path / "layer_0", {"one": weights_hash(own)}, torch.device("cpu")) == {}
