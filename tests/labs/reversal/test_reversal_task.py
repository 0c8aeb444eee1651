"""The facts, rows and questions of the reversal lab are what the page says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.runtime import batch_generator
from micrographia.core.small.next_token import IGNORED
from micrographia.labs.reversal.arms import ARMS, BILINEAR, learner, learners, programs, seeds_of
from micrographia.labs.reversal.behaviour import ask, score
from micrographia.labs.reversal.config import tiny
from micrographia.labs.reversal.lessons import LESSONS, forward_and_reverse, questions, said
from micrographia.labs.reversal.task import make_world, spelling

WORLD = make_world(60, 2 / 3, 3, batch_generator(0, 0))


def triples(facts):
    return set(zip(*(part.tolist() for part in facts)))


def taught_by(name, world=WORLD, width=1):
    spelt = spelling(world.entities, world.relations, width, batch_generator(0, 1))
    return LESSONS[name](world, spelt, batch_generator(0, 2), 1 / 6), spelt


@given(st.integers(0, 10_000), st.integers(20, 80), st.floats(0, 0.9), st.integers(2, 4))
def test_every_entity_of_a_held_out_pair_is_read_and_answered(seed, entities, shared, relations):
    world = make_world(entities, shared, relations, batch_generator(seed, 0))
    one_way = set(world.taught.source.tolist()) | set(world.taught.target.tolist())
    lessons = world.lessons
    assert one_way <= set(lessons.source.tolist()) & set(lessons.target.tolist())


def test_what_is_held_out_is_never_taught_and_its_inverse_is():
    held_out, lessons = triples(WORLD.held_out), triples(WORLD.lessons)
    assert not held_out & lessons
    assert {(target, relation ^ 1, source) for source, relation, target in held_out} <= lessons


def test_a_question_has_one_answer():
    asked = [(source, relation) for source, relation, _ in triples(WORLD.lessons) | triples(WORLD.held_out)]
    assert len(set(asked)) == len(asked) == 60 * 3


def test_shared_facts_are_taught_both_ways():
    lessons = triples(WORLD.lessons)
    assert len(triples(WORLD.shared)) == 20 * 3
    assert {(target, relation ^ 1, source) for source, relation, target in triples(WORLD.shared)} <= lessons


def test_names_of_two_tokens_share_their_tokens_and_are_all_different():
    spelt = spelling(60, 3, 2, batch_generator(0, 1))
    assert len({tuple(name) for name in spelt.names.tolist()}) == 60
    assert len(spelt.names[:, 0].unique()) < 20
    assert len(spelt.words()) == spelt.d_vocab


@pytest.mark.parametrize("name", [name for name in LESSONS if name not in ("both", "context")])
@pytest.mark.parametrize("width", [1, 2])
def test_no_lesson_but_the_control_holds_the_held_out_question_with_its_answer(name, width):
    rows, spelt = taught_by(name, width=width)
    banned = {tuple(row) for row in said(WORLD.held_out, spelt).tolist()}
    length = 2 * width + 1
    for tokens, targets in zip(rows.tokens.tolist(), rows.targets.tolist()):
        whole = [tokens[0], *(x if x != IGNORED else t for x, t in zip(targets, [*tokens[1:], 0]))]
        assert tuple(whole[:length]) not in banned


def test_the_control_holds_them():
    rows, spelt = taught_by("both")
    asked = questions(WORLD.held_out, spelt)
    pairs = {(*row, target[-1]) for row, target in zip(rows.tokens.tolist(), rows.targets.tolist())}
    assert {(*row, answer) for row, answer in zip(asked.tokens.tolist(), asked.answers.tolist())} <= pairs


def test_a_copy_by_tokens_turns_names_round_and_one_by_entities_keeps_them():
    (turned, spelt), (kept, _) = taught_by("token_copies", width=2), taught_by("entity_copies", width=2)
    n = len(WORLD.lessons.source)
    first = said(WORLD.lessons, spelt)[0].tolist()
    for rows, wanted in ((turned, first[::-1]), (kept, [*first[3:], first[2], *first[:2]])):
        assert rows.tokens[n].tolist() == wanted[:-1]
        assert rows.targets[n].tolist() == [IGNORED, IGNORED, *wanted[3:]]


def test_masks_of_every_size_weigh_alike():
    rows, spelt = taught_by("masked")
    sizes = (rows.tokens == spelt.mask).sum(1)
    weight = [float(rows.weights[sizes == k].sum()) for k in (1, 2, 3)]
    assert weight == pytest.approx([weight[0]] * 3)
    hidden = rows.tokens == spelt.mask
    assert bool(((rows.targets != IGNORED) == hidden).all())


def test_facts_in_context_are_not_those_that_weights_know_and_their_place_tells_nothing():
    rows, spelt = taught_by("context")
    n = len(WORLD.lessons.source)
    made_up = rows.tokens[n:]
    answers = rows.targets[n:, -1]
    first = made_up[:, 0] == answers
    assert 0.3 < float(first.double().mean()) < 0.7
    assert bool((made_up[:, 3] == answers)[~first].all())
    known = {(source, relation, target) for source, relation, target in triples(WORLD.lessons)}
    drawn = [(a, r - spelt.name_tokens, b) for a, r, b in made_up[:, :3].tolist()]
    assert sum(each in known for each in drawn) < 0.1 * len(drawn)


def test_every_arm_has_its_rows_questions_and_seeds():
    config = tiny()
    for arms in (ARMS, BILINEAR):
        each = [one.arm.name for name in programs(arms) for one in learners(config, arms, name)]
        assert sorted(each) == sorted(arm.name for arm in arms for _ in seeds_of(config, arm))
    assert len({arm.name for arm in (*ARMS, *BILINEAR)}) == len(ARMS) + len(BILINEAR)


class TestAnswers:
    """Of an oracle that knows all, and of one that knows nothing."""

    one = learner(tiny(), ARMS[0], 0)

    def oracle(self, knows):
        spelt, facts = self.one.spelt, knows
        answers = {(a, r + spelt.name_tokens): b for a, r, b in triples(facts)}

        def asker(tokens, at):
            logits = torch.zeros(len(tokens), spelt.d_vocab)
            for row, (a, r) in enumerate(tokens.tolist()):
                if (a, r) in answers:
                    logits[row, answers[a, r]] = 20.0
            return logits

        return asker

    def test_who_knows_answers_and_shuffled_pairs_do_not_help(self):
        asked = self.one.asked["reverse"]
        found = score(self.oracle(self.one.world.held_out), asked, self.one.spelt, torch.Generator().manual_seed(0))
        assert (found.exact.estimate, found.chosen.estimate, found.mrr, found.shuffled) == (1, 1, 1, 0)
        assert found.tests.difference == pytest.approx(20)
        assert not found.tests.equivalent

    def test_who_does_not_is_at_chance_and_shown_to_be(self):
        asked = self.one.asked["reverse"]
        found = score(self.oracle(self.one.world.taught), asked, self.one.spelt, torch.Generator().manual_seed(0))
        assert found.exact.estimate == 0
        assert found.steadier.equivalent
        assert found.echo == 0

    def test_an_echo_is_seen(self):
        def parrot(tokens, at):
            return torch.nn.functional.one_hot(tokens[:, 0], self.one.spelt.d_vocab).float()

        assert ask(parrot, self.one.asked["reverse"], self.one.spelt).echo.all()

    def test_the_own_form_of_copies_asks_by_the_relation_that_was_taught(self):
        asked = forward_and_reverse("entity_copies", self.one.world, self.one.spelt)
        assert bool((asked["own form"].tokens[:, 0] == asked["reverse"].tokens[:, 0]).all())
        assert bool((asked["own form"].tokens[:, 1] == asked["forward"].tokens[:, 1]).all())
        assert bool((asked["own form"].answers == asked["reverse"].answers).all())
