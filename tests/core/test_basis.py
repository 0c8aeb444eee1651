"""The Fourier basis, the cyclic coordinates of an operation, folding over a + b."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from micrographia.core.basis import (
    characters,
    cube_coefficients,
    fold,
    fold_difference,
    fourier_basis,
    frequency_rows,
    n_frequencies,
    pair_energy,
    pairs_to_cyclic,
    rows_of_frequencies,
    table_difference,
    to_cyclic,
    unfold,
)
from micrographia.core.errors import BadConfig, BadShape

SIZES = (2, 3, 6, 7, 12, 13)
OPERATIONS = {
    "add": lambda a, b, p: (a + b) % p,
    "subtract": lambda a, b, p: (a - b) % p,
    "multiply": lambda a, b, p: a * b % p,
}


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("n", SIZES)
def test_rows_are_the_named_waves(n):
    basis, x = fourier_basis(n), torch.arange(n, dtype=torch.float64)
    torch.testing.assert_close(basis[0], torch.full((n,), n**-0.5, dtype=torch.float64))
    for k in range(1, n // 2 + 1):
        wave = torch.cos(2 * math.pi * k / n * x)
        torch.testing.assert_close(basis[2 * k - 1], wave / wave.norm())
        if 2 * k < n:
            wave = torch.sin(2 * math.pi * k / n * x)
            torch.testing.assert_close(basis[2 * k], wave / wave.norm())


@pytest.mark.parametrize("n", SIZES)
def test_each_row_but_the_constant_belongs_to_one_frequency(n):
    rows = [row for k in range(1, n_frequencies(n) + 1) for row in range(n)[frequency_rows(k, n)]]
    assert rows == list(range(1, n))
    assert rows_of_frequencies([2, 1, 2], 7).tolist() == [1, 2, 3, 4]


def test_the_basis_is_float64_unless_asked_otherwise():
    assert fourier_basis(5).dtype == torch.float64
    assert fourier_basis(5, torch.float32).dtype == torch.float32


@pytest.mark.parametrize("k", [0, -1, 4])
def test_a_frequency_out_of_range_is_refused(k):
    with pytest.raises(BadConfig, match="1 to 3"):
        frequency_rows(k, 7)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("p", [3, 7, 13])
def test_in_cyclic_coordinates_the_operation_is_addition(operation, p):
    coordinates = characters(operation, p)
    assert coordinates is not None
    n = coordinates.order
    i = torch.arange(n)
    result = OPERATIONS[operation](coordinates.left[:, None], coordinates.right, p)
    assert torch.equal(result, coordinates.out[(i[:, None] + i) % n])
    assert len(coordinates.out.unique()) == n


def test_the_polynomial_has_no_characters_and_others_are_refused():
    assert characters("polynomial", 7) is None
    with pytest.raises(BadConfig, match="divide"):
        characters("divide", 7)
    with pytest.raises(BadConfig, match="prime"):
        characters("multiply", 9)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_right_answers_stand_at_a_plus_b_in_cyclic_coordinates(operation):
    p = 7
    coordinates = characters(operation, p)
    assert coordinates is not None
    a = torch.arange(p)
    logits = torch.nn.functional.one_hot(OPERATIONS[operation](a[:, None], a, p), p + 1).float()  # a column for "="
    cyclic = to_cyclic(logits, coordinates)
    i = torch.arange(coordinates.order)
    assert torch.equal(cyclic.argmax(dim=-1), (i[:, None] + i) % coordinates.order)
    assert torch.equal(to_cyclic(logits.flatten(0, 1), coordinates), cyclic)
    mask = logits.argmax(dim=-1) == 3
    assert torch.equal(coordinates.out[cyclic.argmax(dim=-1)] == 3, pairs_to_cyclic(mask, coordinates))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("rest", [(), (3,), (2, 4)])
def test_folding_is_the_mean_over_pairs_of_equal_sum(n, rest):
    x = seeded(n, n, *rest)
    a = torch.arange(n)
    total = (a[:, None] + a) % n
    dense = torch.stack([x[total == s].mean(dim=0) for s in range(n)])
    torch.testing.assert_close(fold(x), dense, rtol=0, atol=1e-14)


def test_folding_a_mask_gives_shares_in_float64():
    mask = torch.tensor([[True, False], [True, True]])
    torch.testing.assert_close(fold(mask), torch.tensor([1.0, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("n", SIZES)
def test_a_table_survives_unfolding_and_folding(n):
    table = seeded(n, 3)
    assert unfold(table)[1, n - 1].equal(table[0])
    torch.testing.assert_close(fold(unfold(table)), table, rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", SIZES)
def test_differences_are_means_over_a_plus_b_minus_c(n):
    logits = seeded(n, n, n)
    a = torch.arange(n)
    d = (a[:, None, None] + a[:, None] - a) % n
    centred = logits - logits.mean(dim=-1, keepdim=True)
    dense = torch.stack([centred[d == e].mean() for e in range(n)])
    torch.testing.assert_close(fold_difference(logits), dense, rtol=0, atol=1e-14)
    dense = torch.stack([logits[d == e].mean() for e in range(n)])
    torch.testing.assert_close(table_difference(fold(logits)), dense, rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", SIZES)
def test_cube_coefficients_are_scalar_products_with_normalised_cubes(n):
    logits = 3 * seeded(n, n, n) + 100 * seeded(n, n, 1)  # an offset of each pair does not matter
    a = torch.arange(n, dtype=torch.float64)
    angle = 2 * math.pi / n * (a[:, None, None] + a[:, None] - a)
    cosine, sine = cube_coefficients(logits)
    assert len(cosine) == n // 2
    assert len(sine) == (n - 1) // 2
    for k in range(1, n // 2 + 1):
        cube = torch.cos(k * angle)
        torch.testing.assert_close(cosine[k - 1], (logits * cube).sum() / cube.norm(), rtol=0, atol=1e-11)
    for k in range(1, (n - 1) // 2 + 1):
        cube = torch.sin(k * angle)
        torch.testing.assert_close(sine[k - 1], (logits * cube).sum() / cube.norm(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_energy_over_pairs_of_a_constant_is_nan(dtype):
    x = torch.stack([seeded(6, 6), torch.full((6, 6), 0.1), torch.zeros(6, 6)], dim=2).to(dtype)
    energy = pair_energy(x)
    torch.testing.assert_close(energy[0].item(), seeded(6, 6).var(correction=0).item() * 36, rtol=1e-6, atol=0)
    assert energy[1:].isnan().all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: fold(torch.zeros(3, 4)),
        lambda: to_cyclic(torch.zeros(5, 5, 3), characters("add", 5)),
        lambda: pairs_to_cyclic(torch.zeros(4, 4), characters("add", 5)),
    ],
)
def test_other_shapes_are_refused(call):
    with pytest.raises((BadShape, TypeCheckError)):  # the second where shape annotations are executed
        call()
