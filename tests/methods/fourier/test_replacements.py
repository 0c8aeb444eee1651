"""Each replacement against its dense definition, on networks of neurons with planted frequencies."""

import math

import pytest
import torch

from micrographia.core.basis import unfold
from micrographia.methods.fourier import replacements as table
from micrographia.methods.fourier.closed_form import as_printed, closed_form_table, read_algorithm
from micrographia.methods.fourier.cubes import trig_loss
from micrographia.methods.fourier.losses import losses
from micrographia.methods.fourier.replacements import (
    Row,
    fitted_pattern,
    key_pattern,
    polynomials,
    replacements,
    uniform_pattern,
    waves_with_constant,
)
from micrographia.methods.fourier.restricted import restricted_loss

N, KEYS = 11, [2, 3, 5]


def draw(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def products(n: int, k: int) -> torch.Tensor:
    """The nine products of {1, cos w_k, sin w_k} of a and of b, as columns over the pairs."""
    a = torch.arange(n, dtype=torch.float64)
    angle = 2 * math.pi * k / n * a
    waves = [torch.ones(n, dtype=torch.float64), angle.cos()] + ([angle.sin()] if 2 * k < n else [])
    return torch.stack([torch.outer(x, y).flatten() for x in waves for y in waves], dim=1)


def neurons_with(frequency: list[int], *, noise: float, seed: int = 5) -> torch.Tensor:
    """A random polynomial of each neuron's frequency, plus noise; 0 for pure noise."""
    columns = []
    for i, k in enumerate(frequency):
        own = products(N, k) @ draw(products(N, k).shape[1], seed=seed + i) if k else torch.zeros(N * N)
        columns.append(own + (noise if k else 1.0) * draw(N * N, seed=seed + 100 + i))
    return torch.stack(columns, dim=1).view(N, N, -1)


class Network:
    """Neurons of the key frequencies and one of noise, a map to the logits, and something that goes round them."""

    def __init__(self, noise: float = 0.1) -> None:
        self.frequency = [2, 2, 3, 5, 0]
        self.neurons = neurons_with(self.frequency, noise=noise)
        W_L = draw(5, N, seed=8)
        self.W_L = W_L - W_L.mean(dim=1, keepdim=True)
        self.rest = draw(N, N, N, seed=9)
        self.logits = self.neurons @ self.W_L + self.rest
        self.train = draw(N, N, seed=10) > 0

    def rows(self, ks: list[int] = KEYS, **parts) -> dict[str, Row]:
        given = {"neurons": self.neurons, "W_L": self.W_L, "train": self.train} | parts
        return {row.name: row for row in replacements(self.logits, ks, **given)}


def assert_losses_of(logits: torch.Tensor, row: Row, network: Network) -> None:
    dense = losses(logits, network.train)
    found = (row.loss, row.accuracy, row.train_loss, row.test_loss)
    assert found == pytest.approx((dense.loss, dense.accuracy, dense.train_loss, dense.test_loss))
    assert row.ratio == pytest.approx(dense.loss / losses(network.logits).loss)


def test_the_comparison_of_rows_can_fail():
    network = Network()
    with pytest.raises(AssertionError):
        assert_losses_of(1.001 * network.logits, network.rows()[table.NETWORK], network)


def fitted(neurons: torch.Tensor, frequency: list[int]) -> torch.Tensor:
    """Dense least squares of each neuron on the products of its frequency; 0 leaves it as it is."""
    flat = neurons.flatten(0, 1).clone()
    for i, k in enumerate(frequency):
        if k:
            on = products(N, k)
            flat[:, i] = on @ torch.linalg.lstsq(on, flat[:, i, None]).solution[:, 0]
    return flat.view_as(neurons)


def test_the_first_row_is_the_network_itself():
    network = Network()
    row = replacements(network.logits, KEYS, train=network.train)[0]
    assert row.name == table.NETWORK
    assert_losses_of(network.logits, row, network)
    assert row.ratio == 1


def test_clustered_neurons_become_their_polynomial_and_the_rest_stays():
    network = Network()
    dense = fitted(network.neurons, network.frequency) @ network.W_L + network.rest
    row = network.rows()[table.POLYNOMIALS]
    assert_losses_of(dense, row, network)
    assert "4 of 5 neurons" in row.says


def test_neurons_that_are_polynomials_lose_nothing():
    network = Network(noise=0.0)
    rows = network.rows()
    assert rows[table.POLYNOMIALS].ratio == pytest.approx(1)
    assert abs(rows[table.OTHER_POLYNOMIALS].ratio - 1) > 0.01


def test_the_null_takes_the_next_key_frequency():
    network = Network()
    dense = fitted(network.neurons, [3, 3, 5, 2, 0]) @ network.W_L + network.rest
    assert_losses_of(dense, network.rows()[table.OTHER_POLYNOMIALS], network)


def test_with_one_key_frequency_the_null_takes_its_neighbour_and_says_so():
    network = Network()
    row = network.rows([2])[table.OTHER_POLYNOMIALS]
    assert_losses_of(fitted(network.neurons, [3, 3, 2, 2, 0]) @ network.W_L + network.rest, row, network)
    assert "neighbour" in row.says


@pytest.mark.parametrize(("n", "k"), [(7, 2), (8, 4)])
def test_polynomials_are_the_least_squares_fit(n, k):
    neurons = draw(n, n, 3)
    ((found, own, coefficients),) = polynomials(neurons, torch.tensor([k, 0, k]))
    assert (found, own.tolist()) == (k, [0, 2])
    waves = waves_with_constant(k, n)
    spread = torch.einsum("ia,jb,ijm->abm", waves, waves, coefficients)
    on = products(n, k)
    dense = on @ torch.linalg.lstsq(on, neurons.flatten(0, 1)).solution
    torch.testing.assert_close(spread, dense.view(n, n, 3)[..., [0, 2]])


def test_logits_replaced_by_formulas_have_the_losses_of_the_measures():
    network = Network()
    rows = network.rows()
    by_waves, by_cosines = restricted_loss(network.logits, KEYS), trig_loss(network.logits, KEYS)
    assert rows[table.SUM_WAVES].loss == pytest.approx(by_waves.loss)
    assert rows[table.KEY_COSINES].loss == pytest.approx(by_cosines.loss)
    printed = unfold(closed_form_table(as_printed(read_algorithm(network.logits, KEYS))))
    assert_losses_of(printed, rows[table.CLOSED_FORM], network)


def softmax_pattern(n: int, heads: int) -> torch.Tensor:
    scores = draw(n, heads, seed=1)
    same_for_both = torch.stack([scores[:, None].expand(n, n, heads), scores.expand(n, n, heads)], dim=-1)
    equals = torch.full((n, n, heads, 1), -3.0, dtype=torch.float64)
    return torch.cat([same_for_both, equals], dim=-1).softmax(dim=-1)


def waves_pattern(n: int, ks: list[int]) -> torch.Tensor:
    """0.49 + a wave of a less that of b; 2 % go to "="."""
    a = torch.arange(n, dtype=torch.float64)
    waves = torch.stack([0.2 * (2 * math.pi * k / n * a + 0.4).cos() for k in ks], dim=-1)
    to_a = 0.49 + waves[:, None] - waves
    return torch.stack([to_a, 0.98 - to_a, torch.full_like(to_a, 0.02)], dim=-1)


def test_attention_that_is_one_wave_a_head_is_fitted_exactly():
    pattern = waves_pattern(N, [2, 5])
    torch.testing.assert_close(fitted_pattern(pattern), pattern)
    torch.testing.assert_close(key_pattern(pattern, [2, 5]), pattern)


def test_waves_of_more_frequencies_fit_a_pattern_better():
    pattern = softmax_pattern(N, 3)
    changed = [uniform_pattern(pattern), fitted_pattern(pattern), key_pattern(pattern, range(1, 6))]
    uniform, one, many = ((x - pattern).square().sum() for x in changed)
    assert uniform > one > many
    for x in changed:
        torch.testing.assert_close(x.sum(dim=-1), torch.ones_like(x[..., 0]))


def test_the_network_is_run_with_the_replaced_patterns():
    network, pattern, seen = Network(), softmax_pattern(N, 2), []

    def run(changed: torch.Tensor) -> torch.Tensor:
        seen.append(changed)
        return network.logits * changed.sum()

    rows = network.rows(pattern=pattern, logits_given_pattern=run)
    fitted_, by_keys, uniform, none = seen
    torch.testing.assert_close(fitted_, fitted_pattern(pattern))
    torch.testing.assert_close(by_keys, key_pattern(pattern, KEYS))
    torch.testing.assert_close(uniform[..., 0], uniform[..., 1])
    torch.testing.assert_close(uniform.sum(dim=-1), torch.ones(N, N, 2, dtype=torch.float64))
    assert not none.any()
    assert_losses_of(network.logits * uniform.sum(), rows[table.UNIFORM_ATTENTION], network)
    assert_losses_of(torch.zeros(N, N, N), rows[table.NO_ATTENTION], network)


def test_what_is_not_there_is_left_out():
    network, pattern = Network(), softmax_pattern(N, 2)
    logits = [table.SUM_WAVES, table.KEY_COSINES, table.CLOSED_FORM]
    assert [row.name for row in replacements(network.logits, KEYS)] == [table.NETWORK, *logits]
    given = {"pattern": pattern, "logits_given_pattern": lambda changed: network.logits}
    attention = [table.FITTED_ATTENTION, table.UNIFORM_ATTENTION, table.NO_ATTENTION]
    assert list(network.rows([], **given)) == [table.NETWORK, *attention]


def test_without_a_split_its_losses_are_unknown():
    row = replacements(Network().logits, KEYS)[1]
    assert math.isnan(row.train_loss)
    assert math.isnan(row.test_loss)
