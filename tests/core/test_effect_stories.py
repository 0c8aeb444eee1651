"""What a map of effects is said to show: what could have been otherwise, and never what must hold."""

import numpy as np
import pytest

from micrographia.core.effect_stories import apart, by_construction, followed, rows_by_position, telling
from micrographia.core.effects import effect_map

POSITIONS = ["0 When", "1 Mary / John", "2 to"]
ENDS = ([1], 2, 2)  # the changed position, that of the answer, layers


def one(kind, values, axes=("layer", "pos"), layers=(0, 1), **more):
    values = np.asarray(values, dtype=float)
    return effect_map(kind, axes, values.shape, layers, {"denoise": values[None]}, 1.0, **more)


@pytest.mark.parametrize(
    ("kind", "axes", "layers", "shape", "known"),
    [
        ("resid_pre", ("layer", "pos"), (0, 1), (2, 3), [(0, 1)]),
        ("resid_post", ("layer", "pos"), (0, 1), (2, 3), [(1, 2)]),
        ("resid_pre", ("layer", "pos"), (1,), (1, 3), []),
        ("resid_pre", ("layer",), (0, 1), (2,), [(0,), (1,)]),
        ("resid_pre", ("pos",), (0, 1), (3,), [(1,), (2,)]),
        ("mlp_out", ("layer", "pos"), (0, 1), (2, 3), []),
        ("z", ("layer",), (0, 1), (2,), []),
    ],
)
def test_what_holds_by_construction_is_known(kind, axes, layers, shape, known):
    found = by_construction(one(kind, np.zeros(shape), axes, layers), *ENDS)
    assert list(zip(*map(list, np.nonzero(found)))) == known


def test_where_prompts_differ_at_two_tokens_neither_is_the_whole_difference():
    assert not by_construction(one("resid_pre", np.zeros((2, 3))), [0, 1], 2, 2).any()
    assert not by_construction(one("resid_pre", np.zeros((2, 3)), replace="zero"), *ENDS).any()


def test_the_headline_is_the_largest_that_could_have_been_otherwise():
    each = one("resid_pre", [[0.0, 1.0, 0.0], [0.0, 0.7, 0.3]])
    assert [row["place"] for row in telling([each], POSITIONS, 9, *ENDS)] == [
        "L1.resid_pre[pos=1]",
        "L1.resid_pre[pos=2]",
    ]
    assert telling([one("resid_pre", np.ones(2), ("layer",))], POSITIONS, 9, *ENDS) == []
    (nothing,) = telling([one("resid_pre", [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])], POSITIONS, 1, *ENDS)
    assert nothing["restored"] == 0.0, "where nothing else has an effect, what must hold is not listed for it"


def test_a_stream_is_followed_and_has_a_row_a_position():
    each = one("resid_pre", [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert followed(each, POSITIONS) == [
        "In the residual stream before each layer, between layers 0 and 1 the answer moves from 'Mary / John' (1) to "
        "'to' (2)."
    ]
    assert [(row["token"], row["layers"], row["restored"]) for row in rows_by_position([each], POSITIONS)] == [
        ("1 Mary / John", "0", 1.0),
        ("2 to", "1", 1.0),
    ]
    assert followed(each._replace(replace="zero"), POSITIONS) == []
    assert rows_by_position([one("mlp_out", [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])], POSITIONS) == []


def test_of_a_stream_each_position_is_explained_once():
    each = one("resid_pre", [[0.0, 1.0, 0.0], [0.0, 0.9, 0.2]])
    assert [map_.cell(flat)["pos"] for map_, flat in apart([each], 4)] == [1, 2]
    heads = one("z", [[0.0, 1.0], [0.9, 0.2]], ("layer", "head"))
    assert len(apart([heads], 4)) == 3
