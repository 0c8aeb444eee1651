"""What is kept, what an edit does and what gradients are, against every family written out plainly."""

from functools import cache

import plain
import pytest
import torch
import zoo
from torch import Tensor

from micrographia.core.edits import apply, leaf, observe
from micrographia.core.sites import Site

pytestmark = pytest.mark.usefixtures("unchecked")  # the same calls are checked in the other files
families = pytest.mark.parametrize("name", zoo.NAMES)
LAYER = 1
LOWEST = torch.finfo(torch.float32).min


@cache
def textbook(name: str) -> dict[Site, Tensor]:
    """Every Site's value and the logits, in float64."""
    found: dict[Site, Tensor] = {}

    def meet(kind: str, layer: int | None, value: Tensor) -> Tensor:
        found[Site(kind, layer)] = value
        return value

    plain.forward(zoo.model(name, dtype=zoo.widest(name)), zoo.tokens(), meet)
    return found


@cache
def textbook_gradients(name: str) -> dict[Site, Tensor]:
    """The gradient of the metric at every Site, all from one pass."""
    met: dict[Site, Tensor] = {}

    def meet(kind: str, layer: int | None, value: Tensor) -> Tensor:
        own = value.clone() if value.requires_grad else value.clone().requires_grad_()
        met[Site(kind, layer)] = own  # a tensor of this Site alone: L0.resid_post goes on as L1.resid_pre
        return own

    metric = _metric(plain.forward(zoo.model(name, dtype=zoo.widest(name)), zoo.tokens(), meet))
    return dict(zip(met, torch.autograd.grad(metric, list(met.values()))))


def close(found: Tensor, wanted: Tensor, tolerance: float = 2e-5) -> None:
    """Norms and softmaxes of most families are taken in float32, whatever the model's dtype."""
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@families
def test_every_kept_value_is_what_the_family_computes(name):
    model = zoo.model(name, dtype=zoo.widest(name))
    kept = model.run(zoo.tokens(), keep=model.sites).cache
    assert set(kept) == set(textbook(name))
    for site, value in textbook(name).items():
        close(kept[site], value)


@pytest.mark.parametrize(("name", "how"), [pair for pair in zoo.EVERY if pair[1] == "sdpa"])
def test_sdpa_keeps_what_eager_keeps(name, how):
    ids = zoo.tokens()
    eager, sdpa = (zoo.model(name, way).run(ids, keep=zoo.model(name, way).sites).cache for way in ("eager", "sdpa"))
    for site in eager:
        close(sdpa[site], eager[site], 1e-4)


@pytest.mark.parametrize("name", [name for name in zoo.NAMES if name != "gpt_neo"])
def test_kept_values_are_the_modules_own_where_it_gives_them(name):
    module, ids = zoo.fresh(name), zoo.tokens()
    kept = zoo.model(name).run(ids, keep=["L*.resid_pre", "L*.pattern"]).cache
    with torch.no_grad():
        own = module(input_ids=ids, output_hidden_states=True, output_attentions=True)
    for i in range(3):
        assert torch.equal(kept[f"L{i}.resid_pre"], own.hidden_states[i])
        assert torch.equal(kept[f"L{i}.pattern"], own.attentions[i])


@families
def test_an_edit_does_what_the_same_change_does_in_the_plain_computation(name):
    model, ids = zoo.model(name, dtype=zoo.widest(name)), zoo.tokens()
    for site, value in textbook(name).items():
        if site.layer not in (None, LAYER):
            continue
        change = _change(site, value)
        edited = model.run(ids, edits=[apply(site, change)]).logits
        wanted = plain.forward(model, ids, lambda k, i, v, s=site, c=change: c(v) if Site(k, i) == s else v)
        close(edited, wanted, 1e-4)
        assert not torch.equal(edited, textbook(name)[Site("logits")])


def _change(site: Site, value: Tensor):
    """Another value of about the same size, at two positions; masked pairs stay masked."""
    drawn = 1 + 0.3 * torch.rand(value.shape, generator=torch.Generator().manual_seed(3), dtype=value.dtype)
    drawn[:, 2:-2] = 1
    return lambda old: torch.where(old <= LOWEST, old, old * drawn)


@families
def test_gradients_at_every_site_are_those_of_the_plain_computation(name):
    model, ids = zoo.model(name, dtype=zoo.widest(name)), zoo.tokens()
    sites = [site for site in model.sites if site.layer in (None, LAYER)]
    for site in sites:
        box: list[Tensor] = []
        logits = model.run(ids, edits=[leaf(site, box.append)], grad=True).logits
        (gradient,) = torch.autograd.grad(_metric(logits), box)
        close(gradient, textbook_gradients(name)[site], 2e-4)


def _metric(logits: Tensor) -> Tensor:
    return (logits[:, -1, 5] - logits[:, -1, 6] + logits[:, -2, 7]).sum()


@families
def test_an_observed_value_has_the_gradient_of_a_leaf_there(name):
    model, ids = zoo.model(name, dtype=zoo.widest(name)), zoo.tokens()
    sites = [site for site in model.sites if site.layer == LAYER or site.kind.startswith("final")]
    live: dict[Site, Tensor] = {}
    watch = [observe(site, lambda value, s=site: live.__setitem__(s, value)) for site in sites]
    logits = model.run(ids, edits=[leaf("embed"), *watch], grad=True).logits
    together = torch.autograd.grad(_metric(logits), [live[site] for site in sites])
    for site, gradient in zip(sites, together):
        close(gradient, textbook_gradients(name)[site], 2e-4)


@families
def test_kept_values_of_a_run_with_gradients_are_on_its_path(name):
    model, ids = zoo.model(name), zoo.tokens()
    run = model.run(ids, keep=["L1.q", "L1.pattern", "L1.resid_post"], edits=[leaf("embed")], grad=True)
    gradients = torch.autograd.grad(_metric(run.logits), [run.cache[site] for site in run.cache])
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients)


@pytest.mark.parametrize(
    "site", ["L1.attn_norm_scale", "L1.resid_mid", "L1.result", "L1.pattern", "L1.scores", "L1.q", "final_norm_scale"]
)
def test_gradients_are_finite_differences(site):
    """GPT-2 computes all in float64, so that differences resolve 1e-6."""
    model, ids = zoo.model("gpt2", dtype=torch.float64), zoo.tokens()
    value = model.run(ids, keep=site).cache[site]
    step = torch.rand(value.shape, generator=torch.Generator().manual_seed(4), dtype=value.dtype) * (value > LOWEST)
    box: list[Tensor] = []
    logits = model.run(ids, edits=[leaf(site, box.append)], grad=True).logits
    (gradient,) = torch.autograd.grad(_metric(logits), box)
    up, down = (
        _metric(model.run(ids, edits=[apply(site, lambda old, s=sign: old + s * 1e-5 * step)]).logits)
        for sign in (1, -1)
    )
    torch.testing.assert_close((gradient * step).sum(), (up - down) / 2e-5, rtol=1e-6, atol=1e-7)
