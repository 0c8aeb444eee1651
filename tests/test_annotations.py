"""The annotations of core and methods are executed while the tests run: shapes by jaxtyping, all others by beartype."""

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from micrographia.core.basis import fold
from micrographia.core.claims import over_networks
from micrographia.core.losses import cross_entropy
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.small.weights import init_weights
from micrographia.methods.decay_balance import decay_balance
from small import A_FEW


def test_a_wrongly_shaped_call_into_core_raises():
    with pytest.raises(TypeCheckError):
        cross_entropy(torch.zeros(4, 7), torch.zeros(5, dtype=torch.long))


def test_a_call_with_the_wrong_kind_of_numbers_raises():
    with pytest.raises(TypeCheckError):
        cross_entropy(torch.zeros(4, 7), torch.zeros(4))


def test_a_wrongly_shaped_table_raises():
    with pytest.raises(TypeCheckError):
        fold(torch.zeros(3, 4, 5))


@pytest.mark.parametrize(
    "call",
    [
        lambda: generator("0"),
        lambda: over_networks([{"a": 1.0}]),
        lambda: Site("z", "0"),
        lambda: init_weights("an architecture", generator(0)),
    ],
    ids=["a function", "what a list holds", "a dataclass", "a function with shapes"],
)
def test_a_call_with_the_wrong_kind_of_argument_raises(call):
    with pytest.raises((BeartypeCallHintViolation, TypeCheckError)):
        call()


def test_a_table_of_tensors_of_the_wrong_kind_raises():
    with pytest.raises(TypeCheckError):
        decay_balance(A_FEW["plain"], {"W": 1.0}, torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, dtype=torch.long))
