"""What a bundle tells of latents is what the dense activations and the weights say."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from bundled import ALL, BROKEN, CHOICE, CONTEXT, HOSTILE, SITE, WORDS, D, built, dense, mixed, reader, tokens
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.evaluation.offline import explain_offline
from micrographia.methods.dictionaries.features import passages, together
from micrographia.methods.dictionaries.features.bundle import BINS
from micrographia.methods.dictionaries.features.passages import PassageChoice

pytestmark = pytest.mark.usefixtures("unchecked")
IDS = tokens()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return built(tmp_path_factory.mktemp("bundles") / "one", labels=True)


@pytest.fixture(scope="module")
def latents():
    return dense(mixed(), IDS)


@pytest.fixture(scope="module")
def pages(bundle):
    return bundle.pages(range(bundle.n_latents))


def test_counts_and_sizes_are_those_of_all_tokens(bundle, pages, latents):
    about, index = bundle.about, bundle.index()
    assert (about["n_latents"], about["d_in"], about["n_rows"], about["n_tokens"]) == (9, D, 60, 60 * 9)
    assert (about["name"], about["model"], about["site"], about["format"], about["dead"]) == (
        "one", "reader", "embed", 1, 1,
    )  # fmt: skip
    fires = (latents > 0).sum((0, 1))
    for latent, page in enumerate(pages):
        own = latents[..., latent].flatten()
        own = own[own > 0]
        assert page["n_fires"] == int(fires[latent])
        assert page["density"] == index["density"][latent] == pytest.approx(float(fires[latent]) / 540)
        assert page["max"] == index["max"][latent] == pytest.approx(float(own.max() if len(own) else 0))
        counts = np.histogram(own.numpy(), BINS, (0, page["max"]))[0] if len(own) else np.zeros(BINS)
        assert page["histogram"]["counts"] == counts.tolist()
        assert len(page["histogram"]["edges"]) == BINS + 1
        assert page["dead"] == index["dead"][latent] == (latent == 8)
    assert index["latent"] == list(range(9))


def test_activations_of_both_signs_keep_them(tmp_path):
    one = dataclasses.replace(mixed(dead=0), form=Form(activation="abstopk", k=3, subtract_b_dec=False))
    found, own = built(tmp_path / "one", one, labels=True), dense(one, IDS)
    assert found.about["signed"]
    assert not built(tmp_path / "two").about["signed"]
    seen = set()
    for latent, page in enumerate(found.pages(range(9))):
        mine = own[..., latent]
        assert page["n_fires"] == sum(page["histogram"]["counts"]) == int((mine != 0).sum())
        assert page["max"] == pytest.approx(float(mine.abs().max()))
        for each in (one for group in page["groups"] for one in group["passages"]):
            there = mine[each["row"], each["pos"] - each["at"] :][: len(each["values"])]
            assert each["values"] == pytest.approx(there.tolist())
            assert abs(each["values"][each["at"]]) == max(map(abs, mine[each["row"]].tolist()))
            seen |= {value > 0 for value in each["values"] if value}
    assert seen == {True, False}
    for each in found.tokens():
        token = WORDS.index(each["token"]) if each["token"] in WORDS else WORDS.index(BROKEN)
        where = (token == IDS) & (torch.arange(CONTEXT) > 0)
        means = own[where].mean(0)
        assert [value for _, value in each["latents"]] == pytest.approx([means[at].item() for at, _ in each["latents"]])
        sizes = [abs(value) for _, value in each["latents"]]
        assert sizes == sorted(sizes, reverse=True)


def test_passages_are_the_rows_with_the_largest_activations_and_some_of_every_quantile(pages, latents):
    for latent, page in enumerate(pages[:8]):
        own = latents[..., latent]
        peaks = own.amax(1)
        order = peaks.sort(descending=True).values[: int((peaks > 0).sum())]
        groups = {group["name"]: group["passages"] for group in page["groups"]}
        shown = {name: [each["values"][each["at"]] for each in inside] for name, inside in groups.items()}
        assert shown["top"] == pytest.approx(order[:4].tolist())
        edges = [len(order) * i // 3 for i in range(4)]
        for i in range(3):
            found = shown[f"quantile {i + 1} of 3"]
            assert len(found) == 2
            assert found == sorted(found, reverse=True)
            assert order[edges[i + 1] - 1] - 1e-6 <= min(found) <= max(found) <= order[edges[i]] + 1e-6
        for each in (each for inside in groups.values() for each in inside):
            row, pos = each["row"], each["pos"]
            around = range(max(0, pos - CHOICE.before), min(CONTEXT, pos + CHOICE.after + 1))
            assert list(around)[each["at"]] == pos
            assert each["values"] == pytest.approx(own[row, list(around)].tolist())
            words = [WORDS[int(i)].encode("utf-8", "replace").decode() for i in IDS[row, list(around)]]
            assert each["tokens"] == words
    assert pages[8]["groups"] == []


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 5), st.integers(0, 5), st.integers(0, 99))
def test_ranks_drawn_from_a_quantile_are_distinct_and_within_it(counts, n, per, seed):
    choice = PassageChoice(quantiles=n, per_quantile=per)
    drawn = passages._drawn(torch.tensor(counts), choice, generator(seed)).view(len(counts), n, per)
    for count, of_latent in zip(counts, drawn.tolist()):
        for i, ranks in enumerate(of_latent):
            first, last = count * i // n, count * (i + 1) // n
            found = [rank for rank in ranks if rank >= 0]
            assert len(found) == min(per, last - first)
            assert found == sorted(set(found))
            assert all(first <= rank < last for rank in found)


@pytest.mark.parametrize("dense_part", [1, 10**9])
def test_correlations_are_those_of_all_tokens_sparse_or_dense(tmp_path, monkeypatch, latents, dense_part):
    monkeypatch.setattr(together, "DENSE", dense_part)
    monkeypatch.setattr(together, "AT_ONCE", 4)
    pages = built(tmp_path / "one").pages(range(9))
    r = np.corrcoef(latents[:, 1:, :8].flatten(0, 1).numpy().T)
    np.fill_diagonal(r, 0)
    for latent, page in enumerate(pages[:8]):
        order = [i for i in (-r[latent]).argsort() if r[latent, i] > 1e-6]
        assert [each for each, _ in page["correlated"]] == order
        assert [each for _, each in page["correlated"]] == pytest.approx(r[latent, order].tolist(), abs=1e-4)
    assert pages[8]["correlated"] == []


def test_correlations_of_some_rows_stay_within_their_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(together, "FIRINGS", 300)
    found = built(tmp_path / "one")
    assert 0 < found.about["correlated_on"] < found.about["n_tokens"] / 2


def test_what_the_weights_say(bundle, pages):
    one, model = mixed(), reader()
    unit = torch.nn.functional.normalize(one.weights.W_dec, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    logits = one.weights.W_dec @ model.weights.final_readout(model.weights.W_U)
    for latent, page in enumerate(pages):
        top = cosines[latent].topk(8)
        assert [at for at, _ in page["neighbours"]] == top.indices.tolist()
        assert [value for _, value in page["neighbours"]] == pytest.approx(top.values.tolist(), abs=1e-6)
        row = one.weights.W_dec[latent]
        assert [at for at, _ in page["neurons"]] == row.abs().topk(10).indices.tolist()
        assert [value for _, value in page["neurons"]] == pytest.approx(row[row.abs().topk(10).indices].tolist())
        assert page["decoder_l1"] == pytest.approx(float(row.abs().sum()))
        for side, sign in (("positive", 1), ("negative", -1)):
            found = (sign * logits[latent]).topk(10)
            assert [v for _, v in page["logits"][side]] == pytest.approx((sign * found.values).tolist(), abs=1e-6)


def test_a_token_has_the_latents_of_largest_mean_activation_and_comes_before_those_that_contain_it(bundle, latents):
    found = bundle.by_token("the")
    assert [each["token"] for each in found] == ["the", " the", "then"]
    for each in found:
        here = WORDS.index(each["token"]) == IDS
        here[:, 0] = False
        means = latents[here].mean(0)
        order = [i for i in means.argsort(descending=True).tolist() if means[i] > 0]
        assert [latent for latent, _ in each["latents"]] == order
        assert [value for _, value in each["latents"]] == pytest.approx(means[order].tolist(), abs=1e-6)
    assert bundle.by_token("") == bundle.by_token("no such word") == []


def test_hostile_strings_are_data(bundle, pages):
    (found,) = bundle.by_token("<script>")
    assert found["token"] == HOSTILE
    assert bundle.by_token("half")[0]["token"] == BROKEN.replace("\ud800", "?")
    json.dumps([pages, bundle.about, bundle.index()], allow_nan=False).encode()
    assert all(len(label) <= 100 for label in bundle.index()["label"])


def test_labels_are_the_explanations_of_the_same_rows(bundle, pages):
    words = [each.encode("utf-8", "replace").decode() for each in WORDS]
    found = explain_offline(
        mixed(), reader(), IDS, SITE, generator=generator(9), counted=ALL, words=lambda i: repr(words[i])
    )
    for each, page in zip(found.explained, pages):
        if each.chosen_f1 > 0:
            assert page["label_kind"] == each.kind
            assert (page["precision"], page["recall"]) == pytest.approx(each.detected[:2])
            assert page["precision"] == bundle.index()["precision"][each.latent]
            assert page["accuracy"] == bundle.index()["accuracy"][each.latent] == pytest.approx(each.detected.accuracy)
    assert pages[8]["label"] == ""
    assert pages[8]["accuracy"] is None


def test_a_latent_of_one_token_is_labelled_by_it(tmp_path):
    W = torch.zeros(D, 2)
    W[5, 0] = W[6, 1] = 1.0
    weights = DictionaryWeights(W_enc=W, W_dec=W.T.contiguous(), b_enc=torch.zeros(2), b_dec=torch.zeros(D))
    one = Dictionary(weights, Form(activation="relu", subtract_b_dec=False))
    found = built(tmp_path / "one", one, labels=True)
    page = found.page(0)
    assert (page["label"], page["label_kind"]) == ("'five'", "token")
    assert (page["precision"], page["recall"], page["accuracy"]) == (1.0, 1.0, 1.0)
    assert found.index()["label"] == ["'five'", "'six'"]
    assert page["neighbours"] == [[1, 0.0]]
