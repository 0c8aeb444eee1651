import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.basis import cube_coefficients
from micrographia.methods.fourier.presence import cube_cells, family_wise, p_values

SIZES = st.integers(5, 12)


def noise(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wave(n: int, alpha: int, beta: int, gamma: int, phase: float) -> torch.Tensor:
    """cos(w(alpha a + beta b + gamma c) + phase), of norm 1 over all entries."""
    x = torch.arange(n)
    angle = 2 * math.pi / n * ((alpha * x[:, None, None] + beta * x[:, None] + gamma * x) % n).double()
    made = (angle + phase).cos()
    return made / made.norm()


@given(SIZES, st.integers(0, 99))
def test_cosine_and_sine_are_the_cubes_of_the_basis(n, seed):
    logits = noise(n, seed)
    cells, cubes = cube_cells(logits), cube_coefficients(logits)
    torch.testing.assert_close(cells.cosine, cubes.cosine)
    torch.testing.assert_close(cells.sine[: len(cubes.sine)], cubes.sine)


@pytest.mark.parametrize(("n", "seed"), [(5, 0), (6, 1), (8, 2), (9, 3)])
def test_other_signs_and_wrong_sums_are_scalar_products_with_waves(n, seed):
    logits = noise(n, seed)
    cells = cube_cells(logits)
    for k in range(1, (n - 1) // 2 + 1):
        signs = [wave(n, *s, phase) for s in ((k, k, k), (k, -k, k), (k, -k, -k)) for phase in (0, -math.pi / 2)]
        rms = torch.stack([(logits * w).sum() for w in signs]).square().mean().sqrt()
        torch.testing.assert_close(cells.other_signs[k - 1], rms)
        others = [(a, b) for a in range(n) for b in range(n) if (a, b) != (k, k)]
        energies = [(logits * wave(n, a, b, -k, phase)).sum() ** 2 for a, b in others for phase in (0, -math.pi / 2)]
        torch.testing.assert_close(cells.wrong_sums[k - 1], torch.stack(energies).mean().sqrt())


def test_chosen_pairs_alone_are_the_logits_with_the_others_at_their_mean():
    logits, pairs = noise(9, 0), noise(9, 1)[0] > 0
    centred = logits - logits.mean(dim=-1, keepdim=True)
    torch.testing.assert_close(cube_cells(logits, pairs), cube_cells(centred * pairs[..., None]))


def test_a_cube_that_stands_out_has_a_small_p_value_and_the_others_do_not():
    n, planted = 31, [3, 7]
    logits = noise(n, 0) + sum(40 * wave(n, k, k, -k, 0) for k in planted)
    p = family_wise(p_values(cube_cells(logits), floor=0.0))
    assert all((p[k - 1] < 1e-4) == (k in planted) for k in range(1, n // 2 + 1))
    assert (p[[k for k in range(n // 2) if k + 1 not in planted]] > 0.05).all()


def test_a_sine_as_large_as_the_cosine_makes_the_cosine_unremarkable():
    n = 31
    straight = noise(n, 0) + 20 * wave(n, 4, 4, -4, 0)
    askew = straight + 20 * wave(n, 4, 4, -4, -math.pi / 2)
    p, p_askew = (p_values(cube_cells(x), floor=0.0)[3] for x in (straight, askew))
    assert p < 1e-4
    assert p_askew > 20 * p


def test_the_rounding_of_a_formula_is_nobodys():
    logits = 5 * wave(13, 2, 2, -2, 0)
    p = p_values(cube_cells(logits), floor=1e-14)
    assert p[1] < 1e-12
    assert p[[0, 2, 3, 4, 5]].min() > 0.1


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_steps_down(p):
    adjusted = family_wise(torch.tensor(p, dtype=torch.float64))
    order, largest = sorted(range(len(p)), key=p.__getitem__), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        assert adjusted[i].item() == pytest.approx(largest)
