"""Where the answer is along the layers: ranges, carriers and hand-overs, read off planted grids."""

import numpy as np
import pytest

from micrographia.core.movement import Move, Stay, carriers, moves, ranges, told

NAMES = ["'When' (0)", "'John' (1)", "'to' (2)"]
LAYERS = range(6)


def grid(*columns):
    return np.array(columns, dtype=float).T


HANDED = grid([0.0] * 6, [1.0, 1.0, 0.95, 0.6, 0.2, 0.0], [0.0, 0.0, 0.05, 0.4, 0.7, 1.0])


def test_a_hand_over_is_told_by_the_last_layer_at_the_one_and_the_first_at_the_other():
    assert [(stay.pos, stay.first, stay.last) for stay in carriers(HANDED, LAYERS)] == [(1, 0, 3), (2, 4, 5)]
    assert moves(HANDED, LAYERS) == [Move(1, 2, still=2, there=5)]
    assert told(HANDED, LAYERS, NAMES) == "between layers 2 and 5 the answer moves from 'John' (1) to 'to' (2)"


def test_layers_are_called_by_their_numbers_in_the_model():
    assert moves(HANDED, [3, 4, 5, 6, 7, 8]) == [Move(1, 2, still=5, there=8)]


def test_each_position_has_one_row_with_its_range():
    first, second = ranges(HANDED, LAYERS)
    assert (first.pos, first.first, first.last) == (1, 0, 3)
    assert first.value == pytest.approx(np.mean([1.0, 1.0, 0.95, 0.6]))
    assert (second.pos, second.first, second.last) == (2, 4, 5)


def test_a_range_is_unbroken_and_negative_effects_have_one_too():
    broken = grid([0.6, 0.0, 1.0, 0.9, 0.0, 0.8], [-0.3, -0.3, 0.3, 0.0, 0.0, 0.0], [0.05] * 6)
    assert [(stay.pos, stay.first, stay.last) for stay in ranges(broken, LAYERS)] == [(1, 0, 1), (0, 2, 3)]


def test_what_moves_twice_and_what_stays_and_what_is_nowhere():
    twice = grid([1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1])
    assert told(twice, LAYERS, NAMES) == (
        "between layers 1 and 2 the answer moves from 'When' (0) to 'John' (1), between layers 3 and 4 it moves on to "
        "'to' (2)"
    )
    stays = grid([0] * 6, [0.9] * 6, [0] * 6)
    assert told(stays, LAYERS, NAMES) == "the answer is at 'John' (1) in layers 0 to 5, and moves to no other position"
    assert told(grid([0.4] * 6, [0.3] * 6, [np.nan] * 6), LAYERS, NAMES) == ""
    assert carriers(grid([np.nan] * 6, [0.9] * 6, [0] * 6), LAYERS)[0][:3] == Stay(1, 0, 5, 0.9)[:3]
