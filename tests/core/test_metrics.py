"""Metrics of answers: each against its formula, and reading its columns alone gives what the whole vocabulary gives."""

import pytest
import torch
from torch import Tensor

from micrographia.core.errors import BadShape
from micrographia.core.metrics import PAIRED, kl, log_prob, logit_difference, prompts, rank
from small import A_FEW, small_model, some_tokens

RIGHT, WRONG = torch.tensor([3, 0, 5]), torch.tensor([1, 2, 4])


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", PAIRED)
def test_reading_its_columns_alone_gives_the_metric_of_the_whole_vocabulary(name):
    arch = A_FEW["biased"]
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch, batch=3)
    whole = model.run(tokens).logits
    metric = PAIRED[name](RIGHT, WRONG, model.run(tokens.flip(0)).logits[:, -1], -1)
    read = metric(model.run(tokens, logits=metric.readout(prompts(3))).logits, prompts(3))
    torch.testing.assert_close(read, metric.of_vocabulary(whole, prompts(3)))


def test_each_metric_is_its_formula(logits):
    last, rows = logits[:, -1], torch.arange(3)
    chance = last.exp() / last.exp().sum(-1, keepdim=True)
    formulas = {
        "logit-diff": last[rows, RIGHT] - last[rows, WRONG],
        "logit": last[rows, RIGHT],
        "log-prob": chance[rows, RIGHT].log(),
        "prob": chance[rows, RIGHT],
        "prob-diff": chance[rows, RIGHT] - chance[rows, WRONG],
        "kl": torch.zeros(3, dtype=torch.float64),
        "rank": torch.tensor([sum(last[i] > last[i, RIGHT[i]]).item() for i in range(3)], dtype=torch.float64),
    }
    assert formulas.keys() == PAIRED.keys()
    for name, expected in formulas.items():
        found = PAIRED[name](RIGHT, WRONG, last, -1).of_vocabulary(logits, prompts(3))
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)


SETS = torch.tensor([[3, 0, 5], [0, -1, -1], [5, 3, -1]]), torch.tensor([[1, -1], [2, 4], [4, -1]])


def test_of_sets_logits_are_averaged_and_probabilities_summed(logits):
    last = logits[:, -1]
    chance = last.softmax(-1)
    right, wrong = ([[token for token in row if token >= 0] for row in each.tolist()] for each in SETS)
    rows = list(zip(last, chance, right, wrong))
    formulas = {
        "logit-diff": [x[a].mean() - x[b].mean() for x, _, a, b in rows],
        "logit": [x[a].mean() for x, _, a, _ in rows],
        "log-prob": [p[a].sum().log() for _, p, a, _ in rows],
        "prob": [p[a].sum() for _, p, a, _ in rows],
        "prob-diff": [p[a].sum() - p[b].sum() for _, p, a, b in rows],
        "rank": [(x > x[a].max()).sum().double() for x, _, a, _ in rows],
    }
    assert formulas.keys() == PAIRED.keys() - {"kl"}
    for name, expected in formulas.items():
        found = PAIRED[name](*SETS, last, -1).of_vocabulary(logits, prompts(3))
        torch.testing.assert_close(found, torch.stack(expected), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", PAIRED)
def test_a_set_of_one_is_that_answer_bit_for_bit(name):
    drawn = torch.randn(3, 1, 50, generator=torch.Generator().manual_seed(2))
    alone = PAIRED[name](RIGHT, WRONG, drawn[:, 0], -1).of_vocabulary(drawn, prompts(3))
    sets = PAIRED[name](RIGHT[:, None], WRONG[:, None], drawn[:, 0], -1).of_vocabulary(drawn, prompts(3))
    none = torch.full((3, 1), -1)
    beside = (torch.cat([each[:, None], none], 1) for each in (RIGHT, WRONG))  # where another prompt has two
    padded = PAIRED[name](*beside, drawn[:, 0], -1).of_vocabulary(drawn, prompts(3))
    assert torch.equal(alone, sets)
    assert torch.equal(alone, padded)


@pytest.mark.parametrize("name", PAIRED)
def test_a_set_is_read_from_its_columns_alone_and_has_a_gradient(name):
    arch = A_FEW["biased"]
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch, batch=3)
    whole = model.run(tokens).logits
    metric = PAIRED[name](*SETS, model.run(tokens.flip(0)).logits[:, -1], -1)
    read = metric(model.run(tokens, logits=metric.readout(prompts(3))).logits, prompts(3))
    torch.testing.assert_close(read, metric.of_vocabulary(whole, prompts(3)))
    if name != "rank":
        leaf = whole.clone().requires_grad_()
        (slope,) = torch.autograd.grad(metric.of_vocabulary(leaf, prompts(3)).sum(), leaf)
        assert slope.isfinite().all()
        assert slope[:, -1].abs().sum(-1).gt(0).all()


@pytest.mark.parametrize("name", PAIRED)
def test_a_narrow_dtype_is_widened_before_it_is_measured(name):
    drawn = torch.randn(3, 1, 2000, generator=torch.Generator().manual_seed(1))
    narrow, reference = drawn.bfloat16(), drawn.flip(0)[:, 0].bfloat16()
    found, expected = (
        PAIRED[name](RIGHT, WRONG, last, -1).of_vocabulary(logits, prompts(3))
        for last, logits in ((reference, narrow), (reference.float(), narrow.float()))
    )
    assert torch.equal(found, expected)  # of the same dtype, too
    held = torch.equal(found, found.bfloat16().float())
    assert held == (name == "logit"), "every other metric has digits that bfloat16 would lose"


def test_divergence_is_positive_and_grows_with_distance(logits):
    near, far = (kl(logits[:, -1] + size * logits[:, 0]).of_vocabulary(logits, prompts(3)) for size in (0.1, 1.0))
    assert (near > 0).all()
    assert (far > near).all()


def test_rows_of_the_same_prompt_share_its_answers(logits):
    prompt = torch.tensor([2, 2, 0])
    found = log_prob(RIGHT).of_vocabulary(logits, prompt)
    expected = logits[:, -1].log_softmax(-1)[torch.arange(3), RIGHT[prompt]]
    torch.testing.assert_close(found, expected)


def test_the_best_answer_has_rank_0():
    logits = torch.tensor([[[0.0, 3.0, 1.0]]])
    assert rank(torch.tensor([1])).of_vocabulary(logits, prompts(1)).tolist() == [0.0]
    assert rank(torch.tensor([0])).of_vocabulary(logits, prompts(1)).tolist() == [2.0]


def test_logits_of_several_positions_are_refused(logits):
    with pytest.raises(BadShape, match="readout"):
        logit_difference(RIGHT, WRONG)(logits, prompts(3))
