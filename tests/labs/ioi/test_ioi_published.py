"""The published analysis of GPT-2 small, on a miniature of its shape with random weights: machinery, not findings."""

import gpt2_of_words
import pytest
import torch

from micrographia.core.config import with_fields
from micrographia.core.errors import BadConfig, BadPrompt
from micrographia.core.pretrained.load import load
from micrographia.core.runtime import generator
from micrographia.core.tokens import ids_of
from micrographia.labs.ioi import gpt2, gpt2_prompts
from micrographia.labs.ioi.config import paper, preset_of
from micrographia.labs.ioi.run import run

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return gpt2_of_words.save(tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture(scope="module")
def model(folder):
    return load(str(folder), dtype=torch.float32)


@pytest.fixture(scope="module")
def groups(model):
    words, draw = gpt2_prompts.usable(model), generator(0)
    return [
        gpt2_prompts.group(model, template, order, 3, words, draw)
        for template in (0, 6)
        for order in gpt2_prompts.ORDERS
    ]


def text_of(model, row):
    return model.tokenizer.decode(row.tolist())


def test_there_are_fifteen_templates_in_two_orders():
    assert len(gpt2_prompts.TEMPLATES) == 15
    assert all(text.count("[B]") == 2 and text.count("[A]") == 2 for text in gpt2_prompts.TEMPLATES)


def test_every_prompt_holds_io_once_and_s_twice_and_asks_for_io(groups):
    for each in groups:
        assert ((each.abc.clean == each.abc.answer[:, None]).sum(1) == 1).all()
        assert ((each.abc.clean == each.abc.wrong[:, None]).sum(1) == 2).all()


def test_the_corruptions_change_the_second_subject_alone(groups):
    for each in groups:
        for side in (each.swap.corrupt, each.abc.corrupt):
            changed = (side != each.swap.clean).nonzero()[:, 1].unique().tolist()
            assert changed == [each.roles["S2"]]
        assert (each.swap.corrupt[:, each.roles["S2"]] == each.swap.answer).all()
        third = each.abc.corrupt[:, each.roles["S2"]]
        assert not ((third == each.abc.answer) | (third == each.abc.wrong)).any()


def test_the_orders_exchange_the_names_of_the_first_clause(groups):
    for each in groups:
        assert (each.roles["IO"] < each.roles["S1"]) == (each.order == "ABBA")
        assert each.roles["S1"] < each.roles["S2"] < each.roles["END"]


def test_the_eight_prompts_come_in_pairs_that_exchange_their_answers(model):
    pairs = gpt2_prompts.eight_prompts(model)
    assert len(pairs) == 8
    assert (ids_of(pairs.clean)[:, 0] == 0).all()
    assert torch.equal(ids_of(pairs.clean)[0::2], ids_of(pairs.corrupt)[1::2])
    assert torch.equal(pairs.answer[0::2], pairs.wrong[1::2])
    assert text_of(model, ids_of(pairs.clean)[0]).endswith("John gave the bag to")


def test_the_circuit_has_26_heads_at_the_positions_of_their_roles(groups):
    parts = gpt2.published(groups[0])
    assert len(parts) == 26
    at_end = {(p.node.site.layer, p.node.head) for p in parts if p.pos == groups[0].roles["END"]}
    assert at_end == {h for role in gpt2.HEADS for h in gpt2.HEADS[role] if gpt2.WHERE[role] == "END"}
    assert {p.pos for p in parts} == {groups[0].roles[name] for name in ("END", "S2", "S1+1")}


def test_random_circuits_are_as_large_and_other(groups):
    drawn = gpt2.by_chance(groups[0], generator(0))
    assert len(drawn) == 26
    assert drawn != gpt2.published(groups[0])


def test_a_model_that_knows_no_names_is_refused(tmp_path):
    few = ["<bos>", "<pad>", "Mary", "John", "store", "drink"]
    with pytest.raises(BadPrompt, match="three names"):
        gpt2_prompts.usable(load(str(gpt2_of_words.save(tmp_path / "few", n_layer=1, n_head=2, words=few))))


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    import miniature

    bare = miniature.save_gpt2(tmp_path / "bare", tokenizer=False)
    with pytest.raises(BadConfig, match="no tokenizer"):
        gpt2.loaded(with_fields(paper(), model=str(bare)), lambda event: None)


def test_a_model_of_another_shape_is_studied_without_the_published_heads(tmp_path):
    other = load(str(gpt2_of_words.save(tmp_path / "other", n_layer=2, n_head=2)))
    assert not gpt2.has_circuit(other)
    assert "2 layers of 2" in gpt2.circuit_alone(other, [], None, generator(0))["note"]


def test_eight_prompts_that_a_tokenizer_cannot_line_up_are_left_out(tmp_path):
    """Padded rows would be read as if they were whole."""
    words = [word for word in gpt2_of_words.vocabulary() if word not in ("Dan", "Sid")]
    unknown = load(str(gpt2_of_words.save(tmp_path / "names", n_layer=1, n_head=2, words=words)))
    nothing = {"eight_prompts": None}
    assert gpt2.eight(unknown) == nothing
    longer = [("When {0} and {1} went to the shops, {S} gave the bag to", ("John", "Mary"))]
    longer += [("{0} and {1} went, {S} gave to", ("Tom", "James"))]
    known = load(str(gpt2_of_words.save(tmp_path / "known", n_layer=1, n_head=2)))
    assert gpt2.eight(known) != nothing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpt2_prompts, "EIGHT", tuple(longer))
        assert gpt2.eight(known) == nothing


def test_a_model_of_the_same_shape_that_is_not_gpt2_by_name_says_so(model, monkeypatch):
    """The heads of another model of 12 layers of 12 are not those that the paper names."""
    assert "need not do the same" in gpt2.doubt("another-model-of-this-shape", model)["note"]
    assert gpt2.doubt("gpt2", model) == {}
    monkeypatch.setattr(gpt2, "has_circuit", lambda model: False)  # then no circuit was judged
    assert gpt2.doubt("another-model", model) == {}


def test_the_whole_analysis_runs_and_is_judged_at_paper(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(gpt2, "TEMPLATES", gpt2_prompts.TEMPLATES[:2])
    monkeypatch.setattr(gpt2, "RANDOM", 1)
    assert folder.name == "gpt2"
    config = with_fields(paper(), model=str(folder), prompts=8, pairs=2, places=6, threads=1)
    found = run(config, out=tmp_path / "run")
    assert found.status == "finished"
    numbers = found.results["published_circuit"]
    assert {"logit_difference", "preferred", "faithfulness", "eight_prompts", "most_for"} <= set(numbers)
    assert len(numbers["most_for"]) == 5
    assert {figure.kind for figure in found.figures} == {"heatmap", "scatter", "bars", "table", "text"}
    measured = {judged.claim.id: judged.measured for judged in found.claims}
    assert measured["gpt2-circuit"] == numbers["faithfulness"]
    assert all(judged.verdict == "not run" for judged in found.claims)  # other choices than the preset's
    assert measured["heads-found-twice"] is None
    figures = {name: each for name, each in found.results["measured"].items() if each["raw"] is not None}
    assert list(figures) == ["denoising-is-not-noising"]  # six places
    one = measured["denoising-is-not-noising"]
    assert one["low"] == one["median"] == one["high"]  # of one network
    assert numbers["heads"] == 26
    assert "note" not in numbers
    assert found.results["title"].endswith(": gpt2")


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("gpt2", "paper"),
        ("/models/gpt2", "paper"),
        ("openai-community/gpt2", "paper"),
        ("hub/models--openai-community--gpt2/snapshots/607a30d7", "paper"),
        ("gpt2-medium", "custom"),
        ("gpt2/tuned-on-poems", "custom"),
        ("models--gpt2/refs/main", "custom"),
    ],
)
def test_claims_about_gpt2_are_judged_wherever_its_weights_lie(name, preset):
    assert preset_of(with_fields(paper(), model=name)) == preset
