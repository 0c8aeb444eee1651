"""Areas under the ROC curve, and scores put together."""

import numpy as np
import pytest

from micrographia.core.ranking import areas, logistic_weights, standardised


def test_the_area_is_the_share_of_pairs_in_the_right_order_ties_counting_half():
    scores = np.array([[3.0, 1.0, 2.0, 2.0]])
    chosen = np.array([[True, False, True, False]])
    # of the pairs (chosen, other): 3>1, 3>2, 2>1, 2=2
    assert areas(scores, chosen)[0, 0] == 3.5 / 4


def test_the_area_of_network_i_against_the_choice_of_network_j_stands_at_i_j():
    scores = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    chosen = np.array([[True, False, False, False], [True, True, False, False]])
    assert areas(scores, chosen).tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_a_network_that_chose_nothing_has_no_area():
    assert np.isnan(areas(np.ones((1, 3)), np.zeros((1, 3), dtype=bool))).all()


def test_scores_that_say_nothing_have_an_area_of_a_half_in_the_mean():
    rng = np.random.default_rng(0)
    chosen = rng.permuted(np.arange(20) < 6 * np.ones((200, 1)), axis=1)
    assert areas(rng.normal(size=(200, 20)), chosen).diagonal().mean() == pytest.approx(0.5, abs=0.03)


def test_standardised_scores_have_mean_0_and_spread_1_and_constants_become_0():
    found = standardised(np.array([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]]))
    assert found[0].mean() == pytest.approx(0)
    assert found[0].std() == pytest.approx(1)
    assert found[1].tolist() == [0, 0, 0]


def test_logistic_weights_find_the_feature_that_decides():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 3))
    log_odds = 2.0 * features[:, 0] - 1.0 * features[:, 2] - 1.0
    chosen = rng.random(2000) < 1 / (1 + np.exp(-log_odds))
    assert logistic_weights(features, chosen) == pytest.approx([2.0, 0.0, -1.0], abs=0.2)


def test_the_ridge_keeps_weights_finite_where_one_feature_separates_all():
    features = np.linspace(-1, 1, 20)[:, None]
    assert 0 < logistic_weights(features, features[:, 0] > 0)[0] < 100
