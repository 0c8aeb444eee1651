"""Performance and head scores of models whose behaviour is known."""

import pytest
import torch
from torch import Generator, Tensor

from micrographia.core.model import Output
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.labs.ioi.config import tiny
from micrographia.labs.ioi.grammar import IDS, WORDS, word_ids
from micrographia.labs.ioi.heads import ATTENDED, CLEAR, KINDS, head_scores, resembling
from micrographia.labs.ioi.performance import is_learned, perform, performance, years
from micrographia.labs.ioi.task import BEHAVIOURS, PromptPairs, prompt_pairs
from micrographia.labs.ioi.train import architecture

N = 64


def untrained() -> Transformer:
    arch = architecture(tiny())
    return Transformer(arch, init_weights(arch, Generator().manual_seed(0)))


class Knowing(Transformer):
    """A model whose last logits are looked up: prompt -> row of logits."""

    answers: dict[tuple[int, ...], Tensor]

    def run(self, inputs, **choices) -> Output:
        out = super().run(inputs, **choices)
        rows = [self.answers.get(tuple(row), torch.zeros(len(WORDS))) for row in inputs.tolist()]
        return out._replace(maybe_logits=torch.stack(rows)[:, None])


def knowing(prompts: Tensor, logits: Tensor) -> Knowing:
    model = untrained()
    known = Knowing(model.arch, model.state)
    known.answers = {tuple(row): logit for row, logit in zip(prompts.tolist(), logits)}
    return known


def one_hot(ids: Tensor, height: float = 5.0) -> Tensor:
    return torch.nn.functional.one_hot(ids, len(WORDS)) * height


def pairs(behaviour: str) -> PromptPairs:
    return prompt_pairs(behaviour, N, Generator().manual_seed(0))


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_model_that_knows_the_answers_is_right_and_its_null_is_not(behaviour):
    found = pairs(behaviour)
    score = performance(knowing(found.clean, one_hot(found.answer)), found)
    assert (score.accuracy, score.preferred, score.prompts) == (1, 1, N)
    assert score.logit_difference == pytest.approx(5)
    assert score.null_accuracy < 0.9


@pytest.mark.parametrize("behaviour", ["ioi", "induction", "pronoun"])
def test_the_corrupt_prompt_is_judged_by_the_clean_ones_answers(behaviour):
    found = pairs(behaviour)
    score = performance(knowing(found.corrupt, one_hot(found.wrong)), found)
    assert score.corrupt_logit_difference == pytest.approx(-5)


def test_a_model_that_always_says_the_same_name_is_no_better_than_its_null():
    found = pairs("ioi")
    score = performance(knowing(found.clean, one_hot(torch.full((N,), IDS["Mary"]))), found)
    assert score.accuracy == pytest.approx(score.null_accuracy)


def test_a_behaviour_is_learned_only_beyond_the_shuffled_answers():
    assert not is_learned(0.85, 0.77, 0.8)
    assert is_learned(0.89, 0.77, 0.8)
    assert not is_learned(0.79, 0.0, 0.8)
    assert is_learned(0.0, 0.0, 0.0)  # whatever was learned, to exercise the machinery


def test_a_model_that_knows_no_year_has_the_sharpness_of_its_null():
    found, flat = pairs("greater"), torch.full((N, len(WORDS)), -30.0)
    flat[:, word_ids("number")] = 0
    score = years(knowing(found.clean, flat), found)
    assert score.cutoff_sharpness == pytest.approx(0, abs=1e-6)
    assert score.probability_difference == pytest.approx(score.null_probability_difference)


def test_a_model_that_knows_the_year_is_sharp():
    found = pairs("greater")
    logits = torch.where(found.answers, 0.0, -30.0)
    score = years(knowing(found.clean, logits), found)
    assert score.probability_difference == pytest.approx(1, abs=1e-3)
    assert score.probability_difference > score.null_probability_difference + 0.1
    assert score.cutoff_sharpness > 0.005 > abs(score.null_cutoff_sharpness) - 0.02


def test_an_untrained_model_is_at_chance():
    found = perform(untrained(), n=200, generator=Generator().manual_seed(0))
    assert set(found) == set(BEHAVIOURS)
    for behaviour in ("ioi", "induction", "pronoun"):
        assert found[behaviour].accuracy < 0.6
        assert found[behaviour].preferred == pytest.approx(0.5, abs=0.15)


def test_every_kind_of_head_has_its_scores():
    found = head_scores(untrained(), n=16, generator=Generator().manual_seed(0))
    attended = {f"{behaviour}: {name}" for behaviour, named in ATTENDED.items() for name in named}
    kinds = {"previous token", "duplicate token", "induction"}
    kinds |= {"copies names", "suppresses names"}
    assert set(found) == attended | kinds
    for score in found.values():
        assert score.shape == (2, 2)
        assert bool(((score >= 0) & (score <= 1)).all())
    assert all(kind.behaviour in ATTENDED and set(kind.scores) <= found.keys() for kind in KINDS.values())


def test_scores_depend_on_the_generator_alone():
    first, again = (head_scores(untrained(), n=16, generator=Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_network_has_no_more_words_than_the_language():
    arch: Architecture = architecture(tiny())
    assert arch.d_vocab == arch.d_vocab_out == len(WORDS)


def test_a_head_resembles_a_kind_when_all_its_scores_are_clear():
    low, some, high = CLEAR - 0.01, CLEAR + 0.01, 0.9
    scores = {name: torch.full((1, 3), low) for kind in KINDS.values() for name in kind.scores}
    scores["induction"] = torch.tensor([[low, some, high]])
    scores["ioi: END to IO"] = torch.tensor([[high, high, low]])
    scores["copies names"] = torch.tensor([[high, low, high]])
    found = resembling(scores)
    assert found["induction"] == [(0, 2), (0, 1)]
    assert found["name mover"] == [(0, 0)]
    assert found["negative name mover"] == found["previous token"] == []
