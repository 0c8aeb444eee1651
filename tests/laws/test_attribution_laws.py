"""Laws of patching and attribution, on drawn models: where an estimate must be exact, and what must sum to what."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from micrographia.core.edits import Edit, apply, leaf, observe, put
from micrographia.core.graph import INPUT, LOGITS, Node, graph_of
from micrographia.core.metrics import Metric, logit_difference, prompts
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.sweep import Patch, Place
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.edges import edge_attribution
from micrographia.methods.attribution.estimation import FEATURES, place
from micrographia.methods.lens import direct_logit_attribution
from micrographia.methods.patching import patch
from micrographia.methods.paths import path_patch
from small import architectures, small_model, some_tokens

N = 2
DOUBLE = torch.float64
MODES = st.sampled_from(["denoise", "noise"])
SEEDS = st.integers(0, 2**20)
TIGHT = {"rtol": 1e-8, "atol": 1e-10}
attending = architectures(attention=True)
few = settings(max_examples=12)
fewer = settings(max_examples=6)


def given_pairs(arch: Architecture, seed: int) -> Pairs:
    clean, corrupt = (some_tokens(arch, batch=N, seed=seed + i) for i in (1, 2))
    right = (torch.arange(N) + seed) % arch.d_vocab_out
    return Pairs(clean, corrupt, right, (right + 1) % arch.d_vocab_out)


def difference(pairs: Pairs) -> Metric:
    assert pairs.wrong is not None
    return logit_difference(pairs.answer, pairs.wrong)


def sides(pairs: Pairs, mode: str) -> tuple[Tensor, Tensor]:
    """What gives values, and what is explained."""
    assert isinstance(pairs.clean, Tensor)
    assert isinstance(pairs.corrupt, Tensor)
    return (pairs.clean, pairs.corrupt) if mode == "denoise" else (pairs.corrupt, pairs.clean)


def value(model: Model, metric: Metric, tokens: Tensor, edits: list[Edit] | None = None) -> Tensor:
    logits = model.run(tokens, edits=edits or []).logits
    return metric.of_vocabulary(logits, prompts(N))


def gradients(model: Model, metric: Metric, tokens: Tensor, sites: list[Site], edits: list[Edit]) -> list[Tensor]:
    """Of the metric at these Sites, of each prompt's own."""
    live: dict[Site, Tensor] = {}
    looks = [observe(site, lambda x, site=site: live.__setitem__(site, x)) for site in sites]
    begin = [leaf(site) for site in (Site("embed"), Site("pos_embed")) if site in model.sites]
    logits = model.run(tokens, edits=[*begin, *edits, *looks], grad=True).logits
    total = metric.of_vocabulary(logits, prompts(N)).sum()
    found = torch.autograd.grad(total, [live[site] for site in sites], allow_unused=True)
    return [torch.zeros_like(live[site]) if g is None else g for site, g in zip(sites, found)]


def scale_of(scores: Tensor) -> dict[str, float]:
    return {"rtol": 1e-8, "atol": 1e-9 * max(1.0, float(scores.abs().max()))}


def linear(arch: Architecture, seed: int) -> Transformer:
    """Without queries every head attends evenly, and nothing is normalised or bent."""
    model = small_model(arch, seed=seed, dtype=DOUBLE)
    queries = ("W_Q", "b_Q")
    return Transformer(arch, {name: w * (not name.endswith(queries)) for name, w in model.state.items()})


@fewer
@given(
    architectures(attention=True, mlp=False, norm="none"),
    SEEDS,
    MODES,
    st.sampled_from(["atp", "atp-qk", "ig", "ig-activation"]),
)
def test_attribution_equals_exact_patching_on_a_linear_model(arch, seed, mode, method):
    model, pairs = linear(arch, seed), given_pairs(arch, seed)
    metric, (donor, base) = difference(pairs), sides(pairs, mode)
    sites = [site for site in model.sites if site.kind not in ("logits", "result")]
    found = attribute(model, pairs, metric, sites, mode=mode, method=method)
    cells = [(site, tuple(c)) for site, x in found.scores.items() for c in torch.ones(x.shape[1:]).nonzero().tolist()]
    patches: list[Patch] = [(place(site, found.scores[site], cell),) for site, cell in cells]
    exact = patch(model, pairs, [metric], patches, mode=mode).effects()[..., 0]
    estimated = torch.stack([found.scores[site][(slice(None), *cell)] for site, cell in cells])
    torch.testing.assert_close(estimated, exact, **scale_of(exact))
    gap = value(model, metric, donor) - value(model, metric, base)
    torch.testing.assert_close(found.scores[Site("resid_post", arch.n_layers - 1)].sum(1), gap, **TIGHT)


@few
@given(attending, SEEDS, st.integers(-2, 1))
def test_writers_direct_effects_sum_to_the_logit_difference(arch, seed, pos):
    model, pairs = small_model(arch, seed=seed, dtype=DOUBLE), given_pairs(arch, seed)
    logits = model.run(pairs.clean).logits
    found = direct_logit_attribution(model, pairs.clean, pairs.answer, pairs.wrong, pos=pos)
    metric = logit_difference(pairs.answer, pairs.wrong, pos=pos)
    torch.testing.assert_close(found.total, metric.of_vocabulary(logits, prompts(N)), **TIGHT)


@few
@given(attending, SEEDS, MODES)
def test_edges_out_of_a_writer_sum_to_its_node_score(arch, seed, mode):
    model, pairs = small_model(arch, seed=seed, dtype=DOUBLE), given_pairs(arch, seed)
    metric = difference(pairs)
    found = edge_attribution(model, pairs, metric, mode=mode)
    nodes = attribute(model, pairs, metric, {node.site for node in found.graph.writers}, mode=mode, positions="sum")
    for node, summed in zip(found.graph.writers, found.of_writers().T):
        score = nodes.scores[node.site]
        torch.testing.assert_close(summed, score if node.head is None else score[:, node.head], **scale_of(score))


def reader_alone(node: Node) -> list[Edit]:
    """Lets the gradient through this reader of its layer's attention and none of the others."""

    def others(x: Tensor) -> Tensor:
        own = torch.zeros(x.shape[2], 1, dtype=x.dtype)
        own[node.head] = 1
        return x * own + x.detach() * (1 - own)

    kinds = [kind for kind in "qkv" if kind != node.site.kind]
    stopped = [apply(Site(kind, node.site.layer), torch.Tensor.detach) for kind in kinds]
    return [*stopped, apply(node.site, others)]


@few
@given(attending, SEEDS, MODES, st.data())
def test_edges_into_a_reader_sum_to_the_attribution_of_its_input_before_the_norm(arch, seed, mode, data):
    model, pairs = small_model(arch, seed=seed, dtype=DOUBLE), given_pairs(arch, seed)
    metric, (donor, base) = difference(pairs), sides(pairs, mode)
    found = edge_attribution(model, pairs, metric, mode=mode)
    node = data.draw(st.sampled_from(found.graph.readers), label="reader")
    layer = arch.n_layers - 1 if node == Node(LOGITS) else node.site.layer
    before, between, after = (Site(kind, layer) for kind in ("resid_pre", "resid_mid", "resid_post"))
    if node.site.kind in ("q", "k", "v"):
        stream, behind, edits = before, between if between in model.sites else after, reader_alone(node)
    else:
        stream, behind, edits = (after, None, []) if node == Node(LOGITS) else (between, after, [])
    slope = gradients(model, metric, base, [stream, *([behind] if behind else [])], edits)
    own = slope[0] - slope[1] if behind else slope[0]  # what does not go round the reader by the skip
    there, here = (model.run(tokens, keep=stream).cache[stream] for tokens in (donor, base))
    expected = ((there - here) * own).sum((1, 2))
    column = found.values.sum(1)[:, found.graph.readers.index(node)]
    torch.testing.assert_close(column, expected, **scale_of(found.values))


@few
@given(attending, SEEDS, MODES, st.data())
def test_the_qk_fix_equals_brute_force(arch, seed, mode, data):
    """One query or key patched, the softmax taken again, and what is behind it linear."""
    model, pairs = small_model(arch, seed=seed, dtype=DOUBLE), given_pairs(arch, seed)
    metric, (donor, base) = difference(pairs), sides(pairs, mode)
    layer = data.draw(st.integers(0, arch.n_layers - 1))
    pattern, sites = Site("pattern", layer), [Site("q", layer), Site("k", layer)]
    (slope,) = gradients(model, metric, base, [pattern], [])
    there, here = model.run(donor, keep=sites).cache, model.run(base, keep=pattern).cache[pattern]
    found = attribute(model, pairs, metric, sites, mode=mode, method="atp-qk").scores
    for site in sites:
        wanted = torch.zeros_like(found[site])
        for pos, head in torch.ones(wanted.shape[1:]).nonzero().tolist():
            edit = put(site, there[site][:, pos, head], pos=pos, head=head)
            new = model.run(base, keep=pattern, edits=[edit], stop=layer + 1).cache[pattern]
            wanted[:, pos, head] = ((new - here) * slope).sum((1, 2, 3))
        torch.testing.assert_close(found[site], wanted, **scale_of(wanted))


@few
@given(architectures(), SEEDS, MODES, st.booleans())
def test_streamed_scores_are_those_of_two_caches_and_their_gradients(arch, seed, mode, checkpoints):
    model, pairs = small_model(arch, seed=seed, dtype=DOUBLE), given_pairs(arch, seed)
    metric, (donor, base) = difference(pairs), sides(pairs, mode)
    sites = [site for site in model.sites if site.kind not in ("logits", "result")]
    found = attribute(model, pairs, metric, sites, mode=mode, checkpoints=checkpoints).scores
    there, here = (model.run(tokens, keep=sites).cache for tokens in (donor, base))
    for site, gradient in zip(sites, gradients(model, metric, base, sites, [])):
        product = torch.nan_to_num(there[site] - here[site]) * gradient  # scores of who may not attend: -inf - -inf
        over = [i for i, axis in enumerate(site.axes) if axis in FEATURES]
        expected = product.sum(over) if over else product
        torch.testing.assert_close(found[site], expected, **scale_of(expected), msg=lambda text, s=site: f"{s}: {text}")


@few
@given(attending, SEEDS, MODES, st.sampled_from(["fast", "strict"]))
def test_patching_everything_recovers_the_other_run(arch, seed, mode, plan):
    """All that writes to the stream, or the stream itself after any layer."""
    model, pairs = small_model(arch, seed=seed, dtype=DOUBLE), given_pairs(arch, seed)
    metric, (donor, _) = difference(pairs), sides(pairs, mode)
    writers = [Place(site) for site in dict.fromkeys(node.site for node in graph_of(model).writers)]
    whole: list[Patch] = [(Place(Site("resid_post", layer)),) for layer in range(arch.n_layers)]
    found = patch(model, pairs, [metric], [tuple(writers), *whole], mode=mode, plan=plan).values[..., 0]
    torch.testing.assert_close(found, value(model, metric, donor).expand_as(found), **TIGHT)


@fewer
@given(attending, SEEDS, MODES)
def test_where_both_prompts_are_one_nothing_changes_and_nothing_is_scored(arch, seed, mode):
    model, pairs = small_model(arch, seed=seed, dtype=DOUBLE), given_pairs(arch, seed)
    same = Pairs(pairs.clean, pairs.clean, pairs.answer, pairs.wrong)
    metric, graph = difference(pairs), graph_of(model)
    sites = [site for site in model.sites if site.kind not in ("logits", "result")]
    patches: list[Patch] = [(Place(site),) for site in sites]
    exact = patch(model, same, [metric], patches, mode=mode, plan="strict").values[..., 0]
    assert torch.equal(exact, value(model, metric, sides(pairs, "denoise")[0]).expand_as(exact))
    paths = path_patch(model, same, [metric], [(Place(INPUT),), (Place(Site("z", 0)),)], graph.readers, mode=mode)
    torch.testing.assert_close(paths.values, paths.base.expand_as(paths.values), **TIGHT)
    assert not any(bool(x.any()) for x in attribute(model, same, metric, sites, mode=mode).scores.values())
    assert not edge_attribution(model, same, metric, mode=mode).values.any()


def test_the_laws_can_fail():
    """A model that bends: its estimates are not the exact effects."""
    arch = Architecture(d_vocab=9, d_vocab_out=9, n_ctx=4, n_layers=2, d_model=8, n_heads=2, d_head=4, d_mlp=8)
    model, pairs = small_model(arch, dtype=DOUBLE), given_pairs(arch, 3)
    metric = difference(pairs)
    found = attribute(model, pairs, metric, "L0.resid_pre", positions="sum").scores[INPUT]
    exact = patch(model, pairs, [metric], [(Place(INPUT),)]).effects()[0, :, 0]
    assert not torch.allclose(found, exact, rtol=1e-3)
