"""Attribution patching: streamed, cached, checkpointed and exact agree where they must, and nothing stays behind."""

import gc
import weakref

import pytest
import torch
from attribution_cases import NAMES, exact, inner_sites, metric_of, model_of, pairs_of
from linear_model import LinearModel

from micrographia.core.edits import leaf, observe, scale, splice
from micrographia.core.errors import BadPrompt, UnknownSite, UserError
from micrographia.core.metrics import log_prob, logit_difference, prompts, rank
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.methods.attribution.attribute import METHODS, attribute
from micrographia.methods.attribution.estimation import Passes
from small import A_FEW

MODES = ["denoise", "noise"]


def cached(model, pairs, metric, sites, mode):
    """Two caches and their gradients, as the obvious program does it: donor - base, times the gradient at the base."""
    donor, base = (pairs.clean, pairs.corrupt) if mode == "denoise" else (pairs.corrupt, pairs.clean)
    prompt = prompts(len(pairs))
    readout = metric.readout(prompt)
    values = model.run(donor, keep=sites, logits=readout).cache
    begin = [leaf(site) for site in (Site("embed"), Site("pos_embed")) if site in model.sites]
    run = model.run(base, keep=sites, edits=begin, logits=readout, grad=True)
    inside = [run.cache[site] for site in sites]
    gradients = torch.autograd.grad(metric(run.logits, prompt).sum(), inside, allow_unused=True)
    found = {}
    for site, activation, gradient in zip(sites, inside, gradients):
        delta = torch.nan_to_num(values[site] - activation.detach())
        product = delta * (torch.zeros_like(delta) if gradient is None else gradient)
        over = [i for i, axis in enumerate(site.axes) if axis in ("d_model", "d_head", "one")]
        found[site] = product.sum(over) if over else product
    return found


@pytest.mark.parametrize(("name", "mode"), [*((name, "denoise") for name in NAMES), ("modern", "noise")])
def test_streamed_scores_are_those_of_two_caches_and_their_gradients(name, mode):
    model, pairs = model_of(name), pairs_of(A_FEW[name])
    sites = [site for site in inner_sites(model) if site.kind != "result"]  # beside the path, it has no gradient
    found = attribute(model, pairs, metric_of(pairs), sites, mode=mode)
    wanted = cached(model, pairs, metric_of(pairs), sites, mode)
    assert list(found.scores) == sites
    for site in sites:
        torch.testing.assert_close(found.scores[site], wanted[site], msg=str(site))


@pytest.mark.parametrize(("name", "mode"), [*((name, "denoise") for name in NAMES), ("modern", "noise")])
def test_checkpoints_change_no_score(name, mode):
    model, pairs = model_of(name), pairs_of(A_FEW[name])
    plain, again = (
        attribute(model, pairs, metric_of(pairs), inner_sites(model), mode=mode, checkpoints=checkpoints)
        for checkpoints in (False, True)
    )
    assert (plain.n_passes, again.n_passes) == (Passes(2, 1), Passes(4, 1))
    for site, score in plain.scores.items():
        torch.testing.assert_close(again.scores[site], score, rtol=1e-10, atol=1e-12, msg=str(site))
    torch.testing.assert_close(again.clean, plain.clean)
    torch.testing.assert_close(again.corrupt, plain.corrupt)


@pytest.mark.usefixtures("unchecked")
def test_an_edit_of_a_stream_where_a_run_may_begin_acts_once():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    edits = [scale("L1.resid_pre", 2.0)]
    whole = attribute(model, pairs, metric_of(pairs), "L1.z", edits=edits)
    parts = attribute(model, pairs, metric_of(pairs), "L1.z", edits=edits, checkpoints=True)
    torch.testing.assert_close(parts.scores, whole.scores)
    torch.testing.assert_close(parts.corrupt, whole.corrupt)
    linear = LinearModel()
    ids = torch.arange(8).reshape(2, 4) % 5
    two = Pairs(ids, ids.flip(0), torch.tensor([0, 1]), torch.tensor([1, 2]))
    metric = logit_difference(two.answer, two.wrong)
    for at in ("L1.resid_pre", "embed"):
        edits = [scale(at, 2.0)]
        exact = attribute(linear, two, metric, "L1.z", edits=edits).scores
        for method in ("ig", "ig-activation"):  # on a linear model every path gives the same
            found = attribute(linear, two, metric, "L1.z", edits=edits, method=method, steps=3)
            torch.testing.assert_close(found.scores, exact)


@pytest.mark.parametrize("sites", ["L1.z", "L1.*", ("final_norm", "L1.mlp_out"), "final_norm", "embed", "L0.neurons"])
def test_a_graph_that_begins_late_gives_the_same_scores(sites):
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    everything = attribute(model, pairs, metric_of(pairs), inner_sites(model))
    for checkpoints in (False, True):
        some = attribute(model, pairs, metric_of(pairs), sites, checkpoints=checkpoints)
        for site, score in some.scores.items():
            torch.testing.assert_close(score, everything.scores[site])


@pytest.mark.parametrize("mode", MODES)
def test_attribution_equals_exact_patching_on_a_linear_model(mode):
    model, pairs = LinearModel(), pairs_of(A_FEW["plain"])
    metric = logit_difference(pairs.answer, pairs.wrong)
    found = attribute(model, pairs, metric, inner_sites(model), mode=mode)
    assert max(float(score.abs().max()) for score in found.scores.values()) > 1
    for site, score in found.scores.items():
        torch.testing.assert_close(score, exact(model, pairs, metric, found, site), msg=str(site))


def test_on_a_model_that_bends_the_comparison_with_exact_patching_can_fail():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    found = attribute(model, pairs, metric_of(pairs), "L0.resid_pre")
    site = Site("resid_pre", 0)
    assert (found.scores[site] - exact(model, pairs, metric_of(pairs), found, site)).abs().max() > 0.1


def test_what_denoising_brings_back_noising_takes_away_on_a_linear_model():
    model, pairs = LinearModel(), pairs_of(A_FEW["plain"])
    metric = logit_difference(pairs.answer, pairs.wrong)
    back, away = (attribute(model, pairs, metric, "L*.z", mode=mode) for mode in MODES)
    assert torch.equal(back.clean, away.clean)
    assert torch.equal(back.corrupt, away.corrupt)
    assert torch.equal(back.base, back.corrupt)
    assert torch.equal(away.base, away.clean)
    for site, score in back.scores.items():
        torch.testing.assert_close(score, -away.scores[site])


def test_the_embeddings_scores_sum_to_the_gap_on_a_linear_model():
    model, pairs = LinearModel(), pairs_of(A_FEW["plain"])
    found = attribute(model, pairs, logit_difference(pairs.answer, pairs.wrong), "embed")
    torch.testing.assert_close(found.scores[Site("embed")].sum(-1), found.clean - found.corrupt)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_batch_of_pairs_scores_as_each_pair_alone(checkpoints):
    model, pairs = model_of("modern"), pairs_of(A_FEW["modern"])
    sites = inner_sites(model)
    batch = attribute(model, pairs, metric_of(pairs), sites, checkpoints=checkpoints)
    for i in range(len(pairs)):
        one = pairs.rows(slice(i, i + 1))
        alone = attribute(model, one, metric_of(one), sites, checkpoints=checkpoints)
        for site, score in batch.scores.items():
            torch.testing.assert_close(score[i : i + 1], alone.scores[site])


def test_a_head_scores_at_its_result_as_at_its_z():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    found = attribute(model, pairs, metric_of(pairs), ["L*.z", "L*.result"])
    for layer in range(2):
        assert torch.equal(found.scores[Site("z", layer)], found.scores[Site("result", layer)])
        assert found.scores[Site("z", layer)].abs().max() > 0


@pytest.mark.parametrize("name", ["normed", "modern", "mlp-only"])
def test_parts_sum_to_what_they_write(name):
    """Without a bend between them, scores add up: neurons to the MLP's output, heads to attention's."""
    model, pairs = model_of(name), pairs_of(A_FEW[name])
    found = attribute(model, pairs, metric_of(pairs), inner_sites(model)).scores
    for layer in range(2):
        torch.testing.assert_close(found[Site("neurons", layer)].sum(-1), found[Site("mlp_out", layer)])
        if Site("z", layer) in found:
            torch.testing.assert_close(found[Site("z", layer)].sum(-1), found[Site("attn_out", layer)])


def test_summed_positions_are_the_sum_over_positions():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    each, whole = (
        attribute(model, pairs, metric_of(pairs), inner_sites(model), positions=positions).scores
        for positions in ("each", "sum")
    )
    for site, score in each.items():
        over = {"pattern": (2, 3), "scores": (2, 3)}.get(site.kind, (1,))
        torch.testing.assert_close(whole[site], score.sum(over), msg=str(site))


def test_equal_prompts_score_nothing():
    model, pairs = model_of("modern"), pairs_of(A_FEW["modern"])
    same = Pairs(pairs.clean, pairs.clean, pairs.answer)
    for method in METHODS:
        kinds = ("z", "neurons", "resid_pre") if method == "relp" else ("q", "k", "z", "scores", "neurons", "resid_pre")
        found = attribute(model, same, metric_of(same), [f"L*.{kind}" for kind in kinds], method=method)
        assert all(not score.any() for score in found.scores.values()), method


class Halves:
    """A dictionary whose latents are the first units times eight; the rest is its error."""

    def encode(self, activation):
        return 8 * activation[..., :3]

    def decode(self, latents):
        return torch.cat([latents / 8, latents.new_zeros(*latents.shape[:-1], 7)], -1)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_latents_of_a_dictionary_are_scored_like_any_place(checkpoints):
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    here = Site("resid_pre", 1)
    latents, error = (here.within("sae", part) for part in ("latents", "error"))
    found = attribute(
        model,
        pairs,
        metric_of(pairs),
        [latents, error, here],
        edits=[splice(here, Halves())],
        checkpoints=checkpoints,
    ).scores
    assert found[latents].shape == (3, 4, 3)
    torch.testing.assert_close(found[latents].sum(-1) + found[error], found[here])


def test_scores_are_float32_at_least_where_they_are_sums():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    model.state = {name: weight.bfloat16() for name, weight in model.state.items()}
    found = attribute(model, pairs, metric_of(pairs), ["L0.z", "L0.neurons"]).scores
    assert found[Site("z", 0)].dtype == torch.float32
    assert found[Site("neurons", 0)].dtype == torch.bfloat16


def test_nothing_is_left_behind():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    for weight in model.state.values():
        weight.requires_grad_()
    alive: list[weakref.ref] = []
    watch = [observe(site, lambda value: alive.append(weakref.ref(value))) for site in inner_sites(model)]
    weights = {name: weight.clone() for name, weight in model.state.items()}
    gc.collect()
    for method in METHODS:
        sites = ["L*.z", "L*.neurons"]
        found = attribute(model, pairs, metric_of(pairs), sites, method=method, edits=watch)
        assert all(not score.requires_grad for score in found.scores.values())
        assert not found.clean.requires_grad
        assert not found.corrupt.requires_grad
    gc.collect()
    assert alive
    assert all(ref() is None for ref in alive)
    assert all(weight.grad is None for weight in model.state.values())
    assert all(torch.equal(weights[name], weight) for name, weight in model.state.items())


@pytest.mark.parametrize("name", NAMES)
def test_reading_does_not_change_the_weights_nor_the_metric(name):
    """Differences are formed in tensors of their own, also where an activation is a view of a weight (one prompt)."""
    model, pairs = model_of(name), pairs_of(A_FEW[name], n=1)
    before = {key: weight.clone() for key, weight in model.state.items()}
    found = attribute(model, pairs, metric_of(pairs), inner_sites(model))
    assert all(torch.equal(before[key], weight) for key, weight in model.state.items())
    wanted = metric_of(pairs)(model.run(pairs.clean, logits="last").logits, prompts(1))
    torch.testing.assert_close(found.clean, wanted)


def test_at_most_one_tensor_of_each_site_is_held_between_and_during_the_passes():
    """Tensors of the shape of a Site's value, counted while the base's run and the backward pass go by."""
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    sites = [Site("neurons", layer) for layer in range(2)]
    before = {id(thing) for thing in gc.get_objects()}
    counts: list[int] = []

    def count(*_: object) -> None:
        new = [x for x in gc.get_objects() if type(x) is torch.Tensor and id(x) not in before]
        held = [x for x in new if x.shape == (3, 4, 12) and not x.requires_grad]
        counts.append(len({x.untyped_storage().data_ptr() for x in held}))

    def at_backward(value: torch.Tensor) -> None:
        if value.requires_grad:
            count()
            value.register_hook(count)

    watch = [observe(Site("resid_pre", layer), at_backward) for layer in (1, 0)]
    attribute(model, pairs, metric_of(pairs), sites, edits=watch)
    assert max(counts) <= len(sites) + 1  # the one being made


def test_a_score_can_be_handed_on_instead_of_kept():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    order: list[Site] = []
    found = attribute(model, pairs, metric_of(pairs), "L*.neurons", on_score=lambda site, score: order.append(site))
    assert not found.scores
    assert order == [Site("neurons", 1), Site("neurons", 0)]  # as the backward pass comes by


def test_what_cannot_be_asked_for_says_so():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    with pytest.raises(UserError, match="which has no gradient"):
        attribute(model, pairs, rank(pairs.answer), "L0.z")
    with pytest.raises(UserError, match="no Site"):
        attribute(model, pairs, metric_of(pairs), [])
    with pytest.raises(UnknownSite):
        attribute(model, pairs, metric_of(pairs), "L7.z")
    with pytest.raises(UserError, match="'shapley' was asked for; there are atp,"):
        attribute(model, pairs, metric_of(pairs), "L0.z", method="shapley")
    with pytest.raises(BadPrompt):
        attribute(model, Pairs(pairs.clean, pairs.corrupt[:, :-1], pairs.answer), metric_of(pairs), "L0.z")


def test_any_metric_that_has_a_gradient_is_taken():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    for metric in (log_prob(pairs.answer), logit_difference(pairs.answer, pairs.wrong)):
        found = attribute(model, pairs, metric, "L*.z")
        assert found.scores[Site("z", 1)].any()
