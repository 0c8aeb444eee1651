"""The data: all pairs of residues, their answers, and which of them the model sees.

A row is the tokens a, b, "=" with "=" = p, or a, b alone, as in others' networks; the answer is read at the last
position. Rows are ordered a * p + b.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from micrographia.core.config import flat
from micrographia.core.small.architecture import Architecture
from micrographia.core.splits import SPLITS
from micrographia.core.tokens import Vocabulary
from micrographia.labs.grokking.config import Config

OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "polynomial": lambda a, b: a * a + a * b + b * b,
}


class AllPairs(NamedTuple):
    """All p * p rows of an operation. `train` marks those that a network was trained on (None: not known)."""

    modulus: int
    operation: str
    tokens: Int[Tensor, "pairs pos"]
    labels: Int[Tensor, "pairs"]
    train: Bool[Tensor, "pairs"] | None


def all_rows(
    modulus: int, operation: str, last: Sequence[int] | None = None
) -> tuple[Int[Tensor, "pairs pos"], Int[Tensor, "pairs"]]:
    """Tokens and answers of every pair. `last`: the tokens after a and b, by default "=" = p."""
    residues = torch.arange(modulus)
    a, b = torch.cartesian_prod(residues, residues).unbind(1)
    after = [torch.full_like(a, token) for token in ((modulus,) if last is None else last)]
    return torch.stack([a, b, *after], 1), OPERATIONS[operation](a, b) % modulus


def all_pairs(
    modulus: int, operation: str, train: Bool[Tensor, "pairs"] | None, last: Sequence[int] | None = None
) -> AllPairs:
    return AllPairs(modulus, operation, *all_rows(modulus, operation, last), train)


def make_pairs(config: Config) -> AllPairs:
    """The pairs of a config with its split."""
    train = SPLITS[config.split](config.modulus**2, config.train_fraction, config.effective_split_seed)
    return all_pairs(config.modulus, config.operation, train)


def architecture(config: Config) -> Architecture:
    """p residues and "=" as inputs and, as published, as outputs."""
    vocab = config.modulus + 1
    return Architecture(d_vocab=vocab, d_vocab_out=vocab, n_ctx=3, **flat(config.network))


def vocabulary(config: Config) -> Vocabulary:
    """The residues as words, and "=": a prompt is "3 5 ="."""
    return Vocabulary((*map(str, range(config.modulus)), "="))
