"""The shape annotations of core and methods are executed while the tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from micrographia.core.basis import fold
from micrographia.core.losses import cross_entropy


def test_a_wrongly_shaped_call_into_core_raises():
    with pytest.raises(TypeCheckError):
        cross_entropy(torch.zeros(4, 7), torch.zeros(5, dtype=torch.long))


def test_a_call_with_the_wrong_kind_of_numbers_raises():
    with pytest.raises(TypeCheckError):
        cross_entropy(torch.zeros(4, 7), torch.zeros(4))


def test_a_wrongly_shaped_table_raises():
    with pytest.raises(TypeCheckError):
        fold(torch.zeros(3, 4, 5))
