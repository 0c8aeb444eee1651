"""The pairs, their answers and the two splits, as published."""

import dataclasses
import random

import pytest
import torch

from micrographia.core.config import with_fields
from micrographia.core.splits import shuffle_split
from micrographia.labs.grokking.config import Config, paper, tiny
from micrographia.labs.grokking.task import OPERATIONS, all_rows, architecture, make_pairs

BY_HAND = {
    "add": lambda a, b, p: (a + b) % p,
    "subtract": lambda a, b, p: (a - b) % p,
    "multiply": lambda a, b, p: (a * b) % p,
    "polynomial": lambda a, b, p: (a**2 + a * b + b**2) % p,
}


@pytest.mark.parametrize("operation", BY_HAND)
@pytest.mark.parametrize("p", [3, 7, 12])
def test_rows_are_all_pairs_in_order_with_their_answer(operation, p):
    tokens, labels = all_rows(p, operation)
    expected = [(a, b, p) for a in range(p) for b in range(p)]
    assert [tuple(row) for row in tokens.tolist()] == expected
    assert labels.tolist() == [BY_HAND[operation](a, b, p) for a, b, _ in expected]


def test_every_operation_is_tested():
    assert OPERATIONS.keys() == BY_HAND.keys()


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_the_split_is_the_published_one(seed):
    """random.seed(seed), random.shuffle over the lexicographic triples, the first int(fraction * p * p)."""
    p, fraction = 23, 0.3
    triples = [(a, b, p) for a in range(p) for b in range(p)]
    state = random.getstate()
    random.seed(seed)
    random.shuffle(triples)
    random.setstate(state)
    seen = set(triples[: int(fraction * p * p)])
    pairs = make_pairs(dataclasses.replace(paper(), modulus=p, seed=seed))
    assert {tuple(row) for row in pairs.tokens[pairs.train].tolist()} == seen
    assert int(pairs.train.sum()) == len(seen)


@pytest.mark.parametrize("seed", [598, 0])
def test_the_other_split_is_that_of_the_transformer_lens_demo(seed):
    config = Config(modulus=11, split="randperm", seed=999, split_seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        expected = torch.randperm(121)[: int(0.3 * 121)]
    assert make_pairs(config).train.nonzero()[:, 0].tolist() == sorted(expected.tolist())


def test_the_mainline_sees_3830_pairs_of_12769():
    pairs = make_pairs(paper())
    assert pairs.tokens.shape == (12_769, 3)
    assert int(pairs.train.sum()) == 3_830
    assert int((~pairs.train).sum()) == 8_939


@pytest.mark.usefixtures("unchecked")  # the checks themselves draw which item of a list they look at
def test_splitting_leaves_the_global_generators_alone():
    before = random.getstate(), torch.get_rng_state()
    for split in ("shuffle", "randperm"):
        make_pairs(Config(modulus=7, split=split))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_the_seed_of_the_split_may_differ_from_that_of_the_weights():
    base = tiny()
    crossed = dataclasses.replace(base, seed=5, split_seed=0)
    assert torch.equal(make_pairs(crossed).train, make_pairs(base).train)
    assert not torch.equal(make_pairs(dataclasses.replace(base, seed=5)).train, make_pairs(base).train)


def test_a_larger_fraction_sees_all_that_a_smaller_one_sees():
    small, large = (shuffle_split(169, fraction, 3) for fraction in (0.3, 0.6))
    assert (large | ~small).all()
    assert large.sum() > small.sum()


def test_the_architecture_has_the_published_sizes():
    arch = architecture(paper())
    assert (arch.d_vocab, arch.d_vocab_out, arch.n_ctx) == (114, 114, 3)
    assert sum(torch.Size(shape).numel() for shape in arch.weight_shapes().values()) == 226_816


@pytest.mark.parametrize(
    "choices",
    [
        {"n_layers": 2},
        {"d_model": 64},
        {"n_heads": 2},
        {"d_head": 16},
        {"d_mlp": 100},
        {"act": "swiglu"},
        {"norm": "rmsnorm"},
        {"positions": "rotary"},
        {"attn_bias": True},
        {"mlp_bias": False},
        {"tied": True},
        {"attention": False},
        {"mlp": False},
    ],
    ids=lambda choices: next(iter(choices)),
)
def test_every_choice_of_architecture_reaches_it(choices):
    changed, base = architecture(with_fields(paper(), **choices)), architecture(paper())
    assert dataclasses.replace(base, **choices) == changed != base
