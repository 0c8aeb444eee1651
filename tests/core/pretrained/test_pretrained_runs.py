"""Parts of runs, padded prompts, generation; and that a run leaves nothing behind."""

import pytest
import torch
import zoo
from torch import nn

from micrographia.core.edits import add, apply, put, scale, zero
from micrographia.core.errors import BadEdit, BadShape, UnknownSite, UserError
from micrographia.core.events import Note
from micrographia.core.model import KeysValues, Readout, Start
from micrographia.core.pretrained import Pretrained
from micrographia.core.tokens import Batch

every = pytest.mark.parametrize(("name", "how"), zoo.EVERY)
decoders = pytest.mark.parametrize("name", zoo.DECODERS)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "how"), [pair for pair in zoo.EVERY if pair[0] in zoo.DECODERS])
def test_a_restart_behind_known_positions_gives_the_others_what_the_whole_run_gives(name, how):
    model, ids, offset = zoo.model(name, how), zoo.tokens(), 4
    keys = "rot_k" if model.body.family.rotary else "k"
    whole = model.run(ids, keep=["L*.resid_pre", f"L*.{keys}", "L*.v", "L*.pattern", "L2.z", "L2.k"])
    for layer in (0, 2):
        past = {
            i: KeysValues(whole.cache[f"L{i}.{keys}"][:, :offset], whole.cache[f"L{i}.v"][:, :offset])
            for i in range(layer, 3)
        }
        start = Start(layer, whole.cache[f"L{layer}.resid_pre"][:, offset:], offset, past)
        for _ in range(2):  # a cache that grew would be wrong the second time
            rest = model.run(ids, keep=["L2.z", "L2.k", "L2.pattern"], start=start)
            close(rest.logits, whole.logits[:, offset:])
        close(rest.cache["L2.z"], whole.cache["L2.z"][:, offset:])
        close(rest.cache["L2.k"], whole.cache["L2.k"][:, offset:])
        close(rest.cache["L2.pattern"], whole.cache["L2.pattern"][:, :, offset:])


@pytest.mark.parametrize("name", zoo.NAMES)
def test_the_logits_asked_for_are_those_of_all(name):
    model, ids = zoo.model(name), zoo.tokens()
    whole = model.run(ids).logits
    answers = torch.tensor([[5, 7, 5], [9, 3, 8]])
    assert model.run(ids, logits="last").logits.shape == (2, 1, zoo.VOCAB)
    close(model.run(ids, logits="last").logits, whole[:, -1:])
    close(model.run(ids, logits=[1, -2]).logits, whole[:, [1, -2]])
    for pos in (-1, 2):
        read = model.run(ids, logits=Readout(answers, pos))
        close(read.logits, whole[:, pos].gather(-1, answers)[:, None])
        kept = model.run(ids, keep="logits", logits=Readout(answers, pos))
        assert torch.equal(kept.cache["logits"], whole)
        assert torch.equal(kept.logits, whole[:, pos].gather(-1, answers)[:, None])


@every
def test_padding_on_the_left_changes_nothing_for_the_row(name, how):
    model, ids = zoo.model(name, how), zoo.tokens(1, 5)
    pad = torch.tensor([[9, 9]])
    other = zoo.tokens(1, 7, seed=2)
    mask = torch.tensor([[False, False, *[True] * 5], [True] * 7])
    both = Batch(torch.cat([torch.cat([pad, ids], 1), other]), mask)
    run = model.run(both, keep=["L1.z", "L2.resid_post", "L1.pattern"])
    alone = model.run(ids, keep=["L1.z", "L2.resid_post", "L1.pattern"])
    close(run.logits[:1, 2:], alone.logits)
    close(run.logits[1:], model.run(other).logits)
    close(run.cache["L1.z"][:1, 2:], alone.cache["L1.z"])
    close(run.cache["L1.pattern"][:1, :, 2:, 2:], alone.cache["L1.pattern"])
    close(model.run(both, logits="last").logits[:1], alone.logits[:, -1:])


@decoders
def test_text_goes_on_as_the_model_itself_goes_on(name):
    model, ids = zoo.model(name), zoo.tokens(2, 5)
    wanted = zoo.fresh(name).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=None
    )
    assert torch.equal(model.generate(ids, max_new_tokens=6, stop_at=()), wanted)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neo"])
def test_text_under_edits_is_that_of_runs_over_the_whole_text(name):
    model, ids = zoo.model(name), zoo.tokens(2, 5)
    steer = torch.randn(32, generator=torch.Generator().manual_seed(0))
    edits = [add("L1.resid_post", steer), zero("L0.z", head=1), scale("L2.neurons", 2.0, pos=[1, 2])]
    found = model.generate(ids, max_new_tokens=5, edits=edits, stop_at=())
    wanted = ids
    for _ in range(5):
        wanted = torch.cat([wanted, model.run(wanted, edits=edits).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, model.generate(ids, max_new_tokens=5, stop_at=()))


def test_padded_prompts_go_on_as_each_alone_does():
    model, ids = zoo.model("llama"), zoo.tokens(1, 5)
    both = Batch(torch.cat([torch.cat([torch.zeros(1, 2, dtype=torch.long), ids], 1), zoo.tokens(1, 7, seed=2)]), None)
    both = both._replace(mask=both.ids != 0)
    found = model.generate(both, max_new_tokens=4, stop_at=())
    assert torch.equal(found[:1, 2:], model.generate(ids, max_new_tokens=4, stop_at=()))


def test_a_row_ends_at_its_end_token_and_drawing_repeats_with_its_generator():
    model, ids = zoo.model("gpt2"), zoo.tokens(1, 5)
    first = int(model.generate(ids, max_new_tokens=1, stop_at=())[0, -1])
    assert model.generate(ids, max_new_tokens=6, stop_at=[first]).shape == (1, 6)
    drawn = [
        model.generate(ids, max_new_tokens=6, temperature=2.0, generator=torch.Generator().manual_seed(5), stop_at=())
        for _ in range(2)
    ]
    assert torch.equal(*drawn)


def test_what_cannot_be_generated_is_refused():
    ids = zoo.tokens()
    with pytest.raises(UserError, match="encoder"):
        zoo.model("bert").generate(ids, max_new_tokens=2)
    with pytest.raises(UserError, match="reads 24"):
        zoo.model("gpt2").generate(ids, max_new_tokens=30)
    with pytest.raises(UserError, match="before rotary"):
        zoo.model("llama").generate(ids, max_new_tokens=2, edits=[zero("L0.rot_k")])
    with pytest.raises(UserError, match="generator"):
        zoo.model("gpt2").generate(ids, max_new_tokens=2, temperature=1.0)


def state_of(module: nn.Module) -> tuple:
    own = [sorted(vars(part)) for part in module.modules()]
    return zoo.hooks_on(module), own, module.config._attn_implementation, [p.requires_grad for p in module.parameters()]


def broken(value):
    raise ArithmeticError("an edit of the user's that fails")


@every
def test_a_run_leaves_nothing_behind_even_when_an_edit_fails(name, how):
    module = zoo.fresh(name, how)
    model, ids = Pretrained(module), zoo.tokens()
    before = state_of(module)
    model.run(ids, keep=model.sites)
    model.run(ids, keep="L*.pattern", grad=True)
    assert state_of(module) == before
    residual = model.run(ids, keep="L1.resid_pre").cache["L1.resid_pre"]
    for site in ("L1.pattern", "L1.z", "L2.resid_mid" if "L2.resid_mid" in map(str, model.sites) else "L2.resid_pre"):
        with pytest.raises(ArithmeticError):
            model.run(ids, edits=[apply(site, broken)], grad=True, start=Start(1, residual))
        assert state_of(module) == before
    assert torch.equal(model.run(ids).logits, zoo.logits_of(module, ids))


def test_nothing_kept_or_edited_installs_no_hook(monkeypatch):
    model, ids = zoo.model("gpt2"), zoo.tokens()
    wanted = model.run(ids).logits

    def refuse(*args, **kwargs):
        raise AssertionError("a hook was installed")

    monkeypatch.setattr(nn.Module, "register_forward_hook", refuse)
    monkeypatch.setattr(nn.Module, "register_forward_pre_hook", refuse)
    assert torch.equal(model.run(ids).logits, wanted)
    close(model.run(ids, logits="last").logits, wanted[:, -1:])


def test_hooks_of_the_users_own_stay_and_act_first():
    module = zoo.fresh("llama")
    seen = []
    module.model.layers[1].register_forward_hook(lambda *given: seen.append(given[2]) or given[2] * 2)
    model, ids = Pretrained(module), zoo.tokens()
    run = model.run(ids, keep=["L1.resid_post", "L2.resid_pre"])
    assert torch.equal(run.cache["L1.resid_post"], 2 * seen[-1])
    assert torch.equal(run.cache["L2.resid_pre"], run.cache["L1.resid_post"])
    assert zoo.hooks_on(module) == 1
    assert torch.equal(run.logits, zoo.logits_of(module, ids))


def test_a_hook_of_the_users_own_at_the_unembedding_changes_what_a_metric_reads():
    module, ids, answers = zoo.fresh("gpt2"), zoo.tokens(), torch.tensor([[5, 7], [9, 3]])
    module.lm_head.register_forward_hook(lambda head, args, logits: logits * 2)
    read = Pretrained(module).run(ids, logits=Readout(answers)).logits
    close(read[:, 0], zoo.logits_of(module, ids)[:, -1].gather(-1, answers))


@every
def test_a_run_within_a_run_and_the_bare_module_within_it_are_not_heard(name, how):
    model, ids = zoo.model(name, how), zoo.tokens()
    alone = model.run(ids, keep=["L1.z", "L2.pattern"])
    inner = []

    def nested(value):
        inner.append(model.run(ids, keep=["L1.z", "L2.pattern"]))
        inner.append(zoo.logits_of(model.module, ids))
        return value * 0

    outer = model.run(ids, keep=["L1.z", "L2.pattern"], edits=[apply("L1.z", nested), apply("L2.z", nested)])
    for run, logits in zip(inner[::2], inner[1::2]):
        assert torch.equal(run.logits, alone.logits)
        assert torch.equal(logits, alone.logits)
        assert all(torch.equal(run.cache[site], alone.cache[site]) for site in run.cache)
    assert not outer.cache["L1.z"].any()
    assert len(inner) == 4


def test_edits_of_patterns_leave_sdpa_and_the_user_is_told_once():
    told = []
    model = Pretrained(zoo.bare("llama", "sdpa"), watch=told.append)
    model.run(zoo.tokens(), keep=["L0.pattern", "L0.q", "L0.rot_q"])
    assert not told
    for _ in range(2):
        model.run(zoo.tokens(), edits=[zero("L0.pattern", query=3, key=1)])
    model.run(zoo.tokens(), keep="L0.scores", grad=True)
    assert len(told) == 1
    assert isinstance(told[0], Note)
    assert "eager" in told[0].text


def test_grouped_keys_and_values_have_their_own_number_of_heads():
    cache = zoo.model("llama").run(zoo.tokens(), keep="L0.*").cache
    assert [cache[f"L0.{kind}"].shape[2] for kind in ("q", "k", "v", "rot_k", "z")] == [4, 2, 2, 2, 4]
    assert cache["L0.pattern"].shape == (2, 4, 7, 7)


def test_knocking_out_an_edge_of_attention_reaches_the_answer():
    """Zeroing what a query reads of a key equals taking its weighted value away from z."""
    model, ids = zoo.model("llama"), zoo.tokens()
    kept = model.run(ids, keep=["L2.pattern", "L2.v", "L2.z"]).cache
    cut = model.run(ids, edits=[zero("L2.pattern", query=5, key=2, head=3)]).logits
    z = kept["L2.z"].clone()
    z[:, 5, 3] -= kept["L2.pattern"][:, 3, 5, 2, None] * kept["L2.v"][:, 2, 1]
    close(cut, model.run(ids, edits=[put("L2.z", z)]).logits)


def test_bad_input_is_refused_with_what_to_do(unchecked):
    model, ids = zoo.model("gpt2"), zoo.tokens()
    with pytest.raises(UserError, match="24 tokens at most"):
        model.run(zoo.tokens(1, 30))
    with pytest.raises(UserError, match=r"0\.\.39"):
        model.run(ids + zoo.VOCAB)
    with pytest.raises(BadShape):
        model.run(ids[0])
    with pytest.raises(UserError, match="Layers 0 to 9"):
        model.run(ids, stop=9)
    with pytest.raises(BadShape, match="residual"):
        model.run(ids, start=Start(1, torch.zeros(2, 3, 32)))
    with pytest.raises(UserError, match="keys and values"):
        model.run(ids, start=Start(1, torch.zeros(2, 3, 32), 4))
    with pytest.raises(UserError, match="is bidirectional"):
        zoo.model("bert").run(ids, start=Start(1, torch.zeros(2, 3, 32), 4))
    with pytest.raises(UserError, match="positions"):
        model.run(ids, logits=[40])
    with pytest.raises(UnknownSite, match="no site"):
        model.run(ids, keep="L0.rot_q")
    with pytest.raises(UnknownSite, match="never reached"):
        model.run(ids, keep="embed", start=Start(1, torch.zeros(2, 7, 32)))
    with pytest.raises(BadEdit):
        model.run(ids, edits=[put("L0.z", torch.zeros(3, 3))])


def test_a_model_that_draws_dropout_is_refused():
    module = zoo.fresh("gpt2").train()
    with pytest.raises(UserError, match="eval"):
        Pretrained(module).run(zoo.tokens())
    assert module.training


def test_what_draws_or_runs_again_without_a_module_for_it_is_refused(unchecked):
    opt = zoo.fresh("opt").train()  # drops by a rate of its own, in its layers
    with pytest.raises(UserError, match="draws dropout"):
        Pretrained(opt).run(zoo.tokens())
    part = zoo.fresh("gpt2").eval()
    part.transformer.h[1].mlp.train()  # a part in training mode under a model that is not
    with pytest.raises(UserError, match="draws dropout"):
        Pretrained(part).run(zoo.tokens())
    llama = zoo.fresh("llama").train()
    assert Pretrained(llama).run(zoo.tokens()).maybe_logits is not None  # training mode, but nothing is drawn
    enable = getattr(llama, "activation_checkpointing_enable", None) or llama.gradient_checkpointing_enable
    enable()
    with pytest.raises(UserError, match="gradient checkpointing"):
        Pretrained(llama).run(zoo.tokens())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_values_that_are_no_numbers_are_not_told_as_a_wrong_row(value):
    module = zoo.fresh("llama")
    with torch.no_grad():
        module.model.layers[1].mlp.down_proj.weight[0] = value
    with pytest.raises(UserError, match="is not finite: a weight is NaN or infinite, or values overflow float32"):
        Pretrained(module).run(zoo.tokens(), keep="L*.resid_post")
