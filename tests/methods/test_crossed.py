"""Two crossed causes: their shares in a choice, and the permutations that respect the table."""

import math

import numpy as np
import pytest
import torch

from micrographia.methods.crossed import partners, permuted_means, share_intervals, share_null, shares

ROWS, COLUMNS, CANDIDATES = 6, 5, 40
ROW, COLUMN = (place.ravel() for place in np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij"))


def generator():
    return torch.Generator().manual_seed(0)


def choices(of_row: float, of_column: float) -> np.ndarray:
    """Each candidate is chosen with chance 1/4; its luck is that of the row, of the column, or the network's own."""
    rng = np.random.default_rng(3)
    lots = [rng.random((k, CANDIDATES)) < 0.25 for k in (ROWS, COLUMNS, len(ROW))]
    whose = rng.random((len(ROW), CANDIDATES))
    return np.where(whose < of_row, lots[0][ROW], np.where(whose < of_row + of_column, lots[1][COLUMN], lots[2]))


def test_choices_that_the_row_decides_are_the_rows():
    chosen = (np.random.default_rng(0).random((ROWS, CANDIDATES)) < 0.2)[ROW]
    found = shares(chosen, ROW, COLUMN)
    assert found.row == pytest.approx(1)
    assert found.same_row == pytest.approx(found.size)
    assert found.column == pytest.approx(0, abs=0.15)


def test_choices_that_row_and_column_decide_together_are_the_rests():
    chosen = np.random.default_rng(0).random((len(ROW), 400)) < 0.2
    found = shares(chosen, ROW, COLUMN)
    assert found.rest == pytest.approx(1, abs=0.03)
    assert found.row + found.column + found.rest == pytest.approx(1)


def test_shares_of_a_mixture_come_out_near_the_squares_that_were_put_in():
    """Two networks of a row share their luck where both follow the row: with chance of_row squared."""
    found = shares(choices(0.7, 0.2), ROW, COLUMN)
    assert found.row == pytest.approx(0.49, abs=0.12)
    assert found.column == pytest.approx(0.04, abs=0.12)


def test_weights_count_as_copies_of_rows_and_columns():
    """A row that counts twice is two rows as far as other rows are concerned, and never a partner of itself."""
    chosen = choices(0.5, 0.3)
    part = ROW < 3
    weight = np.array([1.0, 1, 1, 0, 0, 0]), np.ones(COLUMNS)
    assert shares(chosen, ROW, COLUMN, weight) == pytest.approx(shares(chosen[part], ROW[part], COLUMN[part]))
    doubled = shares(chosen, ROW, COLUMN, (np.full(ROWS, 2.0), np.ones(COLUMNS)))
    assert doubled == pytest.approx(shares(chosen, ROW, COLUMN))


def test_empty_cells_do_no_harm():
    chosen = (np.random.default_rng(0).random((ROWS, CANDIDATES)) < 0.2)[ROW]
    there = np.random.default_rng(1).random(len(ROW)) < 0.7
    assert shares(chosen[there], ROW[there], COLUMN[there]).row == pytest.approx(1, abs=0.05)


def test_without_a_second_column_there_is_no_pair_of_one_row():
    found = shares(np.eye(3, dtype=bool), np.arange(3), np.zeros(3, dtype=int))
    assert math.isnan(found.same_row)
    assert math.isnan(found.row)


def test_the_null_of_the_row_is_centred_on_nothing_while_the_column_still_decides():
    chosen = (np.random.default_rng(0).random((COLUMNS, CANDIDATES)) < 0.2)[COLUMN]
    null = share_null(chosen, ROW, COLUMN, generator=generator(), draws=50)
    assert abs(null[:, 0]).max() < 1e-9, "dealing within a column changes nothing where the column decides all"
    assert abs(null[:, 1].mean()) < 0.05
    assert null[:, 1].max() < shares(chosen, ROW, COLUMN).column


def test_intervals_hold_the_estimate_and_shrink_to_a_point_without_chance():
    chosen = (np.random.default_rng(0).random((ROWS, CANDIDATES)) < 0.2)[ROW]
    low, high = share_intervals(chosen, ROW, COLUMN, generator=generator(), draws=50)
    assert (low.row, high.row) == pytest.approx((1, 1))
    assert low.neither < shares(chosen, ROW, COLUMN).neither < high.neither


def test_partners_move_whole_rows_and_whole_columns():
    for partner in partners(ROW, COLUMN, generator=generator(), draws=20):
        assert sorted(partner) == list(range(len(ROW)))
        assert all(len(set(ROW[partner][row == ROW])) == 1 for row in range(ROWS))
        assert all(len(set(COLUMN[partner][column == COLUMN])) == 1 for column in range(COLUMNS))


def test_an_empty_cell_gives_no_partner_and_is_left_out_of_the_mean():
    row, column = np.array([0, 0, 1]), np.array([0, 1, 0])
    dealt = partners(row, column, generator=generator(), draws=20)
    assert (dealt == -1).any()
    pairwise = np.arange(9.0).reshape(3, 3)
    assert permuted_means(pairwise, np.array([[2, -1, 0]])).tolist() == [(2 + 6) / 2]
    assert permuted_means(np.stack([pairwise] * 2), dealt).shape == (2, 20)
