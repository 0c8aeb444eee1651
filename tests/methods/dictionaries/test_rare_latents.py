"""The rare cluster: found where it was planted, and not where a mean alone would show one."""

import math

import pytest
import torch

from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.errors import BadShape
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.geometry.rare import (
    compare,
    control_cosines,
    encoder_decoder,
    rare_cluster,
    sensitivity,
)

D, N, RARE = 64, 200, 120


def planted(seed: int, shared: torch.Tensor, *, noise: float = 0.1) -> Dictionary:
    """A dictionary whose first latents have the encoder direction `shared`; nothing else is shared."""
    draw = torch.randn(2, N, D, generator=generator(seed)) / D**0.5
    encoder, decoder = draw
    encoder[:RARE] = shared + noise * encoder[:RARE]
    weights = DictionaryWeights(W_enc=encoder.T, W_dec=decoder, b_enc=torch.zeros(N), b_dec=torch.zeros(D))
    return Dictionary(weights, Form())


@pytest.fixture
def shared():
    drawn = torch.randn(D, generator=generator(7))
    return drawn / drawn.norm()


FREQUENCY = torch.where(torch.arange(N) < RARE, 1e-5, 1e-2).double()


def test_a_planted_direction_is_found_in_the_encoder_and_not_in_the_decoder(shared):
    found = rare_cluster(planted(0, shared), FREQUENCY)
    assert found.share == RARE / N
    assert found.aligned() == 1
    assert found.aligned(rare=False) == 0
    assert found.aligned(decoder=True) == 0
    assert float(found.direction.float() @ shared) > 0.999


def test_the_direction_is_the_mean_of_the_columns_and_not_of_their_directions():
    dictionary = planted(0, torch.zeros(D), noise=1.0)
    columns = dictionary.weights.W_enc.T[:RARE].double()
    torch.testing.assert_close(rare_cluster(dictionary, FREQUENCY).direction, columns.mean(0) / columns.mean(0).norm())


def test_without_a_shared_direction_none_is_found():
    found = rare_cluster(planted(0, torch.zeros(D), noise=1.0), FREQUENCY)
    assert found.aligned() == 0
    assert float(found.encoder[found.rare].mean()) == pytest.approx(RARE**-0.5, rel=0.3)  # a mean of its own members


def test_the_controls_show_what_a_mean_has_by_itself(shared):
    rows = planted(0, torch.zeros(D), noise=1.0).weights.W_enc.T
    drawn, noise = control_cosines(rows, 25, generator(0))
    assert float(drawn.mean()) == pytest.approx(1 / 5, rel=0.3)
    assert float(noise.mean()) == pytest.approx(1 / 5, rel=0.3)
    alike, _ = control_cosines(shared.expand(10, D), 25, generator(0))
    torch.testing.assert_close(alike, torch.ones(10, dtype=torch.float64))


def test_two_dictionaries_share_a_planted_direction_and_two_others_none(shared):
    one, other, third = planted(0, shared), planted(1, shared), planted(2, torch.zeros(D), noise=1.0)
    a, b, c = (rare_cluster(each, FREQUENCY) for each in (one, other, third))
    assert compare(one, other, a, b).directions > 0.99
    assert abs(compare(one, third, a, c).directions) < 0.5
    assert abs(compare(one, other, a, b).common) < 0.5


def test_the_nearest_common_latent_of_another_dictionary_is_found(shared):
    one = planted(0, shared)
    a = rare_cluster(one, FREQUENCY)
    same = compare(one, one, a, a)
    torch.testing.assert_close(same.healthy_to_common, torch.ones(N - RARE))
    assert float(same.to_common.max()) < 0.9
    assert len(same.to_common) == RARE


def test_where_all_are_rare_or_none_nothing_is_made_up(shared):
    one = planted(0, shared)
    none = rare_cluster(one, torch.ones(N).double())
    assert (none.share, math.isnan(none.aligned())) == (0, True)
    every = rare_cluster(one, torch.zeros(N).double())
    assert every.share == 1
    assert math.isnan(every.aligned(rare=False))
    assert compare(one, one, every, every).to_common.isnan().all()


def test_another_cut_gives_another_cluster(shared):
    found = sensitivity(planted(0, shared), FREQUENCY, [1e-6, 1e-4, 1e-1])
    assert [share for _, share, _ in found] == [0, RARE / N, 1]
    assert found[1][2] == 1


def test_encoder_and_decoder_are_compared_latent_by_latent():
    eye = torch.eye(D)
    weights = DictionaryWeights(W_enc=2 * eye, W_dec=-eye, b_enc=torch.zeros(D), b_dec=torch.zeros(D))
    found = encoder_decoder(Dictionary(weights, Form()))
    assert found.cosine.tolist() == [-1.0] * D
    assert found.projection.tolist() == [-2.0] * D


def test_a_transcoder_between_widths_has_no_such_cosine_and_other_frequencies_are_refused(shared):
    weights = DictionaryWeights(
        W_enc=torch.ones(4, 3), W_dec=torch.ones(3, 5), b_enc=torch.zeros(3), b_dec=torch.zeros(5)
    )
    with pytest.raises(BadShape, match="4 entries"):
        encoder_decoder(Dictionary(weights, Form(subtract_b_dec=False)))
    with pytest.raises(BadShape, match="3 frequencies"):
        rare_cluster(planted(0, shared), torch.zeros(3).double())
