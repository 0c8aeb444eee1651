"""Models whose family has no row: refused with what is different, or studied by their residual stream alone."""

import pytest
import torch
import transformers
import zoo
from torch import nn

from micrographia.core.edits import put, scale
from micrographia.core.errors import UnknownModel, UnknownSite, UserError
from micrographia.core.model import Start
from micrographia.core.pretrained import Pretrained, load
from micrographia.core.tokens import Batch

STATE = {"vocab_size": zoo.VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4}
MADE = {
    "mamba": lambda: transformers.MambaForCausalLM(transformers.MambaConfig(**STATE)),
    "stablelm": lambda: transformers.StableLmForCausalLM(transformers.StableLmConfig(**zoo.GROUPED)),
    "electra": lambda: transformers.ElectraForMaskedLM(transformers.ElectraConfig(**zoo.SIZES, embedding_size=32)),
    "llama": lambda: zoo.fresh("llama"),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MADE[name]().eval()


@pytest.mark.parametrize("name", MADE)
def test_the_stream_alone_is_kept_edited_and_restarted_with_the_modules_own_bits(name):
    module, ids = made(name), zoo.tokens()
    model = Pretrained(module, residual_only=True)
    assert {site.kind for site in model.sites} == {"embed", "resid_pre", "resid_post", "logits"}
    wanted = zoo.logits_of(module, ids)
    run = model.run(ids, keep=model.sites)
    assert torch.equal(run.logits, wanted)
    assert torch.equal(run.cache["L0.resid_post"], run.cache["L1.resid_pre"])
    assert torch.equal(run.cache["embed"], module.get_input_embeddings()(ids))
    for layer in range(4):
        stream = run.cache[f"L{layer}.resid_pre" if layer < 3 else "L2.resid_post"]
        assert torch.equal(model.run(ids, start=Start(layer, stream)).logits, wanted)
    assert torch.equal(model.run(ids, edits=[scale("L1.resid_pre", 1.0)]).logits, wanted)
    changed = model.run(ids, edits=[put("L1.resid_pre", 0.5, pos=3)]).logits
    assert torch.equal(changed[:, :3], wanted[:, :3]) == model.shape.causal
    assert not torch.equal(changed[:, 3:], wanted[:, 3:])
    torch.testing.assert_close(model.run(ids, logits="last").logits[:, 0], wanted[:, -1])
    assert model.shape.causal == (name != "electra")
    assert zoo.hooks_on(module) == 0


@pytest.mark.parametrize("name", ["mamba", "stablelm"])
def test_the_logit_lens_uses_the_norm_that_was_found(name):
    model, ids = Pretrained(made(name), residual_only=True), zoo.tokens()
    run = model.run(ids, keep="L2.resid_post")
    torch.testing.assert_close(model.unembed(run.cache["L2.resid_post"]), run.logits, rtol=1e-4, atol=1e-5)


def test_what_is_not_known_of_such_a_model_is_refused():
    model, ids = Pretrained(made("mamba"), residual_only=True), zoo.tokens()
    with pytest.raises(UnknownSite, match="no site"):
        model.run(ids, keep="L0.z")
    with pytest.raises(UserError, match="residual_only"):
        _ = model.weights.W_Q[0]
    with pytest.raises(UserError, match="its own `generate`"):
        model.generate(ids, max_new_tokens=2)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, 0] = False
    with pytest.raises(UserError, match="Padded"):
        model.run(Batch(ids, mask))
    with pytest.raises(UserError, match="was not found"):
        Pretrained(made("electra"), residual_only=True).unembed(torch.zeros(1, 32))


def test_a_folder_of_an_unknown_family_is_loaded_by_its_stream(tmp_path):
    made("mamba").save_pretrained(tmp_path)
    with pytest.raises(UnknownModel, match=r"'mamba'.*recurrent.*residual_only=True"):
        load(tmp_path)
    model = load(tmp_path, residual_only=True)
    assert torch.equal(model.run(zoo.tokens()).logits, zoo.logits_of(model.module, zoo.tokens()))


def test_an_encoder_with_a_decoder_is_refused_either_way():
    config = transformers.T5Config(vocab_size=40, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    module = transformers.T5ForConditionalGeneration(config)
    for only in (False, True):
        with pytest.raises(UnknownModel, match="two residual streams"):
            load(module, residual_only=only)


def test_blocks_that_hand_no_stream_on_are_refused():
    config = transformers.AlbertConfig(**zoo.SIZES, embedding_size=32)  # one block for all layers
    with pytest.raises(UnknownModel, match="do not hand one stream on"):
        load(transformers.AlbertForMaskedLM(config).eval(), residual_only=True)
    config = transformers.XLNetConfig(vocab_size=40, d_model=32, n_layer=3, n_head=4, d_inner=48)  # positions first
    with pytest.raises(UnknownModel, match=r"tensors of \(3, 2, 32\)"):
        load(transformers.XLNetLMHeadModel(config).eval(), residual_only=True)
