"""Calibration: its statistics by hand, its bound by simulation, and the flags that theory asks for."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from attribution_cases import exact, metric_of, metric_under, model_of, pairs_of
from linear_model import LinearModel
from scipy import stats

from micrographia.core.edits import put
from micrographia.core.errors import BadConfig, UserError
from micrographia.core.metrics import Metric, logit_difference
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.sweep import Place
from micrographia.core.tokens import ids_of
from micrographia.methods.attribution.agreement import (
    OVERSTATED,
    SEEN_IN_PART,
    TURNED,
    UNSEEN,
    Checked,
    Estimate,
    Missed,
    agreement,
    flags_of,
    missed,
    slope,
)
from micrographia.methods.attribution.attribute import Best, attribute
from micrographia.methods.attribution.calibrate import calibrate, can_matter, samples, trust
from micrographia.methods.attribution.check_cost import FEWEST, JOINTLY, MOST, Work, affordable, work_of
from small import A_FEW


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def checked(method="atp", budget=60, top=20, n=3, sites=("L*.z", "L*.neurons"), **choices):
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"], n)
    found = attribute(model, pairs, metric_of(pairs), sites, method=method)
    calibration = calibrate(
        model, pairs, metric_of(pairs), found, budget=budget, top=top, generator=seeded(), draws=50, **choices
    )
    return model, pairs, found, calibration


@pytest.mark.parametrize("mode", ["denoise", "noise"])
def test_measured_effects_are_those_of_exact_patching(mode):
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    found = attribute(model, pairs, metric_of(pairs), ["L*.z", "L*.q", "L*.pattern"], mode=mode)
    calibration = calibrate(model, pairs, metric_of(pairs), found, budget=24, top=9, generator=seeded(), draws=10)
    assert list(calibration.kinds) == ["z", "q", "pattern"]
    for kind, each in calibration.kinds.items():
        truth = {layer: exact(model, pairs, metric_of(pairs), found, Site(kind, layer)) for layer in range(2)}
        assert len(each.patches) == 8
        for (place,), estimate, effect in zip(each.patches, each.estimate, each.exact):
            cell = (slice(None), *place.where.values())
            torch.testing.assert_close(effect, truth[place.site.layer][cell])
            assert torch.equal(estimate, found.scores[place.site][cell])


def test_on_a_linear_model_every_estimate_is_trusted_and_nothing_is_flagged():
    model, pairs = LinearModel(), pairs_of(A_FEW["plain"])
    metric = logit_difference(pairs.answer, pairs.wrong)
    found = attribute(model, pairs, metric, ["L1.z", "L1.neurons"])
    calibration = calibrate(model, pairs, metric, found, budget=80, top=10, generator=seeded(), draws=20)
    for each in calibration.kinds.values():
        assert each.pearson.value == pytest.approx(1)
        assert each.pearson.low == pytest.approx(1)
        assert each.spearman.value > 0.99  # ties of exact zeros are broken by rounding
    assert not calibration.flags
    assert "rank well, have the right size" in str(calibration)


def test_the_largest_come_first_and_the_rest_by_lot():
    _, _, found, _ = checked()
    chosen = {each.kind: each for each in samples(found, budget=60, top=20, generator=seeded())}
    sizes = torch.cat([found.scores[Site("neurons", layer)].mean(0).abs().flatten() for layer in range(2)])
    each = chosen["neurons"]
    largest = each.estimate[: each.n_top].mean(1).abs()
    torch.testing.assert_close(largest, sizes.topk(10).values)
    assert len(set(map(str, each.patches))) == len(each.patches) == 30
    assert each.n_rest == len(sizes) - 10
    assert float(each.weight.sum()) == pytest.approx(len(sizes))
    other = samples(found, budget=60, top=20, generator=seeded(1))[1]
    assert other.patches[:10] == each.patches[:10]
    assert other.patches[10:] != each.patches[10:]


def test_one_pair_has_no_interval_and_says_so():
    *_, calibration = checked(n=1)
    assert all(each.pearson.low is None for each in calibration.kinds.values())
    assert "n=1, no interval" in str(calibration)
    *_, several = checked(n=3)
    assert "no interval" not in str(several)


def test_where_all_places_are_patched_nothing_is_left_to_be_missed():
    *_, calibration = checked(sites=("L*.z",), budget=24, top=4)
    each = calibration.kinds["z"]
    assert each.missed.of == 20
    assert each.missed.most == each.missed.hits
    *_, calibration = checked(sites=("L*.z",), budget=24, top=24)
    assert "Every place was patched" in str(calibration)
    *_, calibration = checked(sites=("L*.z",), budget=4, top=4)
    assert "nothing is known about them" in str(calibration)


def test_the_bound_holds_as_often_as_it_says():
    """Of many lots from a population with known hits, at most one in twenty gives a bound below the truth."""
    draws = np.random.default_rng(0).hypergeometric(20, 80, 20, size=2000)
    most = [missed(hits, 20, 100, 0.1).most for hits in range(21)]
    held = np.mean([most[hits] >= 20 for hits in draws])
    assert 0.95 <= held < 1


def test_the_bound_is_the_exact_one():
    for hits, drawn, of in [(0, 20, 100), (3, 20, 100), (0, 59, 1000), (5, 5, 5)]:
        most = missed(hits, drawn, of, 0.1).most
        assert most == of or stats.hypergeom.cdf(hits, of, most + 1, drawn) <= 0.05 or most == of - drawn + hits
        assert most == hits or stats.hypergeom.cdf(hits, of, most, drawn) > 0.05
    assert missed(0, 0, 40, 0.1).most == 40
    assert missed(0, 0, 0, 0.1).most == 0


def test_weighted_correlation_is_that_of_all_places_when_places_stand_for_their_likes():
    """Each of the last two places stands for three like it."""
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(5, 4)), generator.normal(size=(5, 4))
    weight = np.array([1.0, 1, 1, 3, 3])
    found, _ = agreement(x, y, weight, generator=seeded(), draws=10)
    times = weight.astype(int)
    whole = np.corrcoef(np.repeat(x.mean(1), times), np.repeat(y.mean(1), times))[0, 1]
    assert found.value == pytest.approx(whole)


def test_the_interval_is_a_bootstrap_over_prompts():
    generator = np.random.default_rng(2)
    x = generator.normal(size=(30, 6))
    same, _ = agreement(x, np.tile(x.mean(1, keepdims=True), 6), np.ones(30), generator=seeded(), draws=200)
    assert same.value == pytest.approx(1)
    assert same.low < same.high < 1 + 1e-9
    constant, _ = agreement(x, np.zeros((30, 6)), np.ones(30), generator=seeded(), draws=20)
    assert math.isnan(constant.value)
    assert trust(constant.value) == "cannot be judged, since nothing varied"


class TwoWires(LinearModel):
    """Two neurons, 1 in a clean prompt and 0 in a corrupt one; the right answer's logit is `gate` of the two."""

    def __init__(self, gate) -> None:
        super().__init__()
        self.gate = gate

    def _forward(self, tap, inputs, logits, start, stop):
        if start is None:
            on = (inputs == 1).double()[..., None]
            x = tap("embed", None, on.expand(-1, -1, 6))
        else:
            x = start.residual
        if not start or start.layer == 0:
            x = tap("resid_pre", 0, x)
            wires = tap("neurons", 0, x[..., :2])
            x = torch.cat([wires, torch.zeros_like(x[..., 2:])], -1)
            x = tap("resid_post", 0, x)
        if stop is not None:
            return None
        x = tap("resid_pre", 1, x)[:, -1]
        return torch.stack([self.gate(x[:, 0], x[:, 1]), torch.zeros_like(x[:, 0])], -1).gather(-1, logits.tokens)[
            :, None
        ]


OR = lambda a, b: 1 - torch.relu(1 - a - b)  # noqa: E731  (either is enough; both saturate it)
AND = lambda a, b: torch.relu(a + b - 1)  # noqa: E731


@pytest.mark.parametrize(
    ("wired", "mode", "alone", "estimated", "together"),
    [
        (OR, "denoise", 1, 1, "less together"),  # each is enough
        (OR, "noise", 0, 0, "more together"),  # each covers for the other, and the gradient sees neither
        (AND, "denoise", 0, 0, "more together"),  # each needs the other
        (AND, "noise", -1, -1, "less together"),  # each is needed
    ],
)
def test_gates_look_as_theory_says(wired, mode, alone, estimated, together):
    model = TwoWires(wired)
    pairs = Pairs(torch.ones(2, 1, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long), torch.tensor([0, 0]))
    metric = Metric("logit", "logits", lambda x, prompt: x[:, 0], torch.zeros(2, 1, dtype=torch.long))
    found = attribute(model, pairs, metric, Site("neurons", 0), mode=mode)
    calibration = calibrate(model, pairs, metric, found, budget=2, top=0, generator=seeded(), draws=10, threshold=0.1)
    each = calibration.kinds["neurons"]
    assert each.exact.unique().tolist() == [alone]
    assert each.estimate.unique().tolist() == [estimated]
    assert [flag.kind for flag in calibration.flags] == [together]
    assert {OR: "an OR", AND: "an AND"}[wired] in calibration.flags[0].meaning


def test_a_saturated_place_and_an_overstated_one_are_flagged():
    steep = lambda a, b: torch.sigmoid(20 * (a - 0.5)) + torch.relu(b) * torch.relu(0.2 - b)  # noqa: E731
    model = TwoWires(steep)
    pairs = Pairs(torch.ones(2, 1, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long), torch.tensor([0, 0]))
    metric = Metric("logit", "logits", lambda x, prompt: x[:, 0], torch.zeros(2, 1, dtype=torch.long))
    found = attribute(model, pairs, metric, Site("neurons", 0))
    calibration = calibrate(model, pairs, metric, found, budget=2, top=0, generator=seeded(), draws=10)
    (flag,) = [flag for flag in calibration.flags if flag.kind == "missed"]
    assert flag.patch[0].where == {"pos": 0, "unit": 0}
    assert flag.exact == pytest.approx(1, abs=1e-3)
    assert abs(flag.estimate) < 0.01
    assert "missed: L0.neurons[pos=0, unit=0]: exact +1" in str(calibration)
    bump = TwoWires(lambda a, b: torch.tanh(9 * a) * torch.relu(1.05 - a))
    found = attribute(bump, pairs, metric, Site("neurons", 0))
    calibration = calibrate(bump, pairs, metric, found, budget=2, top=1, generator=seeded(), draws=10)
    assert calibration.flags[0].kind == "overstated"


def test_sizes_are_compared_with_sizes():
    *_, calibration = checked(method="atp-star", sites=("L*.z",), budget=24, top=5)
    each = calibration.kinds["z"]
    x, y = each.estimate.mean(1).abs(), each.exact.abs().mean(1)
    assert each.pearson.value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=0.2)
    assert {flag.kind for flag in calibration.flags} <= {"more together", "less together"}


def test_a_budget_that_does_not_reach_says_so():
    model, pairs, found, _ = checked()
    for budget, top in [(1, 0), (10, 11)]:
        with pytest.raises(BadConfig, match="Check 2 at least"):
            calibrate(model, pairs, metric_of(pairs), found, budget=budget, top=top, generator=seeded())


def test_the_strongest_of_a_stream_are_the_strongest_of_all():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    everything = attribute(model, pairs, metric_of(pairs), ["L*.neurons", "L*.z"]).scores
    means = torch.cat([score.mean(0).flatten() for score in everything.values()])
    best, summed = Best(7), Best(2)
    attribute(model, pairs, metric_of(pairs), ["L*.neurons", "L*.z"], on_score=best)
    assert best.n_scored == len(means)
    wanted = means[means.abs().topk(7).indices].tolist()
    assert [value for _, value in best.found] == pytest.approx(wanted)
    for place, value in best.found:
        assert float(everything[place.site].mean(0)[tuple(place.where.values())]) == pytest.approx(value)
    attribute(model, pairs, metric_of(pairs), "L*.neurons", positions="sum", method="relp", on_score=summed)
    assert [list(place.where) for place, _ in summed.found] == [["unit"], ["unit"]]


def population(n=400):
    """Estimates and effects of all places, of which most do little, with ties among them."""
    generator = np.random.default_rng(3)
    x = np.round(generator.standard_t(2, size=n), 1)
    return x, np.round(x + 0.8 * generator.normal(size=n), 1)


def test_weighted_ranks_are_those_of_all_places_when_places_stand_for_their_likes():
    """Each of the last places stands for three like it, so that the whole population is known, ties included."""
    x, y = population(30)
    weight = np.where(np.arange(30) < 10, 1.0, 3.0)
    _, found = agreement(x[:, None], y[:, None], weight, generator=seeded(), draws=0)
    times = weight.astype(int)
    assert found.value == pytest.approx(stats.spearmanr(np.repeat(x, times), np.repeat(y, times)).statistic)


def test_the_rank_correlation_of_a_draw_is_on_average_that_of_the_population():
    x, y = population()
    order = np.argsort(-np.abs(x))
    truth = stats.spearmanr(x, y).statistic
    top, n = 30, 30
    weight = np.r_[np.ones(top), np.full(n, (len(x) - top) / n)]
    found = []
    for seed in range(200):
        drawn = np.r_[order[:top], np.random.default_rng(seed).permutation(order[top:])[:n]]
        found.append(agreement(x[drawn, None], y[drawn, None], weight, generator=seeded(), draws=0)[1].value)
    within = [stats.spearmanr(x[order[: top + n]], y[order[: top + n]]).statistic]  # the largest alone say more
    assert np.mean(found) == pytest.approx(truth, abs=0.03)
    assert within[0] - truth > 0.05


def test_the_slope_is_the_effect_per_estimate_and_is_said_where_it_is_far_from_one():
    x = np.array([[1.0, 3.0], [0.0, 0.0], [-1.0, -1.0]])
    assert slope(x, 2.2 * x + 1, np.array([1.0, 5.0, 2.0])) == pytest.approx(2.2)
    assert math.isnan(slope(np.ones((3, 2)), x, np.ones(3)))
    assert trust(0.97, 2.16) == "underestimate by 2.2x"
    assert trust(0.7, 0.5) == "overestimate by 2x, roughly"
    for pearson, ratio in [(0.97, 1.1), (0.97, 0.9), (0.97, math.nan), (0.3, 3.0), (0.97, -3.0)]:
        assert "estimate by" not in trust(pearson, ratio)


@pytest.mark.parametrize(
    ("pearson", "ratio", "spearman", "told"),
    [
        (0.95, 2.9, Estimate(0.94, 0.9, 0.97), "rank well, underestimate by 2.9x"),
        (0.95, 1.0, Estimate(-0.24, -0.4, -0.1), "have the right size but do not rank"),
        (0.3, 1.0, Estimate(0.95, 0.9, 0.97), "do not have the right size but rank well"),
        (0.3, 1.0, Estimate(0.2, 0.1, 0.3), "do not rank, do not have the right size"),
        (0.95, 1.0, Estimate(1.0, 0.4, 1.0), "cannot be ranked by so few places, have the right size"),
        (0.95, 1.0, Estimate(math.nan), "have the right size"),
    ],
)
def test_order_and_size_are_told_apart(pearson, ratio, spearman, told):
    assert trust(pearson, ratio, spearman) == told


def test_scores_that_are_sizes_are_judged_by_their_order_alone():
    told = trust(0.95, math.nan, Estimate(0.94, 0.9, 0.97), sizes=False)
    assert told.startswith("rank well; they are no effects")
    *_, calibration = checked(method="atp-star", sites=("L*.z",), budget=24, top=5)
    assert "right size" not in calibration.summary()
    assert "no effects" in calibration.summary()


def test_the_interval_of_ranks_covers_the_drawing_of_places():
    """Bonett and Wright's: of samples from a population with known rank correlation, 95 in 100 or so hold it."""
    x, y = np.random.default_rng(0).normal(size=(2, 4000))
    y = x + 0.7 * y
    truth = stats.spearmanr(x, y).statistic
    held = []
    for seed in range(200):
        drawn = np.random.default_rng(seed).permutation(4000)[:16]
        weight = np.full(16, 250.0)
        found = agreement(x[drawn, None], y[drawn, None], weight, generator=seeded(), draws=0)[1]
        held.append(found.low <= truth <= found.high)
    assert 0.9 < np.mean(held) < 0.99
    perfect = agreement(x[:8, None], x[:8, None], np.full(8, 500.0), generator=seeded(), draws=0)[1]
    assert perfect.value == 1
    assert 0.8 < perfect.low < 0.95  # eight in order do not show that all are
    every = agreement(x[:8, None], x[:8, None], np.ones(8), generator=seeded(), draws=0)[1]
    assert every.low is None  # all places were measured: nothing was drawn
    few = agreement(x[:4, None], x[:4, None], np.full(4, 500.0), generator=seeded(), draws=0)[1]
    assert (few.low, few.high) == (-1, 1)


def test_a_bound_that_says_nothing_says_how_many_draws_would():
    poor = missed(0, 8, 92152, 0.1)
    assert poor.share > 0.3
    assert missed(0, poor.needed, 92152, 0.1).share <= 0.1 < missed(0, poor.needed - 1, 92152, 0.1).share
    assert missed(0, 60, 92152, 0.1).needed is None  # useful
    assert missed(4, 8, 92152, 0.1).needed is None  # half are large: more draws would not change that
    assert missed(0, 5, 5, 0.1).needed is None
    *_, calibration = checked(sites=("L*.neurons",), budget=6, top=2)
    if calibration.kinds["neurons"].missed.hits == 0:
        assert "would have to be sampled" in str(calibration)


def test_kinds_of_few_places_are_checked_whole_and_the_budget_is_spent():
    model, pairs, found, _ = checked(sites=("L*.mlp_out", "L*.neurons"))
    check = calibrate(model, pairs, metric_of(pairs), found, budget=40, top=20, generator=seeded(), draws=5, whole=True)
    few = check.kinds["mlp_out"]
    assert len(few.patches) == sum(score[0].numel() for site, score in found.scores.items() if site.kind == "mlp_out")
    assert (
        sum(row["checked"] for row in check.table()) == 40
    )  # no more and no fewer places are compared than were asked for
    assert "Checked on 40 places" in check.summary()
    assert "mlp_out: " in str(check)
    assert "Every place was patched" in str(check).splitlines()[0]


def test_what_the_gradient_sees_of_an_effect_is_said():
    estimate, exact = torch.tensor([[0.5], [0.01], [-0.5], [1.0]]), torch.tensor([[1.0], [1.0], [1.0], [0.2]])
    patches = [(Place(Site("z", 0), {"pos": i, "head": 0}),) for i in range(4)]
    none = Estimate(0.0)
    each = Checked("z", patches, estimate, exact, 0, none, none, math.nan, Missed(0.1, 4, 4, 4, 1.0), 3.2)
    told = {flag.patch[0].where["pos"]: flag.meaning for flag in flags_of(each, "denoise")}
    assert told == {0: SEEN_IN_PART, 1: UNSEEN, 2: TURNED, 3: OVERSTATED}


def test_places_that_cannot_have_an_effect_are_neither_drawn_nor_counted():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    begin = 2
    same = torch.cat([ids_of(pairs.clean)[:, :begin], ids_of(pairs.corrupt)[:, begin:]], 1)
    same[:, begin] = (ids_of(pairs.clean)[:, begin] + 1) % 7  # every pair differs here
    pairs = Pairs(pairs.clean, same, pairs.answer, pairs.wrong)
    found = attribute(model, pairs, metric_of(pairs), ["L*.z", "L*.pattern"])
    check = calibrate(model, pairs, metric_of(pairs), found, budget=400, top=4, generator=seeded(), draws=5)
    patched = {kind: [place for (place,) in each.patches] for kind, each in check.kinds.items()}
    assert {place.where["pos"] for place in patched["z"]} == {2, 3}
    assert {(place.where["query"], place.where["key"]) for place in patched["pattern"]} == {
        (query, key) for query in (2, 3) for key in range(query + 1)
    }
    assert len(patched["z"]) == 2 * 2 * 3
    assert check.n_excluded == 2 * 2 * 3 + 2 * 3 * (16 - 7)
    assert check.kinds["z"].missed.of == len(patched["z"]) - 2
    everything = samples(found, budget=400, top=4, generator=seeded())
    assert (
        sum(len(each.patches) for each in everything) == len(patched["z"]) + len(patched["pattern"]) + check.n_excluded
    )
    idle = [
        place for each in everything for (place,) in each.patches if place not in [*patched["z"], *patched["pattern"]]
    ]
    exactly = {site: exact(model, pairs, metric_of(pairs), found, site) for site in found.scores}
    for place in idle:
        assert exactly[place.site][(slice(None), *place.where.values())].abs().max() < 1e-12
    assert can_matter(
        Site("mlp_out", 0), torch.zeros(3), begin
    ).all()  # summed over positions: one place, which is able


def test_of_prompts_that_are_the_same_no_place_is_ruled_out():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    pairs = Pairs(pairs.clean, pairs.clean, pairs.answer, pairs.wrong)
    found = attribute(model, pairs, metric_of(pairs), ["L*.z"])
    check = calibrate(model, pairs, metric_of(pairs), found, budget=5, top=2, generator=seeded(), draws=5)
    assert check.n_excluded == 0
    assert "cannot be judged" in str(check)


def test_scores_with_their_positions_summed_are_checked_too():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    found = attribute(model, pairs, metric_of(pairs), ["L*.resid_pre", "L*.mlp_out"], positions="sum")
    calibration = calibrate(model, pairs, metric_of(pairs), found, budget=4, top=2, generator=seeded(), draws=10)
    assert [len(each.patches) for each in calibration.kinds.values()] == [2, 2]


def test_a_metric_that_is_no_number_is_refused():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    found = attribute(model, pairs, metric_of(pairs), "L*.z")
    broken = dataclasses.replace(found, clean=found.clean * math.nan, corrupt=found.corrupt * math.nan)
    with pytest.raises(UserError, match="finite"):
        calibrate(model, pairs, metric_of(pairs), broken, budget=4, top=2, generator=seeded(), draws=10)


@pytest.mark.parametrize("mode", ["denoise", "noise"])
def test_joint_effects_are_those_of_whole_sites_patched_plainly(mode):
    """They run from the first difference on, and neurons and mlp_out as one: the effect is that of everything."""
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    corrupt = torch.cat([pairs.clean[:, :2], pairs.corrupt[:, 2:]], 1)
    pairs = dataclasses.replace(pairs, corrupt=corrupt)
    metric = metric_of(pairs)
    found = attribute(model, pairs, metric, ["L*.z", "L*.neurons", "L*.mlp_out"], mode=mode)
    check = calibrate(model, pairs, metric, found, budget=30, top=9, generator=seeded(), draws=5)
    sites = [place.site for each in check.kinds.values() for some in each.wholes for place in some.patch]
    donor = model.run(pairs.donor(mode), keep=sites).cache
    for each in check.kinds.values():
        assert [len(some.patch) for some in each.wholes] == [1, 1, 2]
        for some in each.wholes:
            edits = [put(place.site, donor[place.site]) for place in some.patch]
            alone = metric_under(model, pairs.base(mode), edits, metric) - found.base
            assert some.exact == pytest.approx(float(alone.mean()), abs=1e-10)
    n_places = sum(len(each.patches) for each in check.kinds.values())
    assert check.n_patches == n_places + 3 + 2 * 3  # those of a kind together; whole, neurons and mlp_out as one


def test_the_default_check_costs_about_twice_the_estimates():
    """Counted as `check_cost` counts: in tokens through layers."""
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    found = attribute(model, pairs, metric_of(pairs), ["L*.z", "L*.neurons"])
    check = calibrate(model, pairs, metric_of(pairs), found, generator=seeded(), draws=5)
    work = work_of(model, pairs, found, 0)
    alone = sum(work.of(patch) for each in check.kinds.values() for patch in each.patches)
    assert work.limit == pytest.approx((2 * 3 - 2) * work.a_pass)
    assert 0.2 * work.limit < alone <= work.limit
    assert sum(work.of(some.patch) for each in check.kinds.values() for some in each.wholes) <= JOINTLY * work.limit


def test_a_costly_check_keeps_a_few_places_of_each_kind_and_a_cheap_one_stops():
    able = {
        "z": {Site("z", 0): torch.ones(100, 40, dtype=torch.bool)},
        "mlp_out": {Site("mlp_out", 0): torch.ones(100) > 0},
    }
    costly, cheap = (Work(12, 50, 100, 0, limit) for limit in (1.0, 1e12))
    assert affordable(costly, able) == 2 * FEWEST
    assert affordable(cheap, able) == MOST
    assert affordable(cheap, {"mlp_out": {Site("mlp_out", 0): torch.ones(7) > 0}}) == 7
