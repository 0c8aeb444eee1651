"""Every method treats a set of answers as the mean of their logits: what is linear in the metric averages too."""

import pytest
import torch

from micrographia.core.graph import Node
from micrographia.core.metrics import log_prob, logit_difference, prob
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.edges import edge_attribution
from micrographia.methods.lens import by_source, direct_logit_attribution, read_stream
from micrographia.methods.patching import patch_sites
from micrographia.methods.tracing import trace
from small import A_FEW, small_model, some_tokens

RIGHT, WRONG = torch.tensor([[0, 1, 2], [4, 5, -1]]), torch.tensor([[3, 4], [2, -1]])
EACH = [(0, a, b) for a in (0, 1, 2) for b in (3, 4)], [(1, a, 2) for a in (4, 5)]
SITES = ["L*.z", "L*.mlp_out"]


@pytest.fixture(scope="module")
def model():
    return small_model(A_FEW["normed"], dtype=torch.float64)


@pytest.fixture(scope="module")
def pairs():
    clean, corrupt = (some_tokens(A_FEW["normed"], batch=2, seed=seed) for seed in (1, 2))
    return Pairs(clean, corrupt, RIGHT, WRONG)


def averaged(scored, pairs):
    """The mean over all combinations of a right and a wrong answer, prompt by prompt."""
    rows = []
    for combinations in EACH:
        found = []
        for i, right, wrong in combinations:
            one = Pairs(pairs.clean[i : i + 1], pairs.corrupt[i : i + 1], torch.tensor([right]), torch.tensor([wrong]))
            found.append(scored(one, logit_difference(one.answer, one.wrong)))
        rows.append(torch.stack(found).mean(0))
    return torch.cat(rows)


METHODS = {
    "patching": lambda model: lambda pairs, metric: _of(patch_sites(model, pairs, SITES, [metric], by=["pos"])[0]),
    "edges": lambda model: lambda pairs, metric: edge_attribution(model, pairs, metric).values,
    "edges by ig": lambda model: lambda pairs, metric: edge_attribution(model, pairs, metric, method="eap-ig").values,
    **{
        name: lambda model, name=name: lambda pairs, metric: _of(attribute(model, pairs, metric, SITES, method=name))
        for name in ("atp", "atp-qk", "ig", "relp")
    },
}


def _of(effects):
    return torch.cat([score.flatten(1) for score in effects.scores.values()], 1)


@pytest.mark.parametrize("name", METHODS)
def test_an_effect_on_a_set_is_the_mean_of_the_effects_on_its_answers(name, model, pairs):
    scored = METHODS[name](model)
    found = scored(pairs, logit_difference(pairs.answer, pairs.wrong))
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found, averaged(scored, pairs), rtol=1e-6, atol=1e-8)


def test_direct_effects_on_a_set_add_up_to_its_mean_logit_difference(model, pairs):
    direct = direct_logit_attribution(model, pairs.clean, RIGHT, WRONG)
    whole = logit_difference(RIGHT, WRONG).of(model, pairs.clean)
    torch.testing.assert_close(direct.total, whole, rtol=1e-8, atol=1e-10)
    node = Node(Site("z", 1), 2)
    sources = by_source(model, pairs.clean, [node], RIGHT, WRONG)
    part = direct.values[:, direct.labels.index(str(node))]
    torch.testing.assert_close(sources[:, 0].sum(-1), part, rtol=1e-8, atol=1e-10)


def test_a_stream_is_read_for_a_set(model, pairs, monkeypatch):
    monkeypatch.setattr("micrographia.methods.lens.reading.to_str_tokens", lambda _, ids: [f"t{i}" for i in ids])
    ids, sets = pairs.clean[:1], ([0, 1, 2], [3, 4])
    read, logits = read_stream(model, ids, sets), model.run(ids).logits[0, -1]
    assert (read.answers, read.label) == (["t0|t1|t2", "t3|t4"], "mean logit of 't0|t1|t2' less 't3|t4'")
    assert read.logits.item() == pytest.approx((logits[[0, 1, 2]].mean() - logits[[3, 4]].mean()).item())
    assert read.direct.total.item() == pytest.approx(read.logits.item())
    assert read.probs.item() == pytest.approx(logits.softmax(0)[[0, 1, 2]].sum().item())
    last = read.predictions()[-1]["clean"]
    assert last["logit"] == pytest.approx(read.logits.item())
    assert last["prob"] == pytest.approx(read.probs.item())
    assert last["rank"] == int((logits > logits[[0, 1, 2]].max()).sum())


def test_a_trace_follows_the_probability_of_a_set_together(model, pairs):
    ids, tokens = pairs.clean[:1], (0, 2)
    found = [trace(model, ids, [1], torch.Generator().manual_seed(0), answer=each) for each in (tokens, *tokens)]
    assert [each.answer for each in found] == [(0, 2), 0, 2]
    torch.testing.assert_close(found[0].samples, found[1].samples + found[2].samples, rtol=1e-9, atol=1e-12)
    together = prob(torch.tensor([tokens])).of(model, ids)
    assert found[0].high == pytest.approx(together.item())
    assert log_prob(torch.tensor([tokens])).of(model, ids).exp().item() == pytest.approx(together.item())
