"""A place without a number is not dropped in silence: neither from the largest, nor from what is printed and stored."""

import numpy as np
import pytest
import torch

from micrographia.core.effects import Effects, largest, numberless, without_number
from micrographia.core.graph import Edge, Node, graph_of
from micrographia.core.sites import Site
from micrographia.methods.attribution.attribute import Best
from micrographia.methods.attribution.edges import EdgeAttribution
from small import A_FEW, small_model

SITE = Site("z", 0)


def effects(values, **more) -> Effects:
    scores = {SITE: torch.tensor([values, values], dtype=torch.float64)}
    ends = {"clean": torch.tensor([2.0, 2.0]), "corrupt": torch.tensor([0.0, 0.0])}
    return Effects(mode="denoise", method="exact", scores=scores, axes={SITE: ("head",)}, **ends, **more)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_has_no_number_is_counted_named_and_stands_first(bad):
    found = effects([1.0, bad, 3.0, bad])
    assert str(found).count("2 of 4 places have no number and are not ranked, among them L0.z[head=1].") == 1
    assert [str(place) for place, _ in found.top(3)] == ["L0.z[head=1]", "L0.z[head=3]", "L0.z[head=2]"]
    assert [each.name(flat) for each, flat in largest(found.maps(), 9)] == ["L0.z[head=2]", "L0.z[head=0]"]
    assert found.table()["head"].tolist() == [0, 1, 2, 3]
    assert np.isfinite(found.table()["denoise_change"]).tolist() == [True, False, True, False]


def test_one_place_of_one_direction_is_told_in_the_singular():
    assert numberless(effects([1.0, np.nan]).maps())[0].startswith(
        "1 of 2 places has no number and is not ranked: L0.z"
    )
    assert numberless(effects([1.0, 0.0]).maps()) == []
    assert str(effects([np.nan])).count("no number") == 1


def test_what_was_not_asked_for_is_no_place_without_a_number():
    found = effects([1.0, np.nan, np.nan], taken={SITE: torch.tensor([True, True, False])})
    assert len(without_number(found.maps())) == 1
    assert [str(place) for place, _ in found.top()] == ["L0.z[head=1]", "L0.z[head=0]"]
    assert found.table()["head"].tolist() == [0, 1]
    assert repr(found).startswith("Effects(denoise, exact, 2 places of 1 site")


def test_of_many_scores_those_without_a_number_are_counted():
    best = Best(2)
    best(SITE, torch.tensor([[[1.0, torch.nan, -3.0, torch.inf]]]))
    assert best.n_without_number == 2
    assert [value for _, value in best.found] == [-3.0, 1.0]


def test_edges_without_a_number_stand_first():
    graph = graph_of(small_model(A_FEW["plain"]))
    values = torch.arange(float(graph.legal.numel())).reshape(1, *graph.legal.shape)
    edge = Edge(Node(Site("resid_pre", 0)), graph.readers[1])
    values[0][graph.place(edge)] = torch.nan
    fields = dict.fromkeys(EdgeAttribution._fields)
    found = EdgeAttribution(**{**fields, "graph": graph, "values": values})
    assert found.top(2)[0][0] == edge
