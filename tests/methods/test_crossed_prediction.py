"""What decides and what predicts the choices of crossed networks, on data whose causes are known."""

import numpy as np
import pytest
import torch

from micrographia.core import ranking
from micrographia.methods import crossed

INITS, SPLITS, K, WINNERS = 6, 4, 15, 3
INIT, SPLIT = (place.ravel() for place in np.meshgrid(np.arange(INITS), np.arange(SPLITS), indexing="ij"))


def data(*, seed: int = 0, effect: float = 0.0, by_init: bool = True):
    """Scores, and winners drawn for each initialisation (or network); the second predicts them at the second t0."""
    rng = np.random.default_rng(seed)
    luck = rng.random((INITS, K))[INIT] if by_init else rng.random((len(INIT), K))
    won = luck.argsort(1).argsort(1) < WINNERS
    scores = rng.normal(size=(2, 2, INITS, K))[:, :, INIT]  # scores at the start are those of the initialisation
    scores[1, 1] += effect * won
    return scores, won


def drawn(scores, won):
    """Every statistic by score and checkpoint; the third score is all combined."""
    every = np.concatenate([scores, crossed.combined(scores, won, INIT)[None]])
    draws = {"generator": torch.Generator().manual_seed(0), "permutations": 200, "resamples": 200}
    found = crossed.prediction(every, won, INIT, SPLIT, **draws)
    return {
        (name, t0): {key: x[s, t] for key, x in found.items()}
        for s, name in enumerate(("noise", "predictive", "combined"))
        for t, t0 in enumerate((0, 50))
    }


def test_a_score_that_predicts_the_winners_is_found_at_its_checkpoint_and_not_before():
    found = drawn(*data(effect=5.0))
    row = found["predictive", 50]
    assert row["area"] > 0.95 > row["null_high"]
    assert max(row["p_value"], row["p_best"]) < 0.02
    assert found["predictive", 0]["p_best"] > 0.05
    assert row["low"] <= row["area"] <= row["high"]


def test_the_combined_score_learns_from_other_initialisations_alone():
    assert drawn(*data(effect=5.0))["combined", 50]["area"] > 0.9
    row = drawn(*data(effect=0.0, seed=1))["combined", 0]
    assert row["area"] < row["null_high"] + 0.1, "fitted on its own networks it would predict its own noise"


def test_networks_of_one_initialisation_are_no_independent_witnesses():
    """Winners and scores both belong to the initialisation and have nothing else in common: few false alarms."""
    p_values = []
    for seed in range(40):
        scores, won = data(seed=seed)
        pairwise = ranking.areas(scores[0, 0], won)
        dealt = crossed.partners(INIT, SPLIT, generator=torch.Generator().manual_seed(seed), draws=100)
        null = crossed.permuted_means(pairwise, dealt)
        p_values.append((1 + (null >= pairwise.diagonal().mean()).sum()) / (1 + len(null)))
    assert np.mean(np.array(p_values) <= 0.05) <= 0.125
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("by_init", [True, False])
def test_the_share_of_the_initialisation_is_all_where_it_decides_and_nothing_where_each_network_does(by_init):
    _, won = data(by_init=by_init)
    draws = {"generator": torch.Generator().manual_seed(0), "permutations": 100, "resamples": 100}
    found = crossed.share_table(won, INIT, SPLIT, **draws)
    assert found["row"]["value"] == pytest.approx(1.0 if by_init else 0.0, abs=0.15)
    assert (found["row"]["p_value"] < 0.02) == by_init
    assert found["size"]["value"] == WINNERS
    assert crossed.shared_by_chance(won) == pytest.approx(WINNERS**2 / K)
