import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from micrographia.core.basis import cube_coefficients, n_frequencies
from micrographia.core.errors import BadShape, UserError
from micrographia.methods.fourier.activations import neuron_clusters, published_key_frequencies
from micrographia.methods.fourier.carriers import cluster_contributions, majority_frequency
from micrographia.methods.fourier.key_frequencies import find_frequencies, frequency_tests, losses_without
from micrographia.methods.fourier.losses import losses
from micrographia.methods.fourier.presence import cube_cells, family_wise, p_values


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def cosine(n: int, k: int, *, shift: int = 0) -> Tensor:
    """cos(w_k(a + b - c - shift)), of height 1."""
    x = torch.arange(n)
    return (2 * math.pi / n * (k * (x[:, None, None] + x[:, None] - x - shift) % n).double()).cos()


def right_answers(n: int) -> Tensor:
    x = torch.arange(n)
    return torch.nn.functional.one_hot((x[:, None] + x) % n, n).double()


def kinds(found) -> dict[int, str]:
    return {frequency.k: frequency.kind for frequency in found}


def filtered(n: int, seed: int, *, exponent: float, alike: bool) -> Tensor:
    """Noise whose spectrum is a product over a, b and c: smooth, or with a random colour on each axis."""
    index = torch.arange(n)
    k = torch.minimum(index, n - index)
    axes = (1, 1, 1) if alike else (1, 2, 3)
    colours = [(exponent * normal(n, seed=seed + 1000 * axis)).exp()[k] for axis in axes]
    spectrum = torch.fft.fftn(normal(n, n, n, seed=seed))
    return torch.fft.ifftn(spectrum * colours[0][:, None, None] * colours[1][:, None] * colours[2]).real


def smooth(n: int, seed: int) -> Tensor:
    index = torch.arange(n)
    falling = 1 / (1 + (torch.minimum(index, n - index).double() / 2) ** 2)
    spectrum = torch.fft.fftn(normal(n, n, n, seed=seed))
    return torch.fft.ifftn(spectrum * falling[:, None, None] * falling[:, None] * falling).real


def low_rank(n: int, seed: int) -> Tensor:
    return torch.einsum("ar,br,cr->abc", *(normal(n, 5, seed=seed + 1000 * axis) for axis in range(3)))


def untrained(n: int, seed: int) -> Tensor:
    left, right, out = normal(n, 64, seed=seed), normal(n, 64, seed=seed + 1000), normal(64, n, seed=seed + 2000)
    return (left[:, None] + right).relu() @ out


def random_answers(n: int, seed: int) -> Tensor:
    labels = torch.randint(n, (n, n), generator=generator(seed))
    return normal(n, n, n, seed=seed + 1000) + 10 * torch.nn.functional.one_hot(labels, n)


NOISES = {
    "independent": lambda n, seed: normal(n, n, n, seed=seed),
    "coloured": lambda n, seed: filtered(n, seed, exponent=1.5, alike=False),
    "coloured alike": lambda n, seed: filtered(n, seed, exponent=1.5, alike=True),
    "smooth": smooth,
    "low rank": low_rank,
    "an untrained network": untrained,
    "random answers learned": random_answers,
}


@pytest.mark.parametrize("kind", NOISES)
def test_in_noise_of_any_colour_hardly_anything_stands_out(kind):
    drawn = [NOISES[kind](12 + seed % 4, seed) for seed in range(120)]
    wrong = [(family_wise(p_values(cube_cells(logits), floor=0.0)) < 0.01).any().item() for logits in drawn]
    assert sum(wrong) <= 5  # 1.2 expected at most; more than 5 has probability 0.2 %


@pytest.mark.parametrize("n", [7, 10, 15, 31])
@pytest.mark.parametrize("kind", NOISES)
def test_a_planted_cube_is_found_in_any_noise(kind, n):
    noise = NOISES[kind](n, 1)
    logits = noise / noise.std() + 4 * cosine(n, 2)
    assert 2 in kinds(find_frequencies(logits))


@given(st.data())
@settings(max_examples=20)
def test_planted_frequencies_are_found_few_or_many(data):
    n = data.draw(st.sampled_from([15, 16, 23, 31]))
    planted = data.draw(st.sets(st.integers(1, n_frequencies(n)), min_size=1, max_size=n_frequencies(n)))
    seed = data.draw(st.integers(0, 10**6))
    logits = normal(n, n, n, seed=seed) + sum((1 + k / n) * cosine(n, k) for k in planted)
    found = find_frequencies(logits, family_wise_error=1e-3)
    assert set(kinds(found)) == planted
    assert set(kinds(found).values()) == {"present"}
    assert all(x.loss_change > 0 and x.own_neurons is None for x in found)


@pytest.mark.parametrize("n", [13, 16])
def test_a_formula_without_noise_has_exactly_its_frequencies(n):
    logits = 3 * cosine(n, 1) + 2 * cosine(n, 5)
    for dtype in (torch.float32, torch.float64):
        assert set(kinds(find_frequencies(logits.to(dtype)))) == {1, 5}


def test_logits_that_say_nothing_have_no_frequency():
    assert find_frequencies(torch.zeros(7, 7, 7)) == ()
    assert find_frequencies(torch.randn(7, 7, 1, generator=generator(0)).expand(7, 7, 7).contiguous()) == ()


def test_a_cube_that_points_away_from_the_answer_is_not_present():
    noise = normal(15, 15, 15, seed=0)
    tests = frequency_tests(noise - 3 * cosine(15, 4))
    assert tests.p_value[3] < 0.01
    assert tests.loss_change[3] < 0
    assert not tests.present[3]
    assert find_frequencies(noise + 5 * cosine(15, 4, shift=2)) == ()


def test_renaming_the_residues_by_a_unit_renames_the_frequencies():
    n, unit = 17, 3
    logits = normal(n, n, n, seed=0) + 2 * cosine(n, 2) + 2 * cosine(n, 7)
    renamed = unit * torch.arange(n) % n
    before, after = frequency_tests(logits), frequency_tests(logits[renamed][:, renamed][:, :, renamed])
    to = [min(unit * k % n, -unit * k % n) for k in range(1, n // 2 + 1)]
    for old, new in zip(before, after):
        torch.testing.assert_close(old.double(), new[[k - 1 for k in to]].double(), equal_nan=True)


@given(st.integers(4, 9), st.integers(0, 99), st.sampled_from([1.0, 30.0, 3000.0]))
def test_losses_without_are_those_of_the_logits_without_the_cube(n, seed, size):
    logits = size * normal(n, n, n, seed=seed)
    v = size * n * normal(n_frequencies(n), seed=seed + 1)
    for k in range(1, n_frequencies(n) + 1):
        unit = cosine(n, k) / cosine(n, k).norm()
        expected = losses(logits - v[k - 1] * unit).loss
        assert losses_without(logits, v)[k - 1].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_tiny_losses_keep_their_accuracy():
    logits = 40 * right_answers(11)
    loss = losses_without(logits, torch.zeros(1, dtype=torch.float64)).item()
    assert loss == pytest.approx(10 * math.exp(-40), rel=1e-12)


@given(st.integers(5, 10), st.integers(0, 99))
def test_what_neurons_and_the_rest_write_sums_to_the_cube(n, seed):
    neurons, W_L, rest = normal(n, n, 6, seed=seed), normal(6, n, seed=seed + 1), normal(n, n, n, seed=seed + 2)
    by_neurons = cluster_contributions(neurons, W_L, majority_frequency(neurons)).sum(dim=1)
    whole = cube_coefficients(neurons @ W_L + rest).cosine
    torch.testing.assert_close(by_neurons + cube_coefficients(rest).cosine, whole)


def circuit(n: int, k: int, *, overtone: float = 0.0, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """24 ReLU neurons of frequency k, read out at k and, as ReLU allows, a little at 2k."""
    x, phase = torch.arange(n), 2 * math.pi * torch.arange(24) / 24
    turn = (2 * math.pi / n * (k * x % n).double())[:, None] + phase
    neurons = (turn.cos()[:, None] + turn.cos()).relu()
    answer = (2 * math.pi / n * (k * x % n).double()) + 2 * phase[:, None]
    return neurons, size * (answer.cos() + overtone * (2 * answer).cos())


def together(n: int, *circuits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    neurons = torch.cat([c[0] for c in circuits], dim=2)
    W_L = torch.cat([c[1] for c in circuits])
    return neurons @ W_L + 0.3 * normal(n, n, n, seed=5), neurons, W_L


def test_a_multiple_written_by_another_frequencys_neurons_is_an_overtone():
    found = find_frequencies(*together(19, circuit(19, 3, overtone=-3.0), circuit(19, 7)))
    assert kinds(found) == {3: "key", 6: "overtone", 7: "key"}
    assert {x.k: x.carried_by for x in found} == {3: 3, 6: 3, 7: 7}
    assert {x.k: x.own_neurons for x in found} == {3: 24, 6: 0, 7: 24}


def test_a_multiple_with_neurons_of_its_own_is_key():
    found = find_frequencies(*together(19, circuit(19, 3, overtone=-3.0), circuit(19, 6)))
    assert kinds(found) == {3: "key", 6: "key"}


def test_a_cube_that_goes_round_the_neurons_is_only_present():
    logits, neurons, W_L = together(19, circuit(19, 3))
    found = find_frequencies(logits + 5 * cosine(19, 8), neurons, W_L)
    assert kinds(found) == {3: "key", 8: "present"}


def test_answers_memorised_on_the_pairs_seen_are_no_frequency_where_the_split_is_known():
    n = 23
    train = torch.rand(n, n, generator=generator(0)) < 0.4
    logits = normal(n, n, n, seed=1) + 8 * right_answers(n) * train[..., None] - right_answers(n) * ~train[..., None]
    assert len(find_frequencies(logits)) > 5  # they do hold every frequency
    assert find_frequencies(logits, held_out=~train) == ()
    both = logits + 3 * cosine(n, 4)
    assert set(kinds(find_frequencies(both, held_out=~train))) == {4}


def trained(p: int, answers: Tensor, seen: Tensor, *, epochs: int, decay: float) -> tuple[Tensor, Tensor, Tensor]:
    """An MLP on summed embeddings of a and b: logits, neurons and W_L."""
    g = generator(0)
    E = [(torch.randn(p, 96, generator=g) / 10).requires_grad_() for _ in range(2)]
    U = (torch.randn(96, p, generator=g) / 10).requires_grad_()
    optimizer = torch.optim.AdamW([*E, U], lr=0.01, weight_decay=decay, betas=(0.9, 0.98))
    for _ in range(epochs):
        neurons = (E[0][:, None] + E[1]).relu()
        loss = torch.nn.functional.cross_entropy((neurons @ U)[seen], answers[seen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    neurons = (E[0][:, None] + E[1]).relu().detach()
    return neurons @ U.detach(), neurons, U.detach()


def test_a_network_that_grokked_has_key_frequencies_that_do_its_work():
    p, x = 23, torch.arange(23)
    seen = torch.rand(p, p, generator=generator(1)) < 0.9
    logits, neurons, W_L = trained(p, (x[:, None] + x) % p, seen, epochs=500, decay=1.0)
    assert losses(logits, seen).test_accuracy > 0.9
    found = find_frequencies(logits, neurons, W_L, held_out=~seen)
    assert len(found) >= 8  # an MLP uses nearly all of them
    assert all(x.kind == "key" and x.own_share > 0.9 for x in found)
    assert all(x.own_neurons >= 2 for x in found)  # 4 to 13 here; another processor rounds to another network
    formula = sum(x.coefficient * cosine(p, x.k) / cosine(p, x.k).norm() for x in found)
    assert losses(formula).accuracy == 1


def test_a_network_that_only_memorised_has_no_key_frequency_though_the_published_rule_names_nearly_all():
    p, x = 17, torch.arange(17)
    seen = torch.rand(p, p, generator=generator(1)) < 0.4
    logits, neurons, W_L = trained(p, (x[:, None] + x) % p, seen, epochs=200, decay=0.0)
    assert losses(logits, seen).train_accuracy == 1
    assert losses(logits, seen).test_accuracy < 0.2
    for split in (None, ~seen):
        assert "key" not in kinds(find_frequencies(logits, neurons, W_L, held_out=split)).values()
    assert len(published_key_frequencies(neuron_clusters(neurons))) >= 7


def test_random_answers_learned_by_heart_have_no_frequency_at_all():
    answers = torch.randint(17, (17, 17), generator=generator(3))
    everywhere = torch.ones(17, 17, dtype=torch.bool)
    logits, neurons, W_L = trained(17, answers, everywhere, epochs=300, decay=0.0)
    assert (logits.argmax(dim=-1) == answers).float().mean() > 0.9
    assert find_frequencies(logits, neurons, W_L) == ()


def test_half_of_what_is_needed_to_find_carriers_is_refused():
    with pytest.raises(BadShape, match="no W_L"):
        find_frequencies(torch.zeros(5, 5, 5), torch.zeros(5, 5, 3))
    with pytest.raises(BadShape, match="no neurons"):
        find_frequencies(torch.zeros(5, 5, 5), W_L=torch.zeros(3, 5))


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="NaN"):
        find_frequencies(torch.full((5, 5, 5), math.nan))
