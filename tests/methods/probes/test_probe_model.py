"""Probes of a whole model: planted labels are found where they are, nulls stay at chance, and texts stay whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from micrographia.core.edits import add, zero
from micrographia.core.errors import BadConfig, BadPrompt, BadShape, UnknownSite, UserError
from micrographia.core.events import Progress
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.tokens import Batch
from micrographia.methods.probes.on_model import probe
from micrographia.methods.probes.places import labelled_places, numbered, shuffled_labels, split_places
from micrographia.methods.probes.read import PlaceReader

BITS = 3
N_TEXTS, N_POS = 200, 3


@pytest.fixture(scope="module")
def model() -> Transformer:
    """Its embedding of token t is the bits of t as signs, in the first three dimensions."""
    arch = Architecture(
        d_vocab=2**BITS, d_vocab_out=2**BITS, n_ctx=6, n_layers=2, d_model=8, n_heads=2, d_head=4, d_mlp=20
    )
    weights = init_weights(arch, Generator().manual_seed(0))
    signs = torch.tensor([[2 * (token >> bit & 1) - 1 for bit in range(BITS)] for token in range(2**BITS)])
    weights["embed.W_E"].zero_()[:, :BITS] = signs.to(weights["embed.W_E"])
    return Transformer(arch, weights)


@pytest.fixture(scope="module")
def texts() -> Tensor:
    return torch.randint(2**BITS, (N_TEXTS, N_POS), generator=Generator().manual_seed(1))


def bit(tokens: Tensor, which: int) -> Tensor:
    return tokens >> which & 1


def test_a_planted_direction_is_found_and_shuffled_labels_are_not(model, texts):
    found = probe(model, texts, bit(texts[:, -1], 1), ["embed", "L0.resid_post"], steps=100)
    best = found.best
    assert best.site == Site("embed")
    assert best.accuracy == 1.0
    assert abs(best.shuffled - 0.5) < 0.2
    assert best.selectivity == best.accuracy - best.shuffled
    assert best.majority == pytest.approx(max(best.counts.sum((0, 2)).tolist()) / 50)
    direction = found.directions("embed")["1"]
    assert float(direction.norm()) == pytest.approx(1)
    assert float(direction[1]) > 0.95
    low, high = found.interval(best)
    assert 0.9 < low < high == 1


def test_a_label_that_is_no_direction_needs_a_hidden_layer(model, texts):
    label = bit(texts[:, -1], 0) ^ bit(texts[:, -1], 2)
    linear, deep = (
        probe(model, texts, label, "embed", steps=400, hidden=hidden).best.accuracy for hidden in (None, 32)
    )
    assert linear < 0.75
    assert deep > 0.95


def test_a_direction_that_is_added_turns_what_the_probe_says(model, texts):
    found = probe(
        model, texts, ["sad" if each else "glad" for each in bit(texts[:, -1], 0).tolist()], "embed", steps=100
    )
    wide = Transformer(model.arch, {name: weight.double() for name, weight in model.state.items()})
    also = probe(wide, texts, bit(texts[:, -1], 0), "embed", steps=5)
    wide.run(texts, edits=[add("embed", also.directions("embed")["1"])])
    edit = add("embed", 5 * found.directions("embed")["sad"])
    x = model.run(texts, keep="embed", edits=[edit]).cache["embed"][:, -1]
    said = found.probes[Site("embed")].logits(x[None])[0, :, 0].argmax(-1)
    assert {found.classes[i] for i in said.tolist()} == {"sad"}


def test_labels_of_positions_with_several_items_and_gaps(model, texts):
    labels = torch.stack([bit(texts, which) for which in range(BITS)], -1)
    labels[:50, 0] = -1
    labels[50:90, 1, 2] = -1
    found = probe(model, texts, labels, "embed", steps=100)
    assert found.best.accuracy == 1.0
    assert found.best.counts.shape == (BITS, 2, 2)
    assert found.sizes.train_rows + found.sizes.test_rows == N_TEXTS * N_POS - 50
    assert {tuple(each.shape) for each in found.directions("embed").values()} == {(BITS, 8)}
    assert found.directions("embed")["1"].argmax(-1).tolist() == [*range(BITS)]


def test_positions_are_read_where_they_are_asked_for(model, texts):
    first = bit(texts[:, 0], 0)
    for at, right in (([0], True), ([-N_POS], True), ("last", False), ([1], False)):
        found = probe(model, texts, first, "embed", at=at, steps=60)
        assert (found.best.accuracy == 1.0) == right
    whole = probe(model, texts, first, "embed", at="all", steps=60, groups=[*range(len(texts))])
    assert whole.sizes.test_rows == N_POS * whole.sizes.test_groups


def test_sites_of_two_widths_are_in_the_order_asked_for_and_what_they_are_alone(model, texts):
    labels, asked = bit(texts[:, -1], 0), ["L1.neurons", "L0.z", "L0.neurons", "embed"]
    together = probe(model, texts, labels, asked, steps=30)
    assert [str(each.site) for each in together.scores] == asked
    assert together.directions("L0.z")["0"].shape == (2, 4)
    for site in asked:
        alone = probe(model, texts, labels, site, steps=30)
        for one, other in zip(alone.directions(site).values(), together.directions(site).values(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
        assert alone[site].counts.equal(together[site].counts)


def test_little_memory_takes_more_passes_and_gives_the_same(model, texts):
    passes = list[int]()

    def watch(event):
        if isinstance(event, Progress) and event.stage == "activations" and event.done == event.total:
            passes.append(event.total)

    sites, labels = ["embed", "L1.neurons", "L0.neurons"], bit(texts[:, -1], 0)
    room = 4 * N_TEXTS * 20 / 2**30
    roomy, tight = (
        probe(model, texts, labels, sites, steps=20, memory=memory, watch=watch) for memory in (1.0, 1.1 * room)
    )
    assert len(passes) == 1 + 3
    assert [each.accuracy for each in roomy.scores] == [each.accuracy for each in tight.scores]
    with pytest.raises(UserError, match="allow more memory"):
        probe(model, texts, labels, sites, memory=0.9 * room)


def test_padded_texts_are_read_as_each_is_alone(model, texts):
    lengths = torch.arange(N_TEXTS) % N_POS + 1
    mask = torch.arange(N_POS) >= N_POS - lengths[:, None]
    places = labelled_places(Batch(texts, mask), [0, 1] * (N_TEXTS // 2), at="all")
    reader = PlaceReader(inputs=Batch(texts, mask), text=places.text, pos=places.pos)
    sites = [Site("resid_post", 1), Site("z", 0)]
    (stack,) = reader.stacks(model, sites)
    alone = [model.run(ids[None, own], keep=sites).cache for ids, own in zip(texts, mask)]
    for i, site in enumerate(stack.sites):
        torch.testing.assert_close(stack.x[i], torch.cat([cache[site][0].flatten(1) for cache in alone]))


def test_the_model_is_read_under_edits(model, texts):
    found = probe(model, texts, bit(texts[:, -1], 0), "embed", edits=[zero("embed")], steps=20)
    assert found.best.accuracy <= found.best.majority


def test_the_model_without_training_is_another_null(model, texts):
    label = bit(texts[:, 0], 0)  # at the last position nothing but attention brings it there
    found = probe(model, texts, label, ["embed", "L0.resid_post"], untrained=True, steps=60)
    assert found["embed"].untrained is not None
    assert abs(found["embed"].untrained - 0.5) < 0.25
    assert all("untrained" in row for row in found.rows())
    table = next(figure for figure in found.figures() if figure.kind == "table")
    assert "without training" in table.data["columns"]


@given(st.lists(st.integers(0, 30), min_size=40, max_size=80), st.floats(0.1, 0.9), st.integers(0, 9))
def test_texts_of_one_group_stay_together(groups, share, seed):
    ids = torch.zeros(len(groups), 2, dtype=torch.int64)
    labels = torch.arange(2 * len(groups)).reshape(ids.shape) % 2
    places = labelled_places(ids, labels, groups=groups)
    try:
        train, test = (
            set(places.group[places.text[part]].tolist())
            for part in split_places(places, share, Generator().manual_seed(seed))
        )
    except UserError:  # too few on one side
        return
    assert not train & test
    assert len(train | test) == len(set(groups))
    assert abs(len(test) - share * len(set(groups))) <= 1


def test_classes_of_texts_are_spread_over_both_sides():
    labels = [0] * 90 + [1] * 10
    places = labelled_places(torch.arange(100)[:, None], labels)
    for seed in range(20):
        train, test = split_places(places, 0.3, Generator().manual_seed(seed))
        assert (int(places.labels[test].sum()), len(test)) == (3, 30)
        assert int(places.labels[train].sum()) == 7


def test_what_groups_give_away_is_not_found_when_they_stay_together():
    n, random = 64, Generator().manual_seed(0)
    arch = Architecture(d_vocab=n, d_vocab_out=n, n_ctx=2, n_layers=1, d_model=n, n_heads=1, d_head=4, d_mlp=4)
    weights = init_weights(arch, random)
    weights["embed.W_E"].copy_(torch.eye(n))
    speaker = torch.arange(n).repeat(8)
    label = torch.randint(2, (n,), generator=random)[speaker]
    model, texts = Transformer(arch, weights), speaker[:, None]
    by_text = probe(model, texts, label, "embed", groups=[*range(len(texts))], steps=200)
    by_group = probe(model, texts, label, "embed", groups=speaker.tolist(), steps=200)
    alike = probe(model, texts, label, "embed", steps=200)  # the same text, again and again, is one
    assert by_text.best.accuracy > 0.95
    for found in (by_group, alike):
        assert found.best.accuracy < 0.75
        assert (found.sizes.test_groups, found.sizes.test_rows) == (16, 128)


def test_shuffled_labels_are_the_same_labels_and_texts_keep_one():
    places = labelled_places(torch.zeros(30, 4, dtype=torch.int64), [0, 1, 1] * 10, at="all")
    rows = (places.text < 20).nonzero()[:, 0]
    dealt = shuffled_labels(places, rows, Generator().manual_seed(0))
    assert dealt.sum() == places.labels[rows].sum()
    assert not torch.equal(dealt, places.labels[rows])
    assert bool((dealt.view(20, 4) == dealt.view(20, 4)[:, :1]).all())


def test_the_same_seed_gives_the_same_and_another_another_split(model, texts):
    labels = bit(texts[:, 0], 0)
    one, again, other = (probe(model, texts, labels, "L0.resid_post", steps=20, seed=seed) for seed in (0, 0, 1))
    assert one.rows() == again.rows()
    assert one.rows() != other.rows()


REFUSED = {
    "one class": (UserError, "every label is '1'", {"labels": [1] * N_TEXTS}),
    "too many labels": (BadShape, "200 texts, but 3 labels", {"labels": [0, 1, 0]}),
    "fractions": (UserError, "type float", {"labels": [0.5] * N_TEXTS}),
    "names and numbers": (UserError, "int, str", {"labels": ["a", 1] * (N_TEXTS // 2)}),
    "a rare class": (UserError, "'b' has 1 texts", {"labels": ["b", *["a", "c"] * 99, "a"]}),
    "labels of other positions": (BadShape, r"\(200, 3\)", {"labels": torch.zeros(N_TEXTS, 5, dtype=torch.int64)}),
    "no label": (UserError, "no position has", {"labels": torch.full((N_TEXTS, N_POS), -1)}),
    "labels below": (UserError, "Found -2", {"labels": torch.full((N_TEXTS, N_POS), -2)}),
    "at twice": (UserError, "Leave `at` out", {"labels": torch.zeros(N_TEXTS, N_POS).long(), "at": "all"}),
    "an unknown place": (UserError, "'middle'", {"at": "middle"}),
    "a position beyond": (BadPrompt, "has 3 tokens", {"at": [3]}),
    "groups": (BadShape, "1 groups", {"groups": [1]}),
    "a share": (BadConfig, "between 0 and 1", {"test_share": 1.0}),
    "few texts": (UserError, "judged on 2", {"test_share": 0.01}),
    "steps": (BadConfig, "1 at least", {"steps": 0}),
    "a pattern": (UserError, "no value at each position", {"sites": "L0.pattern"}),
    "a site": (UnknownSite, "L9.z", {"sites": "L9.z"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_probed_is_refused_in_words(name, model, texts):
    kind, says, choices = REFUSED[name]
    given = {"labels": bit(texts[:, -1], 0).tolist(), "sites": "embed", "steps": 1, **choices}
    with pytest.raises(kind, match=says):
        probe(model, texts, given.pop("labels"), given.pop("sites"), **given)


def test_results_refuse_what_they_do_not_have(model, texts):
    found = probe(model, texts, bit(texts[:, -1], 0), "embed", steps=2, hidden=3)
    with pytest.raises(BadShape, match="hidden layer"):
        found.directions("embed")
    with pytest.raises(UnknownSite, match="There are embed"):
        found["L0.z"]


def test_classes_are_in_order_whatever_they_are():
    assert numbered([5, 1, 5], 3, "labels")[1] == ("1", "5")
    assert numbered(torch.tensor([1, -1]).tolist(), 2, "labels")[1] == ("-1", "1")
    assert numbered([True, False], 2, "labels")[1] == ("False", "True")


def test_figures_show_every_layer_beside_its_nulls(model, texts):
    found = probe(model, texts, bit(texts[:, -1], 0), ["L*.resid_post", "L0.z"], steps=20, untrained=True)
    lines, table, confusions = found.figures()
    assert lines.data["names"] == ["accuracy", "shuffled labels", "commonest class", "without training"]
    assert lines.data["y"].shape == (4, 2)
    assert len(table.data["rows"]) == 3
    assert confusions.data["z"].sum(-1).tolist() == [[1, 1]]
    assert len(str(found).splitlines()) == 5
