"""The algorithm read off planted logits, its words, and its formula run again."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.basis import unfold
from micrographia.methods.fourier.closed_form import (
    Algorithm,
    as_printed,
    closed_form_table,
    read_algorithm,
    sentences,
)


def draw(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(n: int, waves: dict[int, tuple[float, float]]) -> torch.Tensor:
    """sum of A cos(w_k(a + b - c) - phase), entry by entry."""
    index = torch.arange(n, dtype=torch.float64)
    d = index[:, None, None] + index[:, None] - index
    return sum(height * (2 * math.pi * k / n * d - phase).cos() for k, (height, phase) in waves.items())


def by_frequency(algorithm: Algorithm) -> dict[int, tuple[float, float]]:
    return {wave.k: (wave.amplitude, wave.phase) for wave in algorithm.waves}


@given(
    st.sampled_from([7, 11, 12]),
    st.dictionaries(st.integers(1, 5), st.tuples(st.floats(0.1, 30), st.floats(-3, 3)), min_size=1, max_size=3),
)
def test_planted_amplitudes_and_phases_are_read(n, waves):
    waves = {k: wave for k, wave in waves.items() if 2 * k < n}
    pairs_only = draw(n, n, 1)  # softmax is blind to it
    found = read_algorithm(planted(n, waves) + pairs_only if waves else pairs_only.expand(n, n, n), list(waves))
    for k, (height, phase) in by_frequency(found).items():
        assert (height, phase) == pytest.approx(waves[k], rel=1e-6, abs=1e-9)
    assert found.share == pytest.approx(1 if waves else 0)


def test_the_highest_frequency_of_an_even_group_has_a_cosine_alone():
    logits = planted(8, {4: (3.0, 0.0), 1: (2.0, 0.5)})
    found = read_algorithm(logits, [4, 1])
    assert by_frequency(found)[4] == pytest.approx((3.0, 0.0))
    torch.testing.assert_close(unfold(closed_form_table(found)), logits)
    assert by_frequency(read_algorithm(-logits, [4]))[4] == pytest.approx((3.0, math.pi))


def test_the_closed_form_is_the_part_of_the_logits_in_its_cubes():
    n, ks = 9, [2, 4]
    logits = draw(n, n, n)
    part = unfold(closed_form_table(read_algorithm(logits, ks)))
    rest = logits - logits.mean(dim=-1, keepdim=True) - part
    assert abs((rest * part).sum()) < 1e-9
    assert read_algorithm(rest, ks).share < 1e-20
    share = read_algorithm(logits, ks).share
    assert share == pytest.approx(float(part.square().sum() / (rest + part).square().sum()))


def test_what_the_neurons_write_themselves_is_a_share_of_the_amplitude():
    n = 7
    logits = planted(n, {2: (4.0, 0.3), 3: (1.0, 0.0)})
    neurons, W_L = logits.clone(), torch.eye(n, dtype=torch.float64)
    found = read_algorithm(logits + planted(n, {2: (4.0, 0.3)}), [2, 3], neurons=neurons, W_L=W_L)
    assert [wave.through_neurons for wave in found.waves] == pytest.approx([0.5, 1.0])
    assert math.isnan(read_algorithm(logits, [2]).waves[0].through_neurons)


def test_neurons_of_one_frequency_are_counted_as_its_own():
    n = 11
    a = torch.arange(n, dtype=torch.float64)
    neurons = torch.stack([(2 * math.pi * k / n * (a[:, None] + a)).cos() for k in (2, 2, 2, 5)], dim=-1)
    found = read_algorithm(draw(n, n, n), [2, 4, 5], neurons=neurons, W_L=draw(4, n))
    assert [wave.own_neurons for wave in found.waves] == [3, 0, 1]
    assert found.n_neurons == 4


def test_the_printed_formula_is_the_one_that_is_run():
    algorithm = read_algorithm(planted(11, {2: (12.3456, 0.001), 3: (0.98765, -0.5), 5: (4.0, 1.2)}), [2, 3, 5])
    formula = next(line for line in sentences(algorithm, "11") if line.startswith("Closed form"))
    terms = re.findall(r"([\d.]+) cos\(2 pi (\d+) \(a\+b-c\) / 11(?: ([+-]) (\d+) deg)?\)", formula)
    assert len(terms) == 3
    sign = {"+": -1, "-": 1, "": 0}
    read = {int(k): (float(height), sign[s] * math.radians(int(deg or 0))) for height, k, s, deg in terms}
    torch.testing.assert_close(planted(11, read), unfold(closed_form_table(as_printed(algorithm))))
    assert (planted(11, read) - unfold(closed_form_table(algorithm))).abs().max() < 0.1


def test_the_words_name_frequencies_neurons_and_what_is_left_out():
    n = 11
    neurons = draw(n, n, 4)
    said = " ".join(sentences(read_algorithm(draw(n, n, n), [2, 5], neurons=neurons, W_L=draw(4, n)), "11"))
    for part in ("k = 2, 5", "c = a + b mod 11", "Of 4 neurons", "of the logits' variance", "the rest bypasses"):
        assert part in said
    assert "neurons, these" not in " ".join(sentences(read_algorithm(draw(n, n, n), [2]), "11"))


def test_without_key_frequencies_nothing_is_claimed():
    found = read_algorithm(draw(7, 7, 7), [])
    (only,) = sentences(found, "7")
    assert "No key frequency" in only
    assert not unfold(closed_form_table(found)).any()


def test_logits_that_never_vary_have_no_share():
    assert math.isnan(read_algorithm(torch.zeros(7, 7, 7), [2]).share)
