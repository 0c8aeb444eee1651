"""The small transformer: its Sites, what keeping, editing, starting and stopping do, its weights and its errors."""

import math

import pytest
import torch
from torch import Tensor

from micrographia.core.edits import add, apply, freeze, put, scale, splice, zero
from micrographia.core.errors import BadConfig, BadEdit, BadShape, UnknownSite, UserError
from micrographia.core.model import Cache, KeysValues, Readout, Start
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer, rotate
from micrographia.core.small.weights import init_weights
from micrographia.core.tokens import Batch, Vocabulary
from small import A_FEW, ACTS, GRID, Halves, small_model, some_tokens

BATCH = 5
a_few = pytest.mark.parametrize("arch", A_FEW.values(), ids=A_FEW)


def lengths(arch: Architecture, site: Site) -> tuple[int, ...]:
    """What AXES promises, in numbers. Without attention there is one position, and the first layer reads wide."""
    positions = arch.n_ctx if arch.attention or site.kind == "embed" else 1
    wide = not arch.skips_first and site.layer == 0 and site.kind in ("resid_pre", "mlp_norm")
    words = {
        "batch": BATCH,
        "pos": positions,
        "query": positions,
        "key": positions,
        "d_model": arch.d_model * (arch.n_ctx - 1 if wide else 1),
        "head": arch.n_heads,
        "d_head": arch.d_head,
        "neuron": arch.d_mlp,
        "vocab": arch.d_vocab_out,
        "one": 1,
    }
    return tuple(words[axis] for axis in site.axes)


@pytest.mark.parametrize("arch", GRID.values(), ids=GRID)
def test_every_site_is_reached_with_its_axes_and_keeping_it_changes_no_bit(arch):
    model, tokens = small_model(arch), some_tokens(arch, batch=BATCH)
    bare = model.run(tokens).logits
    logits, cache = model.run(tokens, keep=model.sites)
    assert torch.equal(logits, bare)
    assert set(cache) == set(model.sites)
    assert len(set(model.sites)) == len(model.sites)
    assert {site: tuple(value.shape) for site, value in cache.items()} == {
        site: lengths(arch, site) for site in model.sites
    }
    assert torch.equal(cache["logits"], bare)


@a_few
def test_the_residual_stream_is_the_sum_of_what_was_written_into_it(arch):
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch)
    logits, cache = model.run(tokens, keep=model.sites)
    x = cache["embed"]
    if arch.joined == "summed":
        x = x[:, :-1].sum(1, keepdim=True)
    elif not arch.attention:
        x = torch.cat([x[:, i] for i in range(arch.n_ctx - 1)], -1)[:, None]
    elif arch.positions == "learned":
        x = x + cache["pos_embed"]
    for i in range(arch.n_layers):
        torch.testing.assert_close(cache[f"L{i}.resid_pre"], x)
        if arch.attention:
            x = x + cache[f"L{i}.attn_out"]
            torch.testing.assert_close(cache[f"L{i}.resid_mid"], x)
        if arch.mlp:
            wide = not arch.skips_first and i == 0  # of another width: there is nothing to add to
            x = cache[f"L{i}.mlp_out"] if wide else x + cache[f"L{i}.mlp_out"]
        torch.testing.assert_close(cache[f"L{i}.resid_post"], x)
    read = x if arch.norm == "none" else cache["final_norm"]
    torch.testing.assert_close(logits, read @ model.weights.W_U + (model.weights.b_U if arch.unembed_bias else 0))


@pytest.mark.parametrize("act", ACTS)
def test_the_mlp_is_the_formula_of_its_activation(act):
    arch = Architecture(d_vocab=7, d_vocab_out=7, n_ctx=3, d_model=6, n_heads=1, d_head=6, d_mlp=9, act=act)
    model = small_model(arch, dtype=torch.float64)
    w = {name.rpartition(".")[2]: weight for name, weight in model.state.items()}
    cache = model.run(some_tokens(arch), keep=["L0.resid_mid", "L0.mlp_*", "L0.neurons"]).cache
    x, pre = cache["L0.resid_mid"], cache["L0.mlp_up" if act == "swiglu" else "L0.mlp_pre"]
    torch.testing.assert_close(pre, x @ w["W_in"] + w["b_in"])
    formula = {
        "relu": pre.clamp(min=0),
        "gelu": pre * (1 + torch.erf(pre / math.sqrt(2))) / 2,
        "gelu_new": pre * (1 + torch.tanh(math.sqrt(2 / math.pi) * (pre + 0.044715 * pre**3))) / 2,
        "silu": pre / (1 + (-pre).exp()),
        "tanh": (pre.exp() - (-pre).exp()) / (pre.exp() + (-pre).exp()),
        "square": pre * pre,
    }
    gate = x @ w["W_gate"] if act == "swiglu" else cache["L0.mlp_pre"]
    torch.testing.assert_close(cache["L0.mlp_pre"], gate)
    neurons = pre * gate / (1 + (-gate).exp()) if act == "swiglu" else formula[act]
    torch.testing.assert_close(cache["L0.neurons"], neurons)
    torch.testing.assert_close(cache["L0.mlp_out"], neurons @ w["W_out"] + w["b_out"])


@a_few
def test_sites_are_listed_in_the_order_in_which_a_run_reaches_them(arch):
    model = small_model(arch)
    _, cache = model.run(some_tokens(arch), keep=model.sites)
    reached = [site for site in cache if site.kind not in ("attn_out", "mlp_out", "result")]
    assert reached == [site for site in model.sites if site.kind not in ("attn_out", "mlp_out", "result")]


@a_few
@pytest.mark.usefixtures("unchecked")
def test_keeping_one_site_changes_no_bit_and_keeps_nothing_else(arch):
    model, tokens = small_model(arch), some_tokens(arch)
    bare = model.run(tokens).logits
    for site in model.sites:
        logits, cache = model.run(tokens, keep=site)
        assert torch.equal(logits, bare)
        assert list(cache) == [site]


@a_few
@pytest.mark.parametrize("grad", [False, True])
def test_gradients_do_not_change_the_logits_and_only_then_are_values_attached(arch, grad):
    model = small_model(arch)
    weights = {name: weight.requires_grad_() for name, weight in model.state.items()}
    logits, cache = Transformer(arch, weights).run(some_tokens(arch), keep="logits", grad=grad)
    assert logits.requires_grad is cache["logits"].requires_grad is grad
    assert torch.equal(logits, small_model(arch).run(some_tokens(arch)).logits)


@a_few
@pytest.mark.usefixtures("unchecked")
def test_an_edit_that_changes_nothing_changes_no_bit(arch):
    """But for `result`: editing it puts the sum over heads onto the path, which rounds otherwise."""
    model, tokens = small_model(arch), some_tokens(arch)
    bare, cache = model.run(tokens, keep=model.sites)
    for site in model.sites:
        logits = model.run(tokens, edits=[put(site, cache[site])]).logits
        if site.kind == "result":
            torch.testing.assert_close(logits, bare, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(logits, bare), site


@a_few
@pytest.mark.usefixtures("unchecked")
def test_what_is_written_at_a_site_is_felt_in_the_logits(arch):
    """No Site is a dead copy."""
    model, tokens = small_model(arch), some_tokens(arch)
    bare = model.run(tokens).logits
    for site in model.sites:
        edit = apply(site, lambda x: x.masked_fill(x.isfinite(), 0.7) if x.isinf().any() else x + 0.7 * x.cos())
        assert not torch.equal(model.run(tokens, edits=[edit]).logits, bare), site


@a_few
def test_a_run_leaves_inputs_weights_and_kept_values_as_they_were(arch):
    model, tokens = small_model(arch), some_tokens(arch)
    weights = {name: weight.clone() for name, weight in model.state.items()}
    _, cache = model.run(tokens, keep=model.sites)
    before, given = {site: value.clone() for site, value in cache.items()}, tokens.clone()
    edits = [apply(site, torch.Tensor.zero_) for site in model.sites if site.kind != "pattern"]
    model.run(tokens[:1], edits=edits)  # one row: an expanded view of the weights could be written through
    model.run(tokens, edits=[*edits, *freeze(cache, cache)])
    assert torch.equal(tokens, given)
    assert all(torch.equal(model.state[name], weight) for name, weight in weights.items())
    assert all(torch.equal(cache[site], value) for site, value in before.items())


@a_few
def test_freezing_the_last_residual_fixes_the_logits(arch):
    model, tokens = small_model(arch), some_tokens(arch)
    last = f"L{arch.n_layers - 1}.resid_post"
    bare, cache = model.run(tokens, keep=last)
    first = "embed"
    logits = model.run(tokens, edits=[zero(first), *freeze([last], cache)]).logits
    assert torch.equal(logits, bare)
    assert not torch.equal(model.run(tokens, edits=[zero(first)]).logits, bare)


def test_edits_act_in_the_order_of_the_list():
    model, tokens = small_model(A_FEW["plain"]), some_tokens(A_FEW["plain"])
    there = model.run(tokens, keep="L0.z", edits=[put("L0.z", 1.0), add("L0.z", 1.0)]).cache["L0.z"]
    back = model.run(tokens, keep="L0.z", edits=[add("L0.z", 1.0), put("L0.z", 1.0)]).cache["L0.z"]
    assert (there == 2).all()
    assert (back == 1).all()


def test_zeroing_a_head_removes_its_part_of_the_attention_output():
    arch = A_FEW["plain-2"]
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch)
    cache = model.run(tokens, keep=["L1.result", "L1.attn_out"]).cache
    without = model.run(tokens, keep="L1.attn_out", edits=[zero("L1.z", head=1)]).cache["L1.attn_out"]
    torch.testing.assert_close(without, cache["L1.attn_out"] - cache["L1.result"][:, :, 1])


@pytest.mark.parametrize(
    "arch", [A_FEW["plain"], A_FEW["plain-2"], A_FEW["modern"]], ids=["plain", "plain-2", "modern"]
)
def test_head_results_sum_to_the_attention_output_and_editing_one_is_felt(arch):
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch)
    cache = model.run(tokens, keep=["L0.result", "L0.attn_out"]).cache
    bias = model.weights.b_O[0] if arch.attn_bias else 0.0
    torch.testing.assert_close(cache["L0.result"].sum(2) + bias, cache["L0.attn_out"])
    edited = model.run(tokens, keep="L0.attn_out", edits=[zero("L0.result", head=0)]).cache["L0.attn_out"]
    torch.testing.assert_close(edited, cache["L0.attn_out"] - cache["L0.result"][:, :, 0])


def test_a_trainable_direction_gets_the_gradient_of_the_place_where_it_acts():
    arch = A_FEW["normed"]
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch)
    direction = torch.zeros(arch.d_model, dtype=torch.float64, requires_grad=True)
    output = model.run(tokens, keep="L1.resid_pre", edits=[add("L1.resid_pre", direction, pos=2)], grad=True)
    output.logits[:, -1, 0].sum().backward()
    residual = output.cache["L1.resid_pre"].detach().requires_grad_()
    again = model.run(tokens, start=Start(1, residual), grad=True).logits
    again[:, -1, 0].sum().backward()
    torch.testing.assert_close(direction.grad, residual.grad[:, 2].sum(0))
    assert direction.grad.abs().max() > 0


class Broken(Exception):
    """Raised by the tests alone."""


@a_few
@pytest.mark.usefixtures("unchecked")
def test_an_exception_inside_an_edit_leaves_nothing_behind(arch):
    model, tokens = small_model(arch), some_tokens(arch)
    bare, before = model.run(tokens, keep=model.sites)

    def fail(value: Tensor) -> Tensor:
        raise Broken

    for site in model.sites:
        with pytest.raises(Broken):
            model.run(tokens, keep=model.sites, edits=[zero(model.sites[0]), apply(site, fail)], grad=True)
        assert torch.is_grad_enabled()
    logits, after = model.run(tokens, keep=model.sites)
    assert torch.equal(logits, bare)
    assert all(torch.equal(after[site], before[site]) for site in model.sites)


@a_few
def test_a_run_started_at_a_kept_residual_goes_on_bit_for_bit(arch):
    model, tokens = small_model(arch), some_tokens(arch)
    logits, cache = model.run(tokens, keep=model.sites)
    for layer in range(arch.n_layers):
        later = [site for site in model.sites if site.layer is not None and site.layer >= layer]
        start = Start(layer, cache[Site("resid_pre", layer)])
        again, found = model.run(tokens, keep=later, start=start)
        assert torch.equal(again, logits)
        assert all(torch.equal(found[site], cache[site]) for site in later)
    last = Start(arch.n_layers, cache[Site("resid_post", arch.n_layers - 1)])
    assert torch.equal(model.run(tokens, start=last).logits, logits)


@a_few
def test_a_stopped_run_has_no_logits_and_its_residual_starts_another(arch):
    model, tokens = small_model(arch), some_tokens(arch)
    whole = model.run(tokens, keep="L0.resid_post")
    stopped = model.run(tokens, keep="L0.resid_post", stop=1)
    cache = stopped.cache
    assert stopped.maybe_logits is None
    with pytest.raises(UserError, match=r"stopped before it had any; it kept .*L0\.resid_post.*Run without `stop`"):
        _ = stopped.logits
    assert torch.equal(cache["L0.resid_post"], whole.cache["L0.resid_post"])
    assert torch.equal(model.run(tokens, start=Start(1, cache["L0.resid_post"])).logits, whole.logits)
    with pytest.raises(UnknownSite, match="never reached logits"):
        model.run(tokens, keep="logits", stop=1)


@a_few
def test_a_run_leaves_at_the_site_it_is_told_to(arch):
    model, tokens = small_model(arch), some_tokens(arch)
    end, after = Site("z" if arch.attention else "neurons", 0), Site("resid_post", 0)
    whole = model.run(tokens, keep=[end, after]).cache
    left = model.run(tokens, keep=end, edits=[scale(end, 2.0)], stop=end)
    assert left.maybe_logits is None
    assert torch.equal(left.cache[end], 2 * whole[end])
    with pytest.raises(UnknownSite, match=r"never reached L0\.resid_post"):
        model.run(tokens, keep=after, stop=end)
    with pytest.raises(UnknownSite, match=r"L7\.z"):
        model.run(tokens, stop=Site("z", 7))
    with pytest.raises(UnknownSite, match=f"never reached {end}"):
        model.run(tokens, start=Start(1, whole[after]), stop=end)


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (3, None), (2, 1), (None, 3), (None, -1)])
def test_layers_that_are_not_there_are_refused(start, stop):
    arch = A_FEW["normed"]
    residual = torch.zeros(BATCH, arch.n_ctx, arch.d_model)
    with pytest.raises(UserError, match="There are 2"):
        small_model(arch).run(some_tokens(arch), start=None if start is None else Start(start, residual), stop=stop)


@a_few
def test_logits_may_be_asked_for_at_chosen_positions(arch):
    """The same to rounding: a product over fewer rows may add in another order."""
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch)
    whole, cache = model.run(tokens, logits="all", keep="logits")
    assert not arch.attention or (whole[:, 0] - whole[:, -1]).abs().max() > 1e-3  # a wrong position is noticed
    for asked, chosen in [("last", [-1]), ([0], [0]), ([-1, 0], [-1, 0])]:
        torch.testing.assert_close(model.run(tokens, logits=asked).logits, whole[:, chosen], rtol=0, atol=1e-12)
    assert torch.equal(model.run(tokens, logits="last", keep="logits").cache["logits"], cache["logits"])


@pytest.mark.parametrize("arch", [arch for arch in A_FEW.values() if arch.attention])
def test_what_comes_later_is_not_seen_earlier(arch):
    model, tokens = small_model(arch), some_tokens(arch)
    other = tokens.clone()
    other[:, 2:] = (other[:, 2:] + 1) % arch.d_vocab
    before, after = model.run(tokens).logits, model.run(other).logits
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2:], after[:, 2:])


def test_without_attention_the_last_token_is_not_read():
    arch = A_FEW["mlp-only"]
    model, tokens = small_model(arch), some_tokens(arch)
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % arch.d_vocab
    assert torch.equal(model.run(tokens).logits, model.run(other).logits)


def test_attention_patterns_are_causal_and_sum_to_one():
    arch = A_FEW["modern"]
    cache = small_model(arch).run(some_tokens(arch), keep=["L*.pattern", "L*.scores"]).cache
    for layer in range(arch.n_layers):
        pattern, scores = cache[f"L{layer}.pattern"], cache[f"L{layer}.scores"]
        torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
        assert (pattern.triu(1) == 0).all()
        assert (scores.masked_select(torch.ones_like(scores, dtype=torch.bool).triu(1)) == -torch.inf).all()


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_the_scale_of_a_norm_is_what_it_divides_by(norm):
    arch = Architecture(d_vocab=7, d_vocab_out=7, n_ctx=3, d_model=8, n_heads=2, d_head=4, d_mlp=8, norm=norm)
    model = small_model(arch, dtype=torch.float64)
    cache = model.run(some_tokens(arch), keep=["L0.resid_mid", "L0.mlp_norm_scale", "L0.mlp_norm"]).cache
    x = cache["L0.resid_mid"]
    spread = x.var(-1, correction=0) if norm == "layernorm" else x.square().mean(-1)
    torch.testing.assert_close(cache["L0.mlp_norm_scale"][..., 0], (spread + 1e-5).sqrt())
    w, b = model.state["blocks.0.ln2.w"], model.state.get("blocks.0.ln2.b")
    layer = torch.nn.functional
    expected = layer.layer_norm(x, (8,), w, b) if norm == "layernorm" else layer.rms_norm(x, (8,), w, 1e-5)
    torch.testing.assert_close(cache["L0.mlp_norm"], expected)


def test_rotation_keeps_lengths_and_makes_scores_depend_on_distance_alone():
    q, k = torch.randn(2, 1, 1, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, k = rotate(q.expand(1, 9, 2, 6)), rotate(k.expand(1, 9, 2, 6))
    torch.testing.assert_close(q.norm(dim=-1), q[:, :1].norm(dim=-1).expand(1, 9, 2))
    scores = torch.einsum("bqhe,bkhe->bhqk", q, k)
    for distance in range(9):
        along = scores.diagonal(-distance, -2, -1)
        torch.testing.assert_close(along, along[..., :1].expand_as(along))
    assert scores[..., 8, 0].sub(scores[..., 0, 0]).abs().min() > 1e-3


def test_a_spliced_dictionary_reconstructs_and_its_parts_are_kept_and_edited():
    arch = A_FEW["normed"]
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch)
    bare = model.run(tokens).logits
    spliced = splice("L0.resid_post", Halves(), "toy")
    parts = ["L0.resid_post[toy].latents", "L0.resid_post[toy].error"]
    logits, cache = model.run(tokens, keep=[*parts, "L0.resid_post"], edits=[spliced])
    torch.testing.assert_close(logits, bare)
    assert cache[parts[0]].shape == (BATCH, arch.n_ctx, arch.d_model // 2)
    torch.testing.assert_close(Halves().decode(cache[parts[0]]) + cache[parts[1]], cache["L0.resid_post"])
    edited = model.run(tokens, edits=[spliced, zero(parts[0], unit=[0, 3])]).logits
    expected = model.run(tokens, edits=[zero("L0.resid_post", unit=[0, 3])]).logits
    torch.testing.assert_close(edited, expected)
    with pytest.raises(UnknownSite, match=r"never reached L0\.resid_post\[toy\]\.latents"):
        model.run(tokens, keep=parts[0])


def published_draws(seed: int, *, p: int, d: int, heads: int, d_head: int, d_mlp: int) -> dict[str, Tensor]:
    """The draws of the code published with Nanda et al. (2023), in its order and its (out, in) layout."""
    vocab = p + 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {
            "W_E": torch.randn(d, vocab) / math.sqrt(d),
            "W_pos": torch.randn(3, d) / math.sqrt(d),
            "W_K": torch.randn(heads, d_head, d) / math.sqrt(d),
            "W_Q": torch.randn(heads, d_head, d) / math.sqrt(d),
            "W_V": torch.randn(heads, d_head, d) / math.sqrt(d),
            "W_O": torch.randn(d, d_head * heads) / math.sqrt(d),
            "W_in": torch.randn(d_mlp, d) / math.sqrt(d),
            "W_out": torch.randn(d, d_mlp) / math.sqrt(d),
            "W_U": torch.randn(d, vocab) / math.sqrt(vocab),
        }


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize(
    "sizes",
    [
        {"p": 113, "d": 128, "heads": 4, "d_head": 32, "d_mlp": 512},
        {"p": 7, "d": 6, "heads": 3, "d_head": 5, "d_mlp": 9},
    ],
    ids=["mainline", "odd"],
)
def test_the_weights_are_those_of_the_published_draws(seed, sizes):
    p, d, heads, d_head, d_mlp = sizes.values()
    arch = Architecture(d_vocab=p + 1, d_vocab_out=p + 1, n_ctx=3, d_model=d, n_heads=heads, d_head=d_head, d_mlp=d_mlp)
    ours = init_weights(arch, torch.Generator().manual_seed(seed))
    theirs = published_draws(seed, **sizes)
    assert torch.equal(ours["embed.W_E"], theirs["W_E"].T)
    assert torch.equal(ours["pos_embed.W_pos"], theirs["W_pos"])
    for name in ("W_K", "W_Q", "W_V"):
        assert torch.equal(ours[f"blocks.0.attn.{name}"], theirs[name].transpose(1, 2))
    for head in range(heads):
        here = slice(head * d_head, (head + 1) * d_head)
        assert torch.equal(ours["blocks.0.attn.W_O"][head], theirs["W_O"][:, here].T)
    assert torch.equal(ours["blocks.0.mlp.W_in"], theirs["W_in"].T)
    assert torch.equal(ours["blocks.0.mlp.W_out"], theirs["W_out"].T)
    assert torch.equal(ours["unembed.W_U"], theirs["W_U"])
    assert not ours["blocks.0.mlp.b_in"].any()
    assert not ours["blocks.0.mlp.b_out"].any()
    if p == 113:
        assert sum(weight.numel() for weight in ours.values()) == 226_816


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("arch", GRID.values(), ids=GRID)
def test_fresh_weights_fit_their_architecture_and_gains_start_at_one(arch):
    weights = init_weights(arch, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == arch.weight_shapes()
    assert all(weight.dtype == torch.float64 and weight.is_contiguous() for weight in weights.values())
    gains = [weight for name, weight in weights.items() if name.endswith(".w")]
    assert all((gain == 1).all() for gain in gains)
    assert bool(gains) is (arch.norm != "none")


def test_scaled_draws_scale_all_but_biases_and_gains():
    arch = A_FEW["normed"]
    one, two = (init_weights(arch, torch.Generator().manual_seed(0), std_scale=scale) for scale in (1.0, 2.0))
    for name in one:
        factor = 1 if name.rpartition(".")[2][0] in "wb" else 2
        torch.testing.assert_close(two[name], factor * one[name])


@a_few
def test_weights_are_views_under_the_names_that_all_families_share(arch):
    model = small_model(arch)
    views, state = model.weights, model.state
    assert views.W_E is state["embed.W_E"]
    assert views.W_U.shape == (arch.d_model, arch.d_vocab_out)
    assert views.W_U.data_ptr() == (state["embed.W_E"] if arch.tied else state["unembed.W_U"]).data_ptr()
    assert (views.W_pos is None) is not (arch.attention and arch.positions == "learned")
    last = arch.n_layers - 1
    if arch.attention:
        assert views.W_Q[last, 1].data_ptr() == state[f"blocks.{last}.attn.W_Q"][1].data_ptr()
        assert views.W_O[last].shape == (arch.n_heads, arch.d_head, arch.d_model)
    if arch.mlp:
        assert views.W_out[last] is state[f"blocks.{last}.mlp.W_out"]


def test_weights_that_do_not_fit_are_refused_by_name():
    arch = A_FEW["plain"]
    weights = dict(small_model(arch).state)
    for broken in (
        {**weights, "embed.W_E": weights["embed.W_E"].T},
        {name: weight for name, weight in weights.items() if name != "embed.W_E"},
        {**weights, "embed.W_E2": weights["embed.W_E"]},
    ):
        with pytest.raises(BadShape, match=r"embed\.W_E") as caught:
            Transformer(arch, broken)
        assert "unembed" not in str(caught.value)


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        (torch.zeros(2, 5, dtype=torch.long), "4 tokens at most. Found 5"),
        (torch.full((2, 4), 7), r"0\.\.6. Found 7"),
        (torch.full((2, 4), -1), r"0\.\.6. Found -1"),
    ],
)
def test_tokens_that_the_model_cannot_read_are_refused(tokens, error):
    with pytest.raises(UserError, match=error):
        small_model(A_FEW["plain"]).run(tokens)


def test_without_attention_all_tokens_are_needed():
    with pytest.raises(UserError, match=r"reads 4\. Found 3"):
        small_model(A_FEW["mlp-only"]).run(torch.zeros(2, 3, dtype=torch.long))


def test_shorter_inputs_are_read_where_there_is_attention():
    arch = A_FEW["modern"]
    model, tokens = small_model(arch), some_tokens(arch)
    torch.testing.assert_close(model.run(tokens[:, :2]).logits, model.run(tokens).logits[:, :2])


def test_an_edit_that_does_not_fit_names_the_site():
    model, tokens = small_model(A_FEW["plain"]), some_tokens(A_FEW["plain"])
    with pytest.raises(BadEdit, match=r"put at L0\.z gives shape \(3,\)"):
        model.run(tokens, edits=[put("L0.z", torch.zeros(3))])


@pytest.mark.parametrize(
    "choices",
    [{"attention": False, "mlp": False}, {"positions": "rotary", "d_head": 3}, {"tied": True, "d_vocab_out": 8}],
)
def test_an_architecture_that_makes_no_sense_is_refused(choices):
    with pytest.raises(BadConfig):
        Architecture(**{**{"d_vocab": 7, "d_vocab_out": 7, "n_ctx": 3}, **choices})


def past_of(cache: Cache, arch: Architecture, offset: int) -> dict[int, KeysValues]:
    keys = "rot_k" if arch.positions == "rotary" else "k"
    return {
        i: KeysValues(cache[Site(keys, i)][:, :offset], cache[Site("v", i)][:, :offset]) for i in range(arch.n_layers)
    }


@pytest.mark.parametrize("name", ["plain-2", "normed", "modern", "attention-only"])
def test_a_run_may_begin_at_a_position_behind_cached_keys_and_values(name):
    arch = A_FEW[name]
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch)
    whole = model.run(tokens, keep=model.sites)
    for layer in range(arch.n_layers):
        for offset in (1, 3):
            residual = whole.cache[Site("resid_pre", layer)][:, offset:]
            start = Start(layer, residual, offset, past_of(whole.cache, arch, offset))
            part = model.run(tokens, start=start, keep=Site("pattern", layer))
            torch.testing.assert_close(part.logits, whole.logits[:, offset:])
            torch.testing.assert_close(
                part.cache[Site("pattern", layer)], whole.cache[Site("pattern", layer)][:, :, offset:]
            )


@a_few
def test_only_the_logits_asked_for_are_computed_and_they_are_the_same(arch):
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch)
    whole = model.run(tokens).logits
    chosen = torch.stack([tokens[:, 0] % arch.d_vocab_out, tokens[:, 1] % arch.d_vocab_out], 1)
    for pos in (-1, 0):
        read = model.run(tokens, logits=Readout(chosen, pos)).logits
        torch.testing.assert_close(read[:, 0], whole[:, pos].gather(-1, chosen))
        kept = model.run(tokens, logits=Readout(chosen, pos), keep="logits")
        torch.testing.assert_close(kept.logits, read)
        assert torch.equal(kept.cache["logits"], whole)
    torch.testing.assert_close(model.run(tokens, logits="last").logits, whole[:, -1:])
    with pytest.raises(UserError, match="positions \\[9\\]"):
        model.run(tokens, logits=[9])


def test_unembedding_the_last_residual_gives_the_logits():
    model, tokens = small_model(A_FEW["biased"]), some_tokens(A_FEW["biased"])
    out = model.run(tokens, keep="L0.resid_post")
    torch.testing.assert_close(model.unembed(out.cache["L0.resid_post"]), out.logits)


@pytest.mark.parametrize("name", ["plain", "normed", "biased", "modern"])
def test_the_final_readout_and_the_norms_scale_give_a_logit(name):
    arch = A_FEW[name]
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch)
    keep = [Site("resid_post", arch.n_layers - 1), *([Site("final_norm_scale")] if arch.norm != "none" else [])]
    out = model.run(tokens, keep=keep)
    direction = model.weights.W_U[:, 2]
    scale = out.cache["final_norm_scale"] if arch.norm != "none" else torch.ones(1).double()
    constant = 0 if model.weights.final_norm_b is None else model.weights.final_norm_b @ direction
    bias = model.weights.b_U[2] if arch.unembed_bias else 0
    direct = (out.cache[keep[0]] / scale) @ model.weights.final_readout(direction) + constant + bias
    torch.testing.assert_close(direct, out.logits[..., 2])


def test_padding_is_refused():
    tokens = some_tokens(A_FEW["plain"])
    with pytest.raises(UserError, match="no padding"):
        small_model(A_FEW["plain"]).run(Batch(tokens, tokens >= 0))


def test_a_tokenizer_makes_text_runnable():
    arch = A_FEW["plain"]
    model = Transformer(arch, small_model(arch).state, Vocabulary(tuple("abcdefg"), bos=0))
    assert model.to_tokens("b c d").tolist() == [[0, 1, 2, 3]]
    assert model.to_str_tokens([2, 1]) == ["c", "b"]
    assert model.single_token(" g") == 6
    assert model.run(model.to_tokens("b c d")).logits.shape == (1, 4, arch.d_vocab_out)


def test_a_model_shows_itself_in_a_line():
    assert repr(small_model(A_FEW["plain-2"])).startswith("Transformer(2 layers of 3 heads, d_model 10, 12 neurons")


def test_a_text_where_an_edit_belongs_is_refused(unchecked):
    with pytest.raises(BadEdit, match="Make one"):
        small_model(A_FEW["plain"]).run(some_tokens(A_FEW["plain"]), edits=["L0.z"])
