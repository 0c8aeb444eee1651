"""Whether the model gives the answers, before anything is patched."""

import pytest
import torch

from micrographia.core.answer_check import ROWS, check_answers, same_word, written
from micrographia.core.errors import UserError
from micrographia.core.prompts import Pairs
from micrographia.core.small.transformer import Transformer
from micrographia.core.tokens import Vocabulary
from small import A_FEW, small_model, some_tokens

WORDS = Vocabulary(("Mary", "mary", "MARY", "John", "sees", "."))


@pytest.fixture(scope="module")
def found():
    arch, n = A_FEW["normed"], ROWS + 3
    model = small_model(arch, dtype=torch.float64)
    clean, corrupt = (some_tokens(arch, batch=n, seed=seed) for seed in (1, 2))
    order = model.run(clean).logits[:, -1].argsort(-1, descending=True)
    none = torch.full((n,), -1)
    right = torch.stack([order[:, 1], torch.where(torch.arange(n) % 2 == 0, order[:, 0], none)], 1)
    pairs = Pairs(clean, corrupt, right, order[:, 2])  # the first of all for every other prompt, of the choices for all
    return model, pairs, check_answers(model, pairs)


def test_it_is_the_models_own_prediction_on_both_sides(found):
    model, pairs, checked = found
    assert len(checked) == len(pairs) > ROWS
    for side, inputs in ((checked.clean, pairs.clean), (checked.corrupt, pairs.corrupt)):
        logits = model.run(inputs).logits[:, -1]
        chance = logits.softmax(-1)
        for i in range(len(pairs)):
            own = [token for token in pairs.answer[i].tolist() if token >= 0]
            assert side.answer.prob[i].item() == pytest.approx(chance[i, own].sum().item())
            assert side.answer.rank[i] == (logits[i] > logits[i, own].max()).sum()
            assert side.wrong.prob[i].item() == pytest.approx(chance[i, pairs.wrong[i]].item())
        assert torch.equal(side.first, logits.argmax(-1))
        torch.testing.assert_close(side.first_prob, chance.amax(-1))


def test_the_first_among_the_choices_need_not_be_the_first_of_all(found):
    _, pairs, checked = found
    assert checked.came_first.tolist() == [i % 2 == 0 for i in range(len(pairs))]
    assert checked.chosen is not None
    assert checked.chosen.all()
    assert "first on 18 of 35 clean prompts" in repr(checked)


def test_without_a_wrong_answer_nothing_is_chosen(found):
    model, pairs, _ = found
    alone = check_answers(model, Pairs(pairs.clean, pairs.corrupt, pairs.answer))
    assert alone.chosen is None
    assert alone.clean.wrong is None


def test_one_word_may_be_several_tokens():
    assert same_word(WORDS, 0, 2)
    assert not same_word(WORDS, 0, 0)
    assert not same_word(WORDS, 0, 3)
    assert written(WORDS, 3) == "'John'"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_whose_logits_are_no_numbers_answers_nothing(value):
    arch = A_FEW["normed"]
    model = small_model(arch)
    broken = Transformer(arch, {name: torch.full_like(w, value) for name, w in model.state.items()})
    tokens = some_tokens(arch, batch=2)
    with pytest.raises(UserError, match="no numbers"):
        check_answers(broken, Pairs(tokens, tokens, torch.tensor([0, 1])))
