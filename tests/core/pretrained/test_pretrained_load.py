"""Loading, tokens, weights; rows that do not fit; modules that cannot be watched."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
import zoo
from torch import nn

from micrographia.core.edits import zero
from micrographia.core.errors import BadPrompt, UnknownModel, UserError
from micrographia.core.pretrained import Pretrained, families, load
from micrographia.core.pretrained.families import FAMILIES, QKV
from micrographia.core.tokens import Batch

TEXT = ("<pad>", "<s>", "</s>", "Mary", "John", "sees", "the", "dog")


def words_of(folder: Path):
    """A tokenizer by words that puts <s> first, as Llama's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(TEXT)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.save_pretrained(folder)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    zoo.fresh("llama").to(torch.bfloat16).save_pretrained(path)
    words_of(path)
    return path


def test_a_folder_gives_its_model_in_its_own_dtype_with_its_tokenizer(folder):
    model = load(folder)
    assert isinstance(model, Pretrained)
    assert next(model.module.parameters()).dtype == torch.bfloat16
    assert not model.module.training
    ids = model.to_tokens("Mary sees John")
    assert ids.tolist() == [[1, 3, 5, 4]]
    assert torch.equal(model.run(ids, keep="L*.z").logits, zoo.logits_of(model.module, ids))
    wide = load(folder, dtype=torch.float32)
    assert torch.equal(wide.run(ids).logits, zoo.logits_of(wide.module, ids))


def test_a_first_token_is_put_as_the_tokenizer_does_and_never_twice(folder):
    model = load(folder)
    assert model.to_tokens("<s> Mary").tolist() == [[1, 3]]
    assert model.to_tokens("Mary", prepend_bos=False).tolist() == [[3]]
    assert model.to_tokens("<s> Mary", prepend_bos=True).tolist() == [[1, 3]]
    batch = model.to_tokens(["Mary sees", "the dog sees John"])
    assert isinstance(batch, Batch)
    assert batch.mask.tolist() == [[False, False, True, True, True], [True] * 5]
    assert model.to_str_tokens(batch.ids[1]) == ["<s>", "the", "dog", "sees", "John"]
    assert model.single_token("John") == 4
    with pytest.raises(BadPrompt):
        model.single_token("Mary John")


def test_a_folder_without_tokenizer_gives_a_model_that_says_so(tmp_path):
    zoo.fresh("gpt2").save_pretrained(tmp_path)
    model = load(tmp_path)
    assert model.tokenizer is None
    with pytest.raises(UserError, match="no tokenizer"):
        model.to_tokens("Mary")


@pytest.mark.parametrize("name", zoo.ENCODERS)
def test_a_masked_language_model_is_found_for_an_encoder(name, tmp_path):
    zoo.fresh(name).save_pretrained(tmp_path)
    assert load(tmp_path).run(zoo.tokens()).logits.shape == (2, zoo.LENGTH, zoo.VOCAB)


def test_an_encoder_that_was_set_to_decode_is_refused():
    from transformers import BertConfig, BertLMHeadModel

    with pytest.raises(UnknownModel, match="is_decoder"):
        load(BertLMHeadModel(BertConfig(**zoo.SIZES, is_decoder=True)))


def test_positions_that_begin_behind_the_row_of_padding_leave_the_fewer_for_tokens():
    model = zoo.model("roberta")
    assert model.shape.n_ctx == zoo.CONTEXT - 2
    assert model.weights.W_pos.shape[0] == zoo.CONTEXT - 2
    full = zoo.tokens(1, zoo.CONTEXT - 2)
    assert torch.equal(model.run(full).logits, zoo.logits_of(model.module, full))
    with pytest.raises(UserError, match="22 tokens at most"):
        model.run(zoo.tokens(1, zoo.CONTEXT - 1))


def test_the_language_model_of_one_that_also_sees_is_loaded_from_its_folder(tmp_path):
    zoo.fresh("gemma3-images").save_pretrained(tmp_path)
    model, ids = load(tmp_path), zoo.tokens()
    run = model.run(ids, keep=model.sites)
    assert torch.equal(run.logits, zoo.logits_of(model.module, ids))
    assert run.cache["L2.z"].shape == (2, zoo.LENGTH, 4, 10)


def test_how_the_language_model_attends_is_what_counts_and_each_part_keeps_its_own_way():
    module = zoo.fresh("gemma3-images", "sdpa")
    module.config.vision_config._attn_implementation = "eager"
    module.config._attn_implementation_internal = "eager"
    told = []
    Pretrained(module, watch=told.append).run(zoo.tokens(), edits=[zero("L1.pattern", head=0)])
    ways = [each._attn_implementation for each in (module.config, module.config.vision_config)]
    assert "'sdpa'" in told[0].text
    assert [*ways, module.config.text_config._attn_implementation] == ["eager", "eager", "sdpa"]


def test_a_module_in_hand_stays_as_it_is():
    module = zoo.fresh("llama", "sdpa", torch.float64)
    assert load(module).module is module
    assert module.config._attn_implementation == "sdpa"
    with pytest.raises(UserError, match="dtype"):
        load(module, dtype=torch.float32)
    with pytest.raises(UserError, match="tokenizer"):
        load(module, tokenizer=3)


def test_random_weights_in_place_of_missing_ones_are_refused(tmp_path):
    zoo.fresh("llama").model.save_pretrained(tmp_path)
    with pytest.raises(UnknownModel, match=r"lack 1 of its weights, such as lm_head\.weight"):
        load(tmp_path)


def test_a_model_of_the_hub_without_tokenizer_takes_ids_alone_and_that_is_said(folder, monkeypatch):
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    for kind in (AutoConfig, AutoModelForCausalLM):  # as if the folder lay on the Hub
        monkeypatch.setattr(kind, "from_pretrained", lambda name, here=kind.from_pretrained, **how: here(folder, **how))

    def nothing(*args, **kwargs):
        raise OSError("no file named tokenizer.json")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", nothing)
    told = []
    assert load("someone/something", watch=told.append).tokenizer is None
    assert "takes token ids alone (no file" in told[0].text


def test_a_device_and_a_map_of_devices_exclude_each_other(folder):
    with pytest.raises(UserError, match="Choose one"):
        load(folder, device="cpu", device_map="auto")


def hub_error(name: str) -> BaseException:
    """An error of the Hub's client, which is made of an answer of the net, without one."""
    from huggingface_hub import errors

    kind = getattr(errors, name)
    return kind.__new__(kind)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("GatedRepoError", "hf auth login"),
        ("RepositoryNotFoundError", "Check the name"),
        ("RevisionNotFoundError", "v9"),
        ("LocalEntryNotFoundError", "cannot be reached"),
    ],
)
def test_what_the_hub_answers_becomes_advice(monkeypatch, kind, advice):
    from transformers import AutoConfig

    def refuse(*args, **kwargs):
        raise OSError("wrapped, as transformers does") from hub_error(kind)

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    with pytest.raises(UnknownModel, match=advice) as raised:
        load("someone/something", revision="v9")
    assert "someone/something" in str(raised.value)


def test_code_from_the_hub_is_never_run(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "strange", "auto_map": {"AutoConfig": "code.Config"}}', encoding="utf-8"
    )
    with pytest.raises(UnknownModel, match="never run"):
        load(tmp_path)


def test_an_unknown_family_is_told_how_to_add_a_row():
    from transformers import StableLmConfig, StableLmForCausalLM

    module = StableLmForCausalLM(StableLmConfig(**zoo.SIZES))
    with pytest.raises(UnknownModel, match=r"'stablelm'.*families\.py"):
        load(module)


def test_a_model_without_its_head_is_told_so():
    with pytest.raises(UnknownModel, match="head"):
        load(zoo.fresh("gpt2").transformer).run(zoo.tokens())


WRONG = {
    "a projection read the wrong way round": ("gpt2", {"transposed": False}, "L1.z"),
    "a norm taken for another": ("llama", {"attn_norm": "post_attention_layernorm"}, "L0.attn_norm"),
    "values taken for keys": ("gpt2", {"qkv": QKV(*(FAMILIES["gpt2"].qkv[i] for i in (0, 2, 1)))}, "L0.v"),
    "a sum with the norms behind it": ("olmo2", {"attn_post_norm": "", "mlp_post_norm": ""}, "L0.resid_post"),
    "heads laid out otherwise": ("gemma3", {"qkv": FAMILIES["qwen3"].qkv}, "L0.q"),
    "an attention method that is not called": ("gpt_neo", {"eager_method": "", "attn": "attn"}, "L0.pattern"),
    "a parallel block taken for a sequential one": ("gpt_neox", {"parallel": False}, "L0.resid_mid"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_row_that_does_not_fit_is_found_before_any_result(what, monkeypatch):
    name, changes, site = WRONG[what]
    module = zoo.fresh(name)
    wrong = replace(FAMILIES[module.config.model_type], **changes, when=())
    monkeypatch.setattr(families, "FAMILIES", {module.config.model_type: wrong})
    with pytest.raises((UnknownModel, UserError), match=r"row|eager"):
        Pretrained(module).run(zoo.tokens(), keep=site)


@pytest.mark.parametrize("name", ["gemma2", "bert"])
def test_a_row_that_fits_is_found_to_fit_whatever_is_asked_for_first(name, unchecked):
    module, ids = zoo.bare(name), zoo.tokens()
    kinds = dict.fromkeys(site.kind for site in Pretrained(module).sites if site.layer == 1)
    for pair in combinations([kind for kind in kinds if kind not in ("result", "scores", "rot_k", "mlp_pre", "k")], 2):
        Pretrained(module).run(ids, keep=[f"L1.{kind}" for kind in pair])


def test_a_compiled_model_is_run_as_what_it_was_made_from_and_the_user_is_told():
    told = []
    module = zoo.fresh("gpt2")
    model = load(torch.compile(module, backend="eager"), watch=told.append)
    assert model.module is module
    assert len(told) == 1
    in_place = zoo.fresh("gpt2")
    in_place.transformer.h[1].compile(backend="eager")
    with pytest.raises(UserError, match=r"transformer\.h\.1.*compiled in place"):
        load(in_place)


def test_weights_that_are_elsewhere_are_refused():
    module = zoo.fresh("gpt2")
    with pytest.raises(UserError, match="off-loaded"):
        load(module.to("meta"))


class Quantised(nn.Module):
    """A projection whose weight is no matrix of floats, as quantised ones are."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = inner.in_features, inner.out_features
        self.scale = float(inner.weight.detach().abs().max()) / 127
        self.register_buffer("weight", (inner.weight.detach() / self.scale).round().to(torch.int8))

    def forward(self, x):
        return x @ (self.weight.to(x.dtype) * self.scale).T


def test_a_quantised_model_runs_and_its_weights_are_refused_with_the_reason():
    module, ids = zoo.fresh("llama"), zoo.tokens()
    for layer in module.model.layers:
        layer.self_attn.o_proj = Quantised(layer.self_attn.o_proj)
        layer.mlp.down_proj = Quantised(layer.mlp.down_proj)
    module.lm_head = Quantised(module.lm_head)
    model = load(module)
    kept = model.run(ids, keep=["L*.z", "L*.neurons", "L*.attn_out", "L*.pattern"])
    assert torch.equal(kept.logits, zoo.logits_of(module, ids))
    with pytest.raises(UserError, match="quantised"):
        _ = model.weights.W_O[0]
    with pytest.raises(UserError, match="quantised"):
        model.run(ids, keep="L0.result")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_a_dynamically_quantised_model_keeps_all_but_what_needs_its_packed_weights(name):
    told = []
    module = torch.ao.quantization.quantize_dynamic(zoo.fresh(name), {nn.Linear}, dtype=torch.qint8)
    model, ids = load(module, watch=told.append), zoo.tokens()
    kept = model.run(ids, keep=[site for site in model.sites if site.kind != "result"])
    assert torch.equal(kept.logits, zoo.logits_of(module, ids))
    assert kept.cache["L1.z"].shape == (2, zoo.LENGTH, 4, 8)
    assert "rows of a batch share the scale" in told[0].text
    w = model.weights
    for read in (lambda: w.W_O[0], lambda: w.b_Q[0], lambda: w.W_in[1], lambda: w.W_U, lambda: w.b_U):
        with pytest.raises(UserError, match=r"It is packed \(quantised"):
            read()
    with pytest.raises(UserError, match=r"layers\.0\.self_attn\.o.*_proj.*packed"):
        model.run(ids, keep="L0.result")


@pytest.mark.parametrize("name", zoo.NAMES)
def test_weights_are_views_with_the_shapes_that_all_families_share(name):
    model = zoo.model(name)
    w, shape = model.weights, model.shape
    H, K, E, D, M = shape.n_heads, shape.n_kv_heads, shape.d_head, shape.d_model, shape.d_mlp
    assert [tuple(W[1].shape) for W in (w.W_Q, w.W_K, w.W_V, w.W_O)] == [(H, D, E), (K, D, E), (K, D, E), (H, E, D)]
    if name in zoo.MIXTURES:
        with pytest.raises(UserError, match=r"layer 2 were asked for. It has \d experts"):
            _ = w.W_in[2]
        return
    assert [tuple(W[2].shape) for W in (w.W_in, w.W_out)] == [(D, M), (M, D)]
    assert tuple(w.W_Q[0, 1].shape) == (D, E)
    stored = {parameter.untyped_storage().data_ptr() for parameter in model.module.parameters()}
    views = (w.W_K[0], w.W_V[0], w.W_O[0], w.W_in[0], w.W_out[0], w.W_E, w.W_U)
    for W in views if name == "falcon-new" else (w.W_Q[0], *views):  # whose queries lie between keys and values
        assert W.untyped_storage().data_ptr() in stored
        assert not W.requires_grad


@pytest.mark.parametrize("name", zoo.NAMES)
def test_unembedding_the_last_residual_gives_the_logits(name):
    model, ids = zoo.model(name), zoo.tokens()
    run = model.run(ids, keep=["L2.resid_post"])
    torch.testing.assert_close(model.unembed(run.cache["L2.resid_post"]), run.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", zoo.DECODERS)
def test_the_final_readout_gives_logits_before_any_cap(name):
    model, ids = zoo.model(name), zoo.tokens()
    keep = ["L2.resid_post", *[site for site in model.sites if site.kind == "final_norm_scale"]]
    run = model.run(ids, keep=keep)
    w, scale = model.weights, run.cache.get("final_norm_scale", torch.ones(1))
    read = run.cache["L2.resid_post"] / scale @ w.final_readout(w.W_U[:, 7])
    read = read if w.final_norm_b is None else read + w.final_norm_b @ w.W_U[:, 7]
    cap = getattr(model.body.config, "final_logit_softcapping", None)
    wanted = run.logits[..., 7] if w.b_U is None else run.logits[..., 7] - w.b_U[7]
    wanted = wanted if cap is None else cap * torch.atanh(wanted / cap)
    torch.testing.assert_close(read, wanted, rtol=1e-4, atol=1e-4)


def test_an_encoders_logits_are_not_linear_and_that_is_said():
    with pytest.raises(UserError, match="not linear"):
        zoo.model("bert").weights.final_readout(torch.ones(32))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_path_that_leads_nowhere_is_not_looked_for_on_the_hub(name):
    with pytest.raises(UnknownModel, match="no such folder"):
        load(name)
