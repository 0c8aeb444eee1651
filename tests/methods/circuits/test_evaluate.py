"""Evaluation of a circuit: the smallest faithful one, what draws from the generator and when, and its table."""

import math
import pickle

import pytest
import torch
from torch import Tensor

from micrographia.methods.circuits.evaluate import Ladder, evaluate, ladder, random_ladder, size_grid
from micrographia.methods.circuits.judge import faithfulness, random_null, subsets, worst_subset
from small import head, mlp

MEMBERS = [head(0, i) for i in range(4)] + [mlp(0)]
WORTH = dict(zip(MEMBERS, (4.0, 2.0, 1.0, -1.0, 0.0)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def additive(circuits) -> Tensor:
    """Each member is worth its own; the second prompt is worth half; nothing at all is worth 10."""
    worth = torch.tensor([sum(WORTH[m] for m in circuit) for circuit in circuits])
    return 10 + torch.stack([worth, worth / 2], 1)


@pytest.mark.parametrize("sizes", [None, [1, 2, 3, 4, 5]])
def test_the_smallest_faithful_circuit_is_found_on_any_grid(sizes):
    found = evaluate(additive, MEMBERS, seeded(), sizes=sizes)
    assert found.members == tuple(MEMBERS[:2])
    assert (found.faithfulness, found.share, found.gap) == pytest.approx((1.0, 2 / 5, 4.5))
    assert found.interval[0] <= found.faithfulness <= found.interval[1]
    assert found.adds == pytest.approx({MEMBERS[0]: 4 / 6, MEMBERS[1]: 2 / 6})


def test_measures_draw_in_the_order_of_the_steps():
    draw, again = seeded(), seeded()
    found = evaluate(additive, MEMBERS, draw, circuit=MEMBERS[:3], steps=("worst", "subsets", "null"), n_null=9)
    circuit = frozenset(MEMBERS[:3])
    worst_subset(additive, circuit, MEMBERS, again)
    subsets(circuit, 8, again)
    torch.testing.assert_close(found.null.values, random_null(additive, circuit, MEMBERS, again, draws=9).values)
    assert torch.equal(draw.get_state(), again.get_state())
    assert math.isnan(found.interval[0])
    assert math.isnan(found.random_size)


def test_random_orders_need_more_members_than_the_right_one():
    found = evaluate(additive, MEMBERS, seeded(), sizes=range(1, 6), steps=("orders",), n_orders=20)
    assert len(found.members) < found.random_size <= found.of


def test_an_order_of_which_only_all_members_are_faithful_gives_all():
    found = evaluate(additive, MEMBERS, seeded(), sizes=[1], faithful=1.0, steps=())
    assert len(found.members) == 1
    assert found.faithfulness == pytest.approx(4 / 6)


def test_a_ladder_takes_one_area_from_each_order_and_chance_lies_below():
    signed = [*MEMBERS[:3], MEMBERS[4], MEMBERS[3]]
    found = ladder(additive, MEMBERS, signed)
    assert found.faithfulness[-1] == found.helpful[-1] == pytest.approx(1)
    assert found.cmd < random_ladder(additive, MEMBERS, seeded(), orders=9).cmd
    values = faithfulness(additive, [frozenset(signed[:n]) for n in found.sizes], MEMBERS).values
    assert found.helpful == pytest.approx(values.tolist())


def test_the_share_needed_is_the_one_after_which_nothing_falls_back():
    def needed(values):
        return Ladder((1, 2, 5, 10), (0.1, 0.2, 0.5, 1.0), values, values, 0.0, 0.0).min_share()

    assert needed([0.95, 0.2, 0.95, 1.0]) == 0.5
    assert needed([0.99, 0.99, 0.99, 1.0]) == 0.1
    assert math.isnan(needed([0.0, 0.0, 0.0, 0.0]))


def test_a_grid_has_every_small_size_and_the_whole():
    grid = size_grid(108, first=12, parts=20)
    assert grid[:12] == [*range(1, 12), 16]
    assert grid[-1] == 108


def test_its_figures_and_table_hold_what_was_measured():
    found = evaluate(additive, MEMBERS, seeded(), ablation="zeros")
    assert {each.name for each in found.figures()} == {"circuit", "faithfulness", "minimality"}
    table = found.table()
    assert (table["members"], table["of"], table["ablation"]) == (2, 5, "zeros")
    assert table["faithfulness"]["value"] == pytest.approx(1)
    assert table["null_faithfulness"]["low"] <= table["null_faithfulness"]["high"]
    assert pickle.loads(pickle.dumps(found)).table() == table
