"""The height of each wave at each distance: planted clocks and pizzas, and the formula printed and run again."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from micrographia.methods.fourier.closed_form import Algorithm, read_algorithm, sentences
from micrographia.methods.fourier.distance import Slice, distance_logits, formula, heights, read_slices, shrinking

DIGITS = st.integers(1, 99).map(lambda x: x / 4)


def entry_by_entry(n: int, k: int, clock: float, pizza: float, phase: float) -> Tensor:
    """(clock + pizza |cos(w(a - b)/2)|) cos(w(a + b - c) - phase)."""
    x = torch.arange(n, dtype=torch.float64)
    w = 2 * math.pi * k / n
    height = clock + pizza * (w * (x[:, None] - x) / 2).cos().abs()
    return height[..., None] * (w * (x[:, None, None] + x[:, None] - x) - phase).cos()


@given(st.sampled_from([7, 11, 12]), st.integers(1, 3), DIGITS, DIGITS, st.integers(-40, 40))
def test_planted_terms_are_read_as_they_are(n, k, clock, pizza, degrees):
    phase = math.radians(degrees)
    logits = entry_by_entry(n, k, clock, pizza, phase)
    [found] = read_slices(logits, read_algorithm(logits, [k]))
    size = clock + pizza
    assert (found.k, found.phase) == (k, pytest.approx(phase, abs=math.radians(0.5)))
    assert found.clock == pytest.approx(clock, rel=0.02, abs=0.02 * size)
    assert found.pizza == pytest.approx(pizza, rel=0.02, abs=0.02 * size)
    assert found.lost == pytest.approx(pizza / size, abs=0.02)


def test_the_terms_are_run_as_they_are_written():
    n, terms = 11, [Slice(2, 3.0, 0.0, 0.0), Slice(3, 1.0, 2.5, 0.5), Slice(5, 0.0, 4.0, -0.2)]
    expected = sum(entry_by_entry(n, each.k, each.clock, each.pizza, each.phase) for each in terms)
    torch.testing.assert_close(distance_logits(terms, n), expected)
    [said, share, lost] = formula(expected, terms)
    assert "= 3 cos(2 pi 2 (a+b-c) / 11) + (1 + 2.5 |cos(pi 3 (a-b) / 11)|) cos(2 pi 3" in said
    assert "+ 4 |cos(pi 5 (a-b) / 11)| cos(2 pi 5 (a+b-c) / 11 + 11 deg)" in said
    assert "100.0%" in share
    assert "0% (k = 2), 71% (k = 3), 100% (k = 5)" in lost
    assert formula(expected, []) == []


def test_the_highest_frequency_of_an_even_group_is_a_clocks():
    n = 8
    x = torch.arange(n)
    parity = (-1.0) ** (x[:, None, None] + x[:, None] - x).double()
    logits = 3 * parity + 2 * parity * (x[:, None] == x)[..., None]
    [found] = read_slices(logits, read_algorithm(logits, [4]))
    assert (found.clock, found.pizza) == (3.25, 0.0)
    assert shrinking(2, n).tolist() == pytest.approx([1, 0.5**0.5, 0, 0.5**0.5] * 2, abs=1e-12)


def test_the_mean_height_is_the_amplitude():
    logits = torch.randn(9, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = read_algorithm(logits, [2, 3])
    along = heights(logits, [2, 3])
    for wave, row in zip(found.waves, along):
        assert row.real.mean().item() == pytest.approx(wave.amplitude * math.cos(wave.phase))
        assert row.imag.mean().item() == pytest.approx(wave.amplitude * math.sin(wave.phase))
    assert heights(logits, []).shape == (0, 9)


def test_each_mechanism_has_its_words():
    found = read_algorithm(entry_by_entry(11, 2, 1.0, 1.0, 0.0), [2])
    said = {name: " ".join(sentences(found, "11", mechanism=name)) for name in ("clock", "pizza", "between")}
    assert said["clock"] == " ".join(sentences(found, "11"))
    multiplies, adds = "multiply these waves", "embeddings are added first"
    assert [multiplies in said[name] for name in said] == [True, False, True]
    assert [adds in said[name] for name in said] == [False, True, True]
    assert "no sine" not in said["clock"]
    assert "no sine" in sentences(Algorithm(4, read_algorithm(torch.randn(4, 4, 4), [2]).waves, 1.0, 0), "4")[0]
