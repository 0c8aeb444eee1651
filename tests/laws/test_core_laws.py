"""Laws of the core, over anything that its grammar allows."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from micrographia.core.edits import apply, put, zero
from micrographia.core.losses import cross_entropy, stable_cross_entropy
from micrographia.core.model import Start
from micrographia.core.sites import AXES, LAYERLESS, PARTS, Site, as_site, select
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.ensemble import PlainObjective
from micrographia.core.small.last_position import LastPosition
from micrographia.core.small.weights import init_weights
from micrographia.core.training import Layout
from small import architectures, roughened, small_model, some_tokens

NAMES = st.from_regex(r"[A-Za-z0-9_]{1,12}", fullmatch=True)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    kind = draw(st.sampled_from(sorted(AXES)))
    layer = None if kind in LAYERLESS else draw(st.integers(0, 120))
    part = draw(st.sampled_from(["", *PARTS]))
    return Site(kind, layer, draw(NAMES) if part else "", part)


@given(sites())
def test_a_site_survives_print_and_parse(site):
    assert Site.parse(str(site)) == as_site(str(site)) == site


@given(st.lists(sites(), unique=True), st.lists(st.integers(0, 10)))
def test_a_selection_by_names_gives_them_once_each_in_the_order_asked(here, picks):
    wanted = [here[i % len(here)] for i in picks] if here else []
    found = select(here, map(str, wanted))
    assert found == tuple(dict.fromkeys(wanted))


@st.composite
def places(draw: st.DrawFn, length: int) -> int | slice | list[int] | None:
    """A choice along one axis."""
    index = st.integers(-length, length - 1)
    ends = st.one_of(st.none(), index)
    lists = st.lists(st.integers(0, length - 1), min_size=1, max_size=length, unique=True)
    return draw(st.one_of(st.none(), index, st.builds(slice, ends, ends), lists))


def chosen(place: int | slice | list[int] | None, length: int) -> list[int]:
    everywhere = list(range(length))
    if isinstance(place, int):
        return [everywhere[place]]
    return [everywhere[i] for i in place] if isinstance(place, list) else everywhere[place or slice(None)]


@given(st.data())
@settings(max_examples=100)
def test_an_edit_changes_its_region_and_nothing_else(data):
    shape = {"batch": 3, "pos": 4, "head": 2, "unit": 5}
    where = {axis: data.draw(places(length), label=axis) for axis, length in shape.items()}
    value = torch.arange(1.0, 121.0).reshape(*shape.values())
    grid = torch.meshgrid(
        *(torch.tensor(chosen(where[axis], n), dtype=torch.long) for axis, n in shape.items()), indexing="ij"
    )
    expected = value.clone()
    expected[grid] = 0.0
    assert torch.equal(zero("L0.z", **where)(value), expected)
    inside = value[grid]
    kept = [n for n, place in zip(inside.shape, where.values()) if not isinstance(place, int)]
    assert torch.equal(put("L0.z", -inside.reshape(kept), **where)(value)[grid], -inside)
    assert torch.equal(value, torch.arange(1.0, 121.0).reshape(*shape.values()))


@given(architectures(), st.integers(0, 2**20), st.data())
def test_keeping_and_editing_without_change_alter_no_bit(arch, seed, data):
    model, tokens = small_model(arch, seed=seed), some_tokens(arch, batch=3, seed=seed)
    bare = model.run(tokens).logits
    site = data.draw(st.sampled_from([site for site in model.sites if site.kind != "result"]))
    logits, cache = model.run(tokens, keep=model.sites)
    again = model.run(tokens, keep=site, edits=[apply(site, lambda x: x)])
    assert torch.equal(logits, bare)
    assert torch.equal(again.logits, bare)
    assert torch.equal(again.cache[site], cache[site])


@given(architectures(), st.integers(0, 2**20), st.data())
def test_a_run_may_be_cut_at_any_layer(arch, seed, data):
    model, tokens = small_model(arch, seed=seed), some_tokens(arch, batch=3, seed=seed)
    layer = data.draw(st.integers(0, arch.n_layers - 1))
    site = Site("resid_post", layer)
    residual = model.run(tokens, keep=site, stop=layer + 1).cache[site]
    assert torch.equal(model.run(tokens, start=Start(layer + 1, residual)).logits, model.run(tokens).logits)


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """To `tolerance` of the largest entry of each member."""
    largest = expected.abs().amax(-1, keepdim=True).clamp_min(1e-30)
    assert ((found - expected).abs() / largest).max().item() <= tolerance


COVERED = {"n_layers": 1, "norm": "none", "positions": "learned", "attention": True, "mlp": True, "unembed_bias": False}
fast_architectures = st.sampled_from(["relu", "gelu"]).flatmap(lambda act: architectures(act=act, **COVERED))


@given(fast_architectures, st.integers(1, 3), st.booleans(), st.integers(1, 30), st.integers(0, 2**20))
@settings(max_examples=60)
def test_the_fast_plan_agrees_with_the_plain_one(arch, members, own_data, rows, seed):
    tokens, labels = asked(arch, data=members if own_data else 1, rows=rows, seed=seed)
    layout = Layout(arch.weight_shapes())
    drawn = [init_weights(arch, Generator().manual_seed(seed + k), dtype=torch.float64) for k in range(members)]
    weights = layout.pack([roughened(member, seed + k) for k, member in enumerate(drawn)])
    plain = PlainObjective(arch, tokens, labels)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        fast = LastPosition(arch, tokens, labels, members=members, dtype=dtype)
        found, expected = fast(weights.to(dtype)), plain(weights.to(dtype))
        torch.testing.assert_close(found.loss, expected.loss, rtol=tolerance, atol=0)
        close(found.gradient, expected.gradient, tolerance)
        (fast_loss, fast_accuracy), (plain_loss, plain_accuracy) = (
            p.evaluate(weights.to(dtype)) for p in (fast, plain)
        )
        torch.testing.assert_close(fast_loss, plain_loss, rtol=tolerance, atol=0)
        torch.testing.assert_close(fast_loss, found.loss, rtol=tolerance, atol=0)
        assert fast_accuracy == plain_accuracy


def asked(arch: Architecture, *, data: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Any rows that end in one token, and any labels."""
    generator = Generator().manual_seed(seed)
    tokens = torch.randint(0, arch.d_vocab, (data, rows, arch.n_ctx), generator=generator)
    tokens[..., -1] = int(torch.randint(0, arch.d_vocab, (), generator=generator))
    return tokens, torch.randint(0, arch.d_vocab_out, (data, rows), generator=generator)


def test_the_comparison_of_gradients_can_fail():
    expected = torch.tensor([[1.0, 0.0], [1e-3, 1e-3]])
    close(expected + torch.tensor([[0.0, 1e-6], [1e-9, 0.0]]), expected, 1e-5)
    for wrong in ([[0.0, 1e-4], [0.0, 0.0]], [[0.0, 0.0], [1e-7, 0.0]]):
        try:
            close(expected + torch.tensor(wrong), expected, 1e-5)
        except AssertionError:
            continue
        raise AssertionError("a wrong gradient passed")


@given(st.integers(2, 40), st.floats(-80, 30), st.floats(0, 5), st.integers(0, 2**20))
@settings(max_examples=100)
def test_the_stable_loss_is_the_float64_loss(vocab, margin, spread, seed):
    generator = Generator().manual_seed(seed)
    labels = torch.randint(0, vocab, (20,), generator=generator)
    logits = spread * torch.randn(20, vocab, generator=generator)
    logits = logits.scatter_add(1, labels[:, None], torch.full((20, 1), margin))
    own = logits.double().gather(1, labels[:, None])
    others = (logits.double() - own).exp().scatter(1, labels[:, None], 0.0)
    exact = others.sum(1).log1p()  # a float64 log-softmax has lost the digits of the smallest losses
    loss, gradient = stable_cross_entropy(logits, labels)
    widest = (logits - logits.amax(1, keepdim=True)).abs().amax().item()
    tolerance = 2.0**-24 * (widest + 4)  # an exp's relative error is its argument's rounding, and a few more
    torch.testing.assert_close(loss.double(), exact, rtol=tolerance, atol=0)
    torch.testing.assert_close(loss.double(), cross_entropy(logits, labels), rtol=1e-3, atol=1e-14)
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient.sum(1), torch.zeros(20), rtol=0, atol=1e-6)
