"""Worlds with known features: what they promise, and how far dictionaries of known quality find them."""

import math
from itertools import permutations

import pytest
import torch
from made import dictionary, perfect

from micrographia.core.errors import BadConfig, BadShape, UserError
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.evaluation.synthetic import Superposition, superposition
from micrographia.methods.dictionaries.evaluation.truth import (
    GroundTruth,
    at_equal_l0,
    compare_kinds,
    matched,
    recovered,
)

pytestmark = pytest.mark.usefixtures("unchecked")


def orthogonal(d: int = 8) -> Superposition:
    drawn = torch.randn(d, d, generator=generator(0))
    directions = torch.linalg.qr(drawn).Q.contiguous()
    return Superposition(
        directions, torch.full((d,), 0.2), torch.full((d,), -1), torch.zeros(d, 1), size=1.0, size_std=0.1
    )  # fmt: skip


def test_features_fire_as_often_as_asked_and_add_up_to_the_activation():
    world = superposition(60, 20, generator=generator(1), mean_active=4, exponent=0.7, noise=0.0)
    mixture = world.draw(20_000, generator(2))
    often = (mixture.features > 0).float().mean(0)
    error = (world.frequencies * (1 - world.frequencies) / 20_000).sqrt()
    assert float(((often - world.frequencies).abs() / error).max()) < 4.5
    assert world.mean_active == pytest.approx(4, rel=1e-5)
    assert float(world.frequencies[0] / world.frequencies[9]) == pytest.approx(10**0.7, rel=1e-4)
    torch.testing.assert_close(mixture.x, mixture.features @ world.directions)
    torch.testing.assert_close(world.directions.norm(dim=1), torch.ones(60))


def test_a_child_fires_only_with_its_parent_and_as_often_as_asked():
    world = superposition(40, 10, generator=generator(3), mean_active=6, children=0.4)
    assert int((world.parents >= 0).sum()) > 5
    fires = world.draw(30_000, generator(4)).features > 0
    for child in (world.parents >= 0).nonzero()[:, 0].tolist():
        assert not bool((fires[:, child] & ~fires[:, world.parents[child]]).any())
    error = (world.frequencies * (1 - world.frequencies) / 30_000).sqrt()
    assert float(((fires.float().mean(0) - world.frequencies).abs() / error).max()) < 4.5


def test_a_chain_of_parents_holds_all_the_way():
    n = 4
    world = Superposition(
        torch.eye(n), torch.tensor([0.8, 0.6, 0.4, 0.2]), torch.tensor([-1, 0, 1, 2]), torch.zeros(n, 1)
    )  # fmt: skip
    fires = world.draw(5000, generator(0)).features > 0
    assert bool((fires[:, 1:] <= fires[:, :-1]).all())
    assert fires.float().mean(0).tolist() == pytest.approx([0.8, 0.6, 0.4, 0.2], abs=0.03)


def test_shared_factors_make_features_fire_together():
    alone, together = (
        superposition(30, 10, generator=generator(5), mean_active=6, factors=2, correlation=c) for c in (0.0, 0.8)
    )
    found = [
        torch.corrcoef((world.draw(5000, generator(6)).features > 0).float().T).triu(1).abs().mean()
        for world in (alone, together)
    ]
    assert float(found[1]) > 5 * float(found[0])


def test_batches_are_a_function_of_the_step():
    batches = superposition(20, 5, generator=generator(0)).batches(8, seed=3)
    first = batches(4).x
    batches(5)
    assert torch.equal(first, batches(4).x)
    assert not torch.equal(first, batches(5).x)


def test_the_truth_itself_scores_one():
    world = orthogonal()
    found = recovered(perfect(world.directions), world, [world.draw(500, generator(1))], generator(2))
    for name in ("mcc", "mmcs", "f1", "precision", "recall", "uniqueness"):
        assert getattr(found, name) == pytest.approx(1, abs=1e-5), name
    assert found.fvu == pytest.approx(0, abs=1e-10)
    assert found.l0 == pytest.approx(1.6, abs=0.2)
    assert found.mcc_random < 0.8


def test_half_of_the_truth_scores_half():
    world = orthogonal()
    half = recovered(perfect(world.directions[::2]), world, [world.draw(500, generator(1))], generator(2))
    assert half.mcc == pytest.approx(0.5, abs=1e-5)
    assert half.mmcs == pytest.approx(0.5, abs=1e-5)
    assert half.f1 == pytest.approx(0.5, abs=1e-5)
    assert half.uniqueness == 1


def test_copies_of_one_feature_are_no_recovery():
    world = orthogonal()
    copies = perfect(world.directions[:1].expand(8, 8).contiguous())
    found = recovered(copies, world, [world.draw(500, generator(1))], generator(2))
    assert found.uniqueness == pytest.approx(1 / 8)
    assert found.mcc == pytest.approx(1 / 8, abs=1e-5)


def test_firing_is_counted_against_the_features():
    world = orthogonal()
    deaf = perfect(world.directions, threshold=1.0)  # misses the smaller half of each feature
    mixture = world.draw(2000, generator(1))
    found = recovered(deaf, world, [mixture], generator(2))
    sizes = mixture.features
    recall = ((sizes > 1).sum(0) / (sizes > 0).sum(0)).mean()
    assert found.precision == 1
    assert found.recall == pytest.approx(float(recall), abs=1e-5)
    assert 0.3 < found.recall < 0.7


def test_the_matching_has_the_largest_sum():
    decoder, directions = (torch.randn(5, 4, generator=generator(i)) for i in (1, 2))
    matching, cosines = matched(decoder, directions)
    best = max(sum(float(cosines[i, j]) for i, j in enumerate(order)) for order in permutations(range(5)))
    assert float(matching.cosines.sum()) == pytest.approx(best)
    assert len(set(matching.latents.tolist())) == 5


def truth_at(l0: float, mcc: float) -> GroundTruth:
    return GroundTruth(*[mcc] * 8, l0=l0, fvu=0.1, dead_share=0.0)


def test_kinds_are_compared_at_one_l0():
    found = {
        "topk": [truth_at(10.2, 0.8)],
        "relu": [truth_at(5, 0.4), truth_at(20, 0.6)],
        "gated": [truth_at(30, 0.9), truth_at(50, 0.9)],
        "dead": [truth_at(0, 0.1)],
    }
    compared, table = at_equal_l0(found, 10)
    by_kind = {each.kind: each for each in compared}
    assert by_kind["topk"].values is not None
    assert by_kind["topk"].values["mcc"] == 0.8
    assert by_kind["relu"].values is not None
    assert by_kind["relu"].values["mcc"] == pytest.approx(0.4 + 0.2 * math.log(2) / math.log(4))
    assert by_kind["gated"].values is None
    assert "30" in by_kind["gated"].how
    assert by_kind["dead"].values is None
    assert table.kind == "table"


def test_dictionaries_of_all_kinds_in_one_table():
    world = orthogonal()
    kinds = {"truth": [perfect(world.directions)], "random": [dictionary(8, k=1), dictionary(8, k=3)]}
    compared, table = compare_kinds(kinds, world, generator=generator(3), n_rows=500, at_once=200)
    truth, random = (each.values for each in compared)
    assert truth is not None
    assert random is not None
    assert truth["mcc"] == pytest.approx(1, abs=1e-5)
    assert random["l0"] == pytest.approx(1.6, abs=0.01)
    assert random["mcc"] < 0.9
    assert abs(random["mcc"] - random["mcc_random"]) < 0.1  # it is no better than chance
    assert [row[0] for row in table.data["rows"]] == ["truth", "random"]


def test_impossible_worlds_are_refused():
    g = generator(0)
    with pytest.raises(BadConfig, match="between 0 and 1"):
        superposition(4, 2, generator=g, mean_active=8)
    with pytest.raises(BadConfig, match="positive sizes"):
        superposition(0, 2, generator=g)
    ones = {"directions": torch.eye(2), "loadings": torch.zeros(2, 1)}
    with pytest.raises(BadConfig, match="more often than its parent"):
        Superposition(frequencies=torch.tensor([0.1, 0.5]), parents=torch.tensor([-1, 0]), **ones)
    with pytest.raises(BadConfig, match="comes after it"):
        Superposition(frequencies=torch.tensor([0.1, 0.5]), parents=torch.tensor([1, -1]), **ones)
    world = orthogonal()
    with pytest.raises(BadShape, match="features in 8 dimensions"):
        recovered(dictionary(6), world, [world.draw(5, g)], g)
    with pytest.raises(UserError, match="no rows"):
        recovered(perfect(world.directions), world, [], g)
