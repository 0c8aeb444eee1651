"""Facts in a pretrained model: floors counted by hand, and interventions that change nothing or everything."""

import dataclasses

import pytest
import torch

from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.lab import run_lab
from micrographia.core.relations import Fact, WrittenRelation, shipped
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.labs.facts.known.asked import RecalledFacts, SubjectPrompts, known_of, written
from micrographia.labs.facts.known.config import KnownFacts, tiny
from micrographia.labs.facts.known.heads import extraction
from micrographia.labs.facts.known.lookup import ablated, replaced
from micrographia.labs.facts.known.readable import additive, readable, subject_tokens, vote
from micrographia.labs.facts.known.study import relations_of, study
from micrographia.methods.recall import recall
from tiny_words import save_words, word_model

N = 24
ANSWERS = ("red", "blue")
SUBJECTS = tuple(
    f"{first} {last}" for first in ("Ann", "Bo", "Cy", "Di", "Ed", "Fay") for last in ("Ash", "Elm", "Fir", "Oak")
)
FRAME = ("This", "text", "is", "about", "the", "colour", "of", "zed", ".")
WORDS = sorted({*" ".join(SUBJECTS).split(), *ANSWERS, *FRAME})
RELATION = WrittenRelation(
    name="colour",
    templates=("the colour of {} is",),
    facts=tuple(Fact(subject, ANSWERS[i % 2]) for i, subject in enumerate(SUBJECTS)),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return word_model(tmp_path_factory.mktemp("facts"), WORDS)


@pytest.fixture(scope="module")
def known() -> RecalledFacts:
    label = torch.arange(N) % 2
    return RecalledFacts(
        RELATION, SUBJECTS, tuple(f"the colour of zed is red .\nthe colour of {s} is" for s in SUBJECTS), ANSWERS, label
    )


def test_votes_are_those_of_others_with_the_same_token():
    assert vote([1, 1, 2, 2], ["a", "a", "b", "b"]) == 1
    assert vote([1, 1, 2, 2], ["a", "b", "a", "b"]) == 0
    assert vote([1, 2, 3], ["a", "a", "a"]) == 1  # alone: the commonest of all others


def test_an_attribute_of_the_last_token_is_told_by_summed_embeddings_and_a_random_one_is_not(model, known):
    tokens = [subject_tokens(model, subject) for subject in known.subjects]
    assert all(len(each) == 2 for each in tokens)
    assert additive(model, known, tokens, splits=3, steps=150, seed=0) == 1  # Ash and Fir red, Elm and Oak blue
    rows = torch.randperm(N, generator=generator(3))
    shuffled = known._replace(label=known.label[rows])
    assert additive(model, shuffled, tokens, splits=3, steps=150, seed=0) < 0.9


def test_the_subjects_own_state_from_the_same_prompt_changes_nothing(model, known):
    prompts = SubjectPrompts.of(model, known)
    whole, site = prompts.answers(), Site("resid_post", 1)
    own = prompts.at_subject([site])[site]
    for entering, layer in ((None, 0), (prompts.entering(1), 1)):
        again = prompts.answers(
            lambda batch: [written(site, own[batch.rows], batch.last)], layer=layer, entering=entering
        )
        torch.testing.assert_close(again, whole, atol=1e-4, rtol=1e-4)
    zeroed = prompts.answers(lambda batch: [written(site, torch.zeros_like(own[batch.rows]), batch.last)])
    assert (zeroed - whole).abs().max() > 1e-3


def test_interventions_cover_all_layers_and_start_where_they_act(model, known):
    prompts = SubjectPrompts.of(model, known)
    windows = ablated(prompts, known, 2)
    assert [(each.kind, each.first, each.last) for each in windows] == [
        ("mlp_out", 0, 1), ("attn_out", 0, 1), ("mlp_out", 2, 2), ("attn_out", 2, 2),
    ]  # fmt: skip
    assert [each.layer for each in replaced(prompts, known, [0, 2])] == [0, 2]


def test_heads_are_judged_on_the_half_that_did_not_choose_them(model, known):
    found = extraction(SubjectPrompts.of(model, known), known, generator(0))
    assert found.all_probes.shape == (3, 4)
    assert list(found.heads) == sorted(found.heads, key=lambda each: -each.direct)
    assert all(each.probe == pytest.approx(float(found.all_probes[each.layer, each.head])) for each in found.heads)


def test_probes_stand_beside_all_their_floors(model, known, unchecked):
    read = readable(model, known, every=2, splits=2, steps=60, seed=0)
    assert read.layers == (0, 2)
    assert set(read.accuracy) == {"neutral", "alone", "with examples"}
    assert read.commonest == 0.5
    assert read.accuracy["neutral"][0] > 0.8  # the last token tells it
    assert read.shuffled.shape == read.untrained.shape == (2,)


def test_too_little_known_is_told_with_how_much_is_needed(model):
    found = dataclasses.replace(
        recall(model, RELATION, shots=0, generator=generator(0)), among=torch.zeros(N, dtype=torch.bool)
    )
    with pytest.raises(UserError, match=r"0 of 24 facts.*16 facts"):
        known_of(dataclasses.replace(found, probability=torch.zeros(N)))


def test_relations_come_from_the_package_or_a_file(tmp_path):
    assert len(relations_of(KnownFacts())) == len(shipped())
    assert [each.name for each in relations_of(tiny())] == ["country continent"]
    with pytest.raises(BadPrompt, match="cannot be read"):
        relations_of(KnownFacts(relations=str(tmp_path / "no.json")))


def test_a_study_tells_what_it_could_not_look_into(tmp_path, unchecked):
    text = "\n".join(template for each in shipped(["country continent"]) for template in each.templates)
    words = sorted({*text.replace("{}", "").split(), "This", "about", "."})
    words += [word for fact in shipped(["country continent"])[0].facts for part in fact for word in part.split()]
    config = dataclasses.replace(tiny(), model=str(save_words(tmp_path / "model", words)), every=1, window=2, threads=1)
    done = run_lab(config, study, lab="facts", preset="tiny", out=tmp_path / "run")
    rows = done.results["recall"]
    assert {row["shots"] for row in rows} == {0, 3}
    assert done.results["looked_into"] or done.results["not_looked_into"]
