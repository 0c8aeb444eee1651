"""The three measures that tell the clock from the pizza."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from micrographia.core.errors import BadShape
from micrographia.methods.clock_pizza import (
    circularity,
    distance_irrelevance,
    gradient_symmetricity,
    mechanism,
    random_triples,
)

N, K = 11, 3


def seeded(seed: int = 22) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def circle(n: int = N, k: int = K) -> torch.Tensor:
    angle = 2 * math.pi * k / n * torch.arange(n, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def clock(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """cos(w(a + b - c)) by the product of the two points as complex numbers."""
    product = torch.stack(
        [left[:, 0] * right[:, 0] - left[:, 1] * right[:, 1], left[:, 0] * right[:, 1] + left[:, 1] * right[:, 0]], 1
    )
    return product @ circle().T


def pizza(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """|cos(w(a - b) / 2)| cos(w(a + b - c)): the mean point, its angle doubled, its length kept."""
    x, y = (left + right).T / 2
    length = (x**2 + y**2).sqrt()
    return torch.stack([(x**2 - y**2) / length, 2 * x * y / length], 1) @ circle().T


def all_logits(network) -> torch.Tensor:
    left, right = (circle()[index.flatten()] for index in torch.meshgrid([torch.arange(N)] * 2, indexing="ij"))
    return network(left, right).view(N, N, N)


def test_the_pizza_has_symmetric_gradients_and_the_clock_has_not():
    assert gradient_symmetricity(pizza, circle(), generator=seeded()) == pytest.approx(1)
    assert gradient_symmetricity(clock, circle(), generator=seeded()) < 0.5


def test_gradient_symmetricity_is_the_mean_cosine_over_the_given_triples():
    W, triples = torch.randn(N, N, generator=seeded()).double(), torch.tensor([[1, 2, 3], [4, 4, 0], [7, 10, 10]])

    def network(left, right):
        return (left * right.sin()) @ torch.stack([W[0], W[1]])

    cosines = []
    for a, b, c in triples.tolist():
        left, right = circle()[a], circle()[b]
        of_left, of_right = right.sin() * W[:2, c], left * right.cos() * W[:2, c]
        cosines.append((of_left @ of_right / (of_left.norm() * of_right.norm())).item())
    found = gradient_symmetricity(network, circle(), triples=triples)
    assert found == pytest.approx(sum(cosines) / 3)


def test_gradient_symmetricity_leaves_no_gradient_behind():
    W_E = circle().requires_grad_()
    gradient_symmetricity(clock, W_E, generator=seeded())
    assert W_E.grad is None


def test_the_same_generator_draws_the_same_different_triples():
    triples = random_triples(N, 100, generator=seeded())
    assert torch.equal(triples, random_triples(N, 100, generator=seeded()))
    assert not torch.equal(triples, random_triples(N, 100, generator=seeded(23)))
    assert len(triples.unique(dim=0)) == 100
    assert triples.amin().item() >= 0
    assert triples.amax().item() == N - 1
    assert len(random_triples(3, 100, generator=seeded())) == 27


def test_distance_is_irrelevant_to_a_function_of_the_sum_alone_and_all_to_one_of_the_difference():
    a = torch.arange(N)
    value = torch.randn(N, generator=seeded()).double()
    of_sum, of_difference = value[(a[:, None] + a) % N], value[(a[:, None] - a) % N]
    assert distance_irrelevance(of_sum[:, :, None].expand(N, N, N)) == pytest.approx(1)
    assert distance_irrelevance(of_difference[:, :, None].expand(N, N, N)) == pytest.approx(0, abs=1e-12)


def test_distance_irrelevance_equals_the_published_loop():
    logits = torch.randn(N, N, N, generator=seeded()).double()
    correct = torch.zeros(N, N, dtype=torch.float64)
    for a in range(N):
        for b in range(N):
            correct[(a + b) % N, (a - b) % N] = logits[a, b, (a + b) % N]
    expected = correct.std(dim=0, correction=0).mean() / correct.std(correction=0)
    assert distance_irrelevance(logits) == pytest.approx(expected.item())


def test_the_pizza_depends_on_the_distance():
    assert distance_irrelevance(all_logits(pizza)) < 0.2


@pytest.mark.parametrize("n", [11, 12])
def test_an_embedding_of_circles_is_circular_and_noise_is_less_so(n):
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=seeded()).double()).Q
    circles = torch.cat([3 * circle(n, 1), circle(n, 4)], dim=1) @ rotation[:4]
    assert circularity(circles) == pytest.approx(1)
    assert circularity(torch.randn(n, 8, generator=seeded())) < 0.8


def test_more_components_than_there_are_are_refused():
    with pytest.raises((BadShape, TypeCheckError)):
        circularity(circle())


@pytest.mark.parametrize(
    ("symmetricity", "irrelevance", "expected"),
    [
        (0.99, 0.17, "pizza"),
        (0.99, 0.47, "pizza"),
        (0.33, 0.85, "clock"),
        (0.78, 0.72, "between"),
        (math.nan, 0.5, None),
    ],
)
def test_both_measures_together_tell_the_mechanism(symmetricity, irrelevance, expected):
    assert mechanism(symmetricity, irrelevance) == expected


def test_the_two_networks_are_told_apart_by_their_mechanism():
    for network, expected in ((pizza, "pizza"), (clock, "clock")):
        symmetricity = gradient_symmetricity(network, circle(), generator=seeded())
        assert mechanism(symmetricity, distance_irrelevance(all_logits(network))) == expected
