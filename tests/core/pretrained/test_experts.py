"""Layers with experts: what their Sites mean, which experts an edit chooses, and what is refused."""

import pytest
import torch
import zoo

from micrographia.core.edits import apply, put, scale
from micrographia.core.errors import BadEdit, UnknownModel, UserError
from micrographia.core.pretrained import Pretrained
from micrographia.methods.lens import direct_logit_attribution

mixtures = pytest.mark.parametrize("name", zoo.MIXTURES)


@mixtures
def test_the_experts_parts_add_up_to_the_mlp_output_but_for_a_shared_expert(name):
    model, ids = zoo.model(name), zoo.tokens()
    kept = model.run(ids, keep=["L2.expert_out", "L2.router_probs", "L2.mlp_norm", "L2.mlp_out"]).cache
    whole = kept["L2.expert_out"].sum(2)
    if name == "qwen2_moe":
        block = model.body.find("mlp", 2)
        x = kept["L2.mlp_norm"]
        with torch.no_grad():
            whole = whole + torch.sigmoid(block.shared_expert_gate(x)) * block.shared_expert(x)
    torch.testing.assert_close(whole, kept["L2.mlp_out"], rtol=1e-5, atol=1e-6)
    chosen = kept["L2.router_probs"] != 0
    assert torch.equal(chosen.sum(-1), torch.full((2, zoo.LENGTH), 2))
    assert torch.equal(kept["L2.expert_out"].abs().sum(-1) != 0, chosen)


@mixtures
def test_logits_that_favour_other_experts_have_those_run(name):
    model, ids = zoo.model(name), zoo.tokens()
    swapped = apply("L2.router_logits", lambda logits: -logits)
    before = model.run(ids, keep=["L2.router_probs", "L2.router_logits"]).cache
    after = model.run(ids, keep=["L2.router_probs", "L2.mlp_out"], edits=[swapped]).cache
    wanted = before["L2.router_logits"].topk(2, largest=False).indices.sort(-1).values
    assert torch.equal((after["L2.router_probs"] != 0).nonzero()[:, 2].view(2, zoo.LENGTH, 2), wanted)


def test_an_expert_that_was_not_chosen_is_run_where_an_edit_gives_it_weight():
    model, ids = zoo.model("mixtral"), zoo.tokens()
    only = torch.zeros(2, zoo.LENGTH, 4)
    only[..., 3] = 1
    put_all = put("L2.router_probs", only)
    kept = model.run(ids, keep=["L2.mlp_out", "L2.mlp_norm", "L2.expert_out"], edits=[put_all]).cache
    experts = model.body.find("mlp.experts", 2)
    gate, up = (kept["L2.mlp_norm"] @ experts.gate_up_proj[3].detach().T).chunk(2, -1)
    wanted = torch.nn.functional.silu(gate) * up @ experts.down_proj[3].detach().T
    torch.testing.assert_close(kept["L2.mlp_out"], wanted, rtol=1e-5, atol=1e-6)
    assert not kept["L2.expert_out"][..., :3, :].any()
    with pytest.raises(BadEdit, match="more than the 2 experts"):
        model.run(ids, edits=[put("L2.router_probs", 0.25)])


@mixtures
def test_an_experts_part_can_be_taken_away(name):
    model, ids = zoo.model(name, dtype=zoo.widest(name)), zoo.tokens()
    clean = model.run(ids, keep=["L2.expert_out", "L2.mlp_out"]).cache
    without = model.run(ids, keep=["L2.mlp_out"], edits=[scale("L2.expert_out", 0.0, expert=1)]).cache
    wanted = clean["L2.mlp_out"] - clean["L2.expert_out"][:, :, 1]
    torch.testing.assert_close(without["L2.mlp_out"], wanted, rtol=1e-5, atol=1e-6)
    assert clean["L2.expert_out"][:, :, 1].any()


def test_a_row_with_the_wrong_experts_is_found(monkeypatch):
    from dataclasses import replace

    from micrographia.core.pretrained import families

    wrong = replace(families.FAMILIES["mixtral"], mlp="post_attention_layernorm")
    monkeypatch.setattr(families, "FAMILIES", {"mixtral": wrong})
    with pytest.raises(UnknownModel, match="row"):
        Pretrained(zoo.fresh("mixtral")).run(zoo.tokens(), keep="L1.expert_out")


def test_float64_under_the_grouped_kernel_is_refused_with_the_way_out():
    module = zoo.fresh("mixtral-grouped", dtype=torch.float64)
    with pytest.raises(UserError, match="set_experts_implementation"):
        Pretrained(module).run(zoo.tokens())
    module.set_experts_implementation("eager")
    assert torch.equal(Pretrained(module).run(zoo.tokens()).logits, zoo.logits_of(module, zoo.tokens()))


def test_a_sink_takes_its_share_of_a_pattern():
    model, ids = zoo.model("gpt_oss"), zoo.tokens()
    pattern = model.run(ids, keep="L2.pattern").cache["L2.pattern"]
    assert bool((pattern.sum(-1) < 0.999).all())


@mixtures
def test_what_a_mixture_writes_is_one_part_of_the_logit(name):
    model, ids = zoo.model(name, dtype=zoo.widest(name)), zoo.tokens()
    right, wrong = torch.tensor([5, 6]), torch.tensor([7, 8])
    found = direct_logit_attribution(model, ids, right, wrong)
    logits, rows = model.run(ids).logits[:, -1], torch.arange(2)
    torch.testing.assert_close(found.total, logits[rows, right] - logits[rows, wrong], rtol=1e-4, atol=1e-4)
    assert "L2.mlp_out" in found.labels
    assert "L2.b_out" not in found.labels
