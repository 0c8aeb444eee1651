"""The three restricted losses against their dense definitions."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from micrographia.core.basis import fold, unfold
from micrographia.core.errors import BadConfig
from micrographia.methods.fourier.losses import Losses, losses, table_losses
from micrographia.methods.fourier.restricted import (
    projected_table,
    quadratic_logits,
    restricted_loss,
    restricted_loss_of_neurons,
    restricted_table,
)

CASES = [(7, [2]), (7, [1, 3]), (8, [3, 4]), (8, [4]), (9, [])]


def draw(*shape: int, seed: int = 3) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def split(n: int) -> torch.Tensor:
    return torch.rand(n, n, generator=torch.Generator().manual_seed(4)) < 0.5


def directions(n: int, k: int) -> list[torch.Tensor]:
    """Normalised cos and sin(w_k(a + b)) over the n^2 pairs; no sine at Nyquist's frequency."""
    a = torch.arange(n, dtype=torch.float64)
    angle = (2 * math.pi * k / n * (a[:, None] + a)).flatten()
    waves = [angle.cos()] + ([angle.sin()] if 2 * k < n else [])
    return [wave / wave.norm() for wave in waves]


def dense_projection(x: torch.Tensor, ks: list[int]) -> torch.Tensor:
    """The notebook's sum of projections on directions over pairs, of anything (n, n, m)."""
    rows, n = x.flatten(0, 1), x.shape[0]
    kept = torch.zeros_like(rows)
    for k in ks:
        for direction in directions(n, k):
            kept += torch.outer(direction, direction @ rows)
    return kept.view_as(x)


def dense_losses(logits: torch.Tensor, train: torch.Tensor) -> tuple[float, ...]:
    return tuple(losses(logits, train))


def assert_same(result: Losses, expected: tuple[float, ...]) -> None:
    assert tuple(result) == pytest.approx(expected, rel=1e-12)


def test_the_comparison_of_losses_can_fail():
    train, logits = split(7), draw(7, 7, 7)
    with pytest.raises(AssertionError):
        assert_same(losses(logits + 1e-6 * draw(7, 7, 7, seed=5), train), dense_losses(logits, train))


@pytest.mark.parametrize(("n", "ks"), CASES)
def test_projection_equals_the_dense_definition(n, ks):
    logits, train = draw(n, n, n), split(n)
    kept = dense_projection(logits, ks)
    corrected = kept + (logits - kept).mean(dim=(0, 1))
    assert_same(restricted_loss(logits, ks, train), dense_losses(corrected, train))
    torch.testing.assert_close(unfold(restricted_table(fold(logits), ks)), corrected, rtol=0, atol=1e-12)
    torch.testing.assert_close(unfold(projected_table(fold(logits), ks)), kept, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "ks"), CASES)
def test_the_folded_table_alone_gives_the_loss_of_any_frequencies(n, ks):
    logits, train = draw(n, n, n), split(n)
    table = fold(logits)  # all that a report has to keep, with the pairs per sum
    s = torch.arange(n)
    kernel = torch.zeros(n, n, dtype=torch.float64)
    for k in ks:
        scale = 1 / n if 2 * k == n else 2 / n
        kernel += scale * torch.cos(2 * math.pi * k / n * (s[:, None] - s).double())
    assert_same(restricted_loss(logits, ks, train), tuple(table_losses(kernel @ table + table.mean(dim=0), train)))


@pytest.mark.parametrize(("n", "ks"), CASES)
def test_quadratic_equals_the_dense_definition(n, ks):
    logits, train = draw(n, n, n), split(n)
    a = torch.arange(n, dtype=torch.float64)
    kept = logits.mean(dim=(0, 1)).expand(n, n, n).clone()
    for k in ks:
        waves = [torch.cos(2 * math.pi * k / n * a)] + ([torch.sin(2 * math.pi * k / n * a)] if 2 * k < n else [])
        for wave_a in waves:
            for wave_b in waves:
                term = torch.outer(wave_a, wave_b)
                term = term / term.norm()
                kept += term[:, :, None] * torch.einsum("ab,abc->c", term, logits)
    torch.testing.assert_close(quadratic_logits(logits, ks), kept, rtol=0, atol=1e-12)
    assert_same(restricted_loss(logits, ks, train, variant="quadratic"), dense_losses(kept, train))


@pytest.mark.parametrize(("n", "ks"), CASES)
def test_neurons_equals_the_dense_definition(n, ks):
    neurons, W_L, logits, train = draw(n, n, 5), draw(5, n, seed=6), draw(n, n, n, seed=7), split(n)
    kept = (dense_projection(neurons, ks) + neurons.mean(dim=(0, 1))) @ W_L
    corrected = kept + (logits - kept).mean(dim=(0, 1))
    assert_same(restricted_loss_of_neurons(neurons, W_L, logits, ks, train), dense_losses(corrected, train))


def test_the_three_variants_differ():
    n, ks = 8, [1, 3]
    neurons, W_L = draw(n, n, 5), draw(5, n, seed=6)
    logits = neurons @ W_L + draw(n, n, n, seed=7)
    found = [
        restricted_loss(logits, ks).loss,
        restricted_loss(logits, ks, variant="quadratic").loss,
        restricted_loss_of_neurons(neurons, W_L, logits, ks).loss,
    ]
    assert len({round(loss, 6) for loss in found}) == 3


def test_logits_that_are_nothing_but_key_frequencies_lose_nothing():
    n, ks = 9, [2, 4]
    logits = unfold(projected_table(draw(n, n), ks)) + draw(n)
    full = tuple(losses(logits, split(n)))
    assert_same(restricted_loss(logits, ks, split(n)), full)
    assert_same(restricted_loss(logits, ks, split(n), variant="quadratic"), full)


def test_float32_logits_are_taken_in_float64():
    logits = draw(7, 7, 7).float()
    assert_same(restricted_loss(logits, [1, 2], split(7)), tuple(restricted_loss(logits.double(), [1, 2], split(7))))


def test_a_key_frequency_named_twice_counts_once():
    logits = draw(7, 7, 7)
    assert restricted_loss(logits, [2, 2]).loss == restricted_loss(logits, [2]).loss


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises((BadConfig, TypeCheckError), match="projection"):  # the second where annotations are executed
        restricted_loss(draw(3, 3, 3), [1], variant="cubic")  # pyright: ignore[reportArgumentType]: it is refused
