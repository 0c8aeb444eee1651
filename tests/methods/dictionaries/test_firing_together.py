"""What latents do on text, against counting it out in one run."""

import pytest
import torch

from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.edits import splice
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.tokens import Vocabulary
from micrographia.methods.dictionaries.evaluation.reading import Counted, ReadWrite
from micrographia.methods.dictionaries.geometry.analysis import analyse
from micrographia.methods.dictionaries.geometry.figures import of_neuron_sparsity, of_rare_latents
from micrographia.methods.dictionaries.geometry.firing_together import (
    count_firings,
    fired_together,
    top_contexts,
    worth_by_frequency,
)

SITE = Site("neurons", 0)
PLACE = ReadWrite(SITE, SITE)
COUNTED = Counted()
ARCH = Architecture(
    d_vocab=13, d_vocab_out=13, n_ctx=12, n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=24, act="gelu",
    norm="layernorm",
)  # fmt: skip
WORDS = Vocabulary(tuple("abcdefghijklm"))


@pytest.fixture(scope="module")
def model():
    return Transformer(ARCH, init_weights(ARCH, generator(0)), WORDS)


@pytest.fixture(scope="module")
def rows():
    return torch.randint(13, (9, 12), generator=generator(1))


def dictionary(seed: int, bias: float = -0.5, n: int = 40) -> Dictionary:
    draw = generator(seed)
    weights = DictionaryWeights(
        W_enc=torch.randn(24, n, generator=draw), W_dec=torch.randn(n, 24, generator=draw) / 24,
        b_enc=torch.full((n,), bias), b_dec=torch.zeros(24),
    )  # fmt: skip
    return Dictionary(weights, Form())


def latents(model, rows, one):
    return one.encode(model.run(rows, keep=SITE).cache[SITE])[:, 1:].flatten(0, 1)


def test_firings_of_several_dictionaries_are_those_counted_one_by_one(model, rows):
    several = [dictionary(0), dictionary(1, n=17)]
    found = count_firings(several, model, PLACE, rows, COUNTED)
    for one, fired in zip(several, found):
        by_hand = (latents(model, rows, one) > 0).sum(0)
        assert fired.n_tokens == 9 * 11
        assert torch.equal(fired.counts, by_hand)
        torch.testing.assert_close(fired.frequencies, by_hand.double() / 99)


def test_the_share_that_fires_at_once_is_that_of_the_chosen(model, rows):
    one, chosen, none = dictionary(0), torch.arange(40) % 3 == 0, torch.zeros(40, dtype=torch.bool)
    found, empty = fired_together([one, one], [chosen, none], model, PLACE, rows, COUNTED)
    torch.testing.assert_close(found, (latents(model, rows, one)[:, chosen] > 0).float().mean(1))
    assert empty.isnan().all()


def test_without_its_latents_below_a_cut_a_dictionary_recovers_what_the_rest_does(model, rows):
    one = dictionary(0)
    frequency = count_firings([one], model, PLACE, rows, COUNTED)[0].frequencies
    cut = float(frequency.median())
    mean = model.run(rows, keep=SITE).cache[SITE][:, 1:].double().mean((0, 1))
    worth = worth_by_frequency(one, frequency, (0.0, cut, 2.0), model, PLACE, rows, mean, COUNTED)

    left = frequency >= cut
    w = one.weights
    few = Dictionary(
        DictionaryWeights(W_enc=w.W_enc[:, left], W_dec=w.W_dec[left], b_enc=w.b_enc[left], b_dec=w.b_dec), Form()
    )
    alone = worth_by_frequency(few, frequency[left], (0.0,), model, PLACE, rows, mean, COUNTED)
    assert worth.zero[cut] == pytest.approx(alone.zero[0.0])
    assert worth.zero[0.0] != pytest.approx(worth.zero[cut])
    assert worth.zero[2.0] == pytest.approx(0)  # b_dec is zero, so nothing is left but zeros


def test_the_clean_loss_is_the_models_own(model, rows):
    one = dictionary(0)
    worth = worth_by_frequency(one, torch.ones(40), (0.0,), model, PLACE, rows, torch.zeros(24), COUNTED)
    logits = model.run(rows).logits[:, 1:-1].double()
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 2:].flatten())
    assert worth.clean_loss == pytest.approx(float(expected))


def test_contexts_show_the_rows_in_which_a_latent_fires_most(model, rows):
    one = dictionary(0, bias=1.0)
    values = one.encode(model.run(rows, keep=SITE).cache[SITE])
    values[:, 0] = 0
    found = top_contexts(one, [3, 8], model, PLACE, rows, COUNTED, n=2, around=2, at_once=4)
    for latent, contexts in found.items():
        best = values[..., latent].amax(1).topk(2).values
        torch.testing.assert_close(torch.tensor([max(each.values) for each in contexts]), best)
        row = int(values[..., latent].amax(1).argmax())
        at = int(values[row, :, latent].argmax())
        assert contexts[0].peak == WORDS.words[int(rows[row, at])]
        assert all(len(each.tokens) == len(each.values) == 5 for each in contexts)


def test_a_latent_that_never_fires_has_no_context(model, rows):
    assert top_contexts(dictionary(0, bias=-1e6), [3], model, PLACE, rows, COUNTED) == {3: []}


def test_the_whole_analysis_agrees_with_its_parts_and_can_be_drawn(model, rows):
    several = {"one": dictionary(0), "other": dictionary(1, bias=-8.0)}
    found = analyse(several, model, PLACE, rows, loss_rows=4, generator=generator(0))
    one = found["one"]
    assert one.firing.n_tokens == 99
    assert one.dead_share == float((one.frequency == 0).double().mean())
    assert torch.equal(one.cluster.rare, one.frequency < 1e-4)
    assert sum(one.classes()) == pytest.approx(1)
    names = [each.name for each in (*of_neuron_sparsity(found), *of_rare_latents(found))]
    assert len(set(names)) == len(names) == 8


def test_a_perfect_dictionary_recovers_all(model, rows):
    eye = torch.eye(24)
    both = DictionaryWeights(
        W_enc=torch.cat([eye, -eye], 1), W_dec=torch.cat([eye, -eye]), b_enc=torch.zeros(48), b_dec=torch.zeros(24)
    )
    worth = worth_by_frequency(
        Dictionary(both, Form()), torch.ones(48), (0.0,), model, PLACE, rows, torch.zeros(24), COUNTED
    )
    assert worth.zero[0.0] == pytest.approx(1, abs=1e-5)
    spliced = model.run(rows, edits=[splice(SITE, Dictionary(both, Form()))]).logits
    torch.testing.assert_close(spliced, model.run(rows).logits)
