"""GGUF files: the network and tokenizer that they hold, what transformers drops of them, files that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
import zoo

import tiny_gguf
from micrographia.core.errors import CannotWrite, MissingExtra, UnknownModel, UserError
from micrographia.core.events import Note
from micrographia.core.pretrained import load
from micrographia.core.pretrained.gguf import mended
from micrographia.core.pretrained.gguf_header import GgufHeader, read_header
from tiny_gguf import module, write

IDS = torch.randint(3, 270, (2, 40), generator=torch.Generator().manual_seed(1))
BASE = 500000.0


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf", kind="Q8_0")


def logits(model):
    return model.run(IDS).logits


def truth(network):
    with torch.no_grad():
        return network(IDS).logits


def test_a_file_of_float32_gives_the_network_it_was_made_of_bit_for_bit(plain):
    told = []
    model = load(plain, watch=told.append)
    assert torch.equal(logits(model), truth(module()))
    assert [event.text for event in told if isinstance(event, Note)] == ["tiny.gguf: F32 (100 %), run in float32."]
    assert model.weights.W_E.dtype == torch.float32


def test_quantised_weights_are_those_that_the_blocks_stand_for_and_that_is_said(small):
    import gguf

    told = []
    model = load(small, watch=told.append)
    stored = module().model.layers[1].mlp.down_proj.weight.detach().numpy()
    blocks = gguf.quants.quantize(stored, gguf.GGMLQuantizationType.Q8_0)
    wanted = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)
    assert np.array_equal(model.weights.W_out[1].T.numpy(), wanted)
    assert not np.array_equal(stored, wanted)
    assert told[-1].text == "tiny.Q8_0.gguf: Q8_0 (99 %), F32 (1 %), dequantised to float32."
    assert repr(model).endswith("sites; Q8_0 (99 %), F32 (1 %), dequantised to float32)")


def test_another_dtype_is_heeded(small):
    model = load(str(small), dtype="bfloat16")
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.bfloat16}
    assert "dequantised to bfloat16" in repr(model)


def test_the_tokenizer_comes_with_its_template_and_special_tokens(plain):
    tokenizer = load(plain).tokenizer
    assert tokenizer.inner.chat_template == tiny_gguf.TEMPLATE
    assert (tokenizer.bos, tokenizer.pad, tokenizer.inner.eos_token_id) == (1, 0, 2)
    assert tokenizer.decode(tokenizer.encode(" Mary sees John")) == " Mary sees John"
    assert len(tokenizer.encode(" Mary sees John")) == 3


def test_digits_are_set_apart_before_words_where_the_file_asks_for_it(tmp_path):
    """Two blanks before a digit are then one token, else two."""
    apart = load(write(tmp_path / "a.gguf")).tokenizer.inner
    together = load(write(tmp_path / "b.gguf", pre="gpt-2")).tokenizer.inner
    assert apart.tokenize("s  5") == ["s", "ĠĠ", "5"]
    assert together.tokenize("s  5") == ["s", "Ġ", "Ġ", "5"]


def test_a_tokenizer_of_llama_3_begins_with_bos_unless_the_file_forbids_it(tmp_path):
    silent = load(write(tmp_path / "a.gguf", pre="llama-bpe", without=("add_bos_token",)))
    told = load(write(tmp_path / "b.gguf", pre="llama-bpe"))
    assert silent.to_tokens(" Mary")[0, 0] == 1
    assert told.to_tokens(" Mary").shape == (1, 1)
    assert silent.tokenizer.inner.backend_tokenizer.model.ignore_merges


def test_a_file_without_tokenizer_takes_ids_alone(tmp_path):
    model = load(write(tmp_path / "a.gguf", pre=None))
    assert model.tokenizer is None
    assert torch.equal(logits(model), truth(module()))


def stretched(kind, **choices):
    return module(rope_parameters={"rope_type": kind, "rope_theta": BASE, **choices})


def usual():
    return module(rope_parameters={"rope_type": "default", "rope_theta": BASE})


LLAMA_3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
DROPPED = {
    "keys without their number of heads": (lambda: module(num_key_value_heads=4), {}, ("attention.head_count_kv",)),
    "linear": (
        lambda: stretched("linear", factor=4.0),
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        (),
    ),
    "yarn": (
        lambda: stretched("yarn", factor=4.0, original_max_position_embeddings=16),
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16},
        (),
    ),
    "untied": (lambda: module(tie_word_embeddings=False), {}, ()),
    "head width": (lambda: module(head_dim=16), {"attention.key_length": 16, "rope.dimension_count": 16}, ()),
    "one group": (lambda: module(num_key_value_heads=1), {}, ()),
}


@pytest.mark.parametrize("name", DROPPED)
def test_what_transformers_drops_of_the_metadata_is_heeded(name, tmp_path):
    make, metadata, without = DROPPED[name]
    network = make()
    model = load(write(tmp_path / "a.gguf", network=network, metadata=metadata, without=without))
    assert torch.equal(logits(model), truth(network))
    if metadata.get("rope.scaling.type"):
        assert not torch.allclose(truth(network), truth(usual()), atol=1e-3)


RMS = {"attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-6, "feed_forward_length": 48}
WIDE = {**RMS, "attention.key_length": 10, "attention.sliding_window": zoo.WINDOW}
FAMILIES = {  # architecture -> the network of the zoo, and what its file says
    "qwen2": ("qwen2", {**RMS, "rope.freq_base": 10000.0}),
    "qwen3": ("qwen3", {**RMS, "rope.freq_base": 10000.0, "attention.key_length": 10}),
    "phi3": ("phi3", {**RMS, "rope.freq_base": 10000.0, "attention.layer_norm_rms_epsilon": 1e-5}),
    "gemma2": ("gemma2", {**WIDE, "attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.7}),
    "gpt2": ("gpt2", {"attention.layer_norm_epsilon": 1e-5, "feed_forward_length": 128}),
}


@pytest.mark.parametrize("architecture", FAMILIES)
def test_files_of_other_architectures_give_their_networks_too(architecture, tmp_path):
    name, metadata = FAMILIES[architecture]
    network = zoo.fresh(name)
    if architecture == "gemma2":  # as all of this family but the largest are scaled
        for layer in network.model.layers:
            layer.self_attn.scaling = 10**-0.5
    ids = zoo.tokens()
    model = load(tiny_gguf.write_family(tmp_path / "a.gguf", architecture, network, metadata))
    assert torch.allclose(model.run(ids).logits, zoo.logits_of(network, ids), atol=1e-5)


def test_a_tokenizer_that_cannot_be_built_leaves_a_model_of_ids_and_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_gguf, "MERGES", ("no such",))
    told = []
    model = load(write(tmp_path / "a.gguf"), watch=told.append)
    assert model.tokenizer is None
    assert [event.level for event in told] == ["warning", "info"]
    assert "cannot be built" in told[0].text


@pytest.mark.parametrize(("layers", "scalar"), [(26, 24), (46, 16), (62, 16)])
def test_gemmas_scores_are_scaled_by_the_width_of_a_head_but_for_the_largest(layers, scalar):
    from transformers import Gemma3TextConfig

    facts = {"block_count": layers, "attention.key_length": 24, "attention.sliding_window": 5}
    facts |= {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
    header = GgufHeader(
        Path("x"), {"general.architecture": "gemma3", **{f"gemma3.{k}": v for k, v in facts.items()}}, ()
    )
    config = mended(Gemma3TextConfig(hidden_size=64, num_attention_heads=4), header)
    assert (config.query_pre_attn_scalar, config.head_dim, config.sliding_window) == (scalar, 24, 5)
    assert config.rope_parameters["full_attention"]["factor"] == 8.0
    assert config.rope_parameters["sliding_attention"]["rope_type"] == "default"


def llama_3():
    """The network, and the factors that its file holds: how much longer each wave is."""
    network = stretched("llama3", **LLAMA_3)
    return network, (usual().model.rotary_emb.inv_freq / network.model.rotary_emb.inv_freq).numpy()


def test_the_factors_of_llama_3_give_its_rule(tmp_path):
    network, factors = llama_3()
    model = load(write(tmp_path / "a.gguf", network=network, tensors={"rope_freqs.weight": factors}))
    assert torch.equal(logits(model), truth(network))
    assert not torch.equal(truth(network), truth(usual()))
    assert model.module.config.rope_parameters["factor"] == 8.0


def bent():
    network, factors = llama_3()
    return {"network": network, "tensors": {"rope_freqs.weight": factors * np.float32([1, 1.1, 1, 1])}}


REFUSED = {
    "not by the rule of Llama 3": bent,
    "LongRoPE": lambda: {"tensors": {"rope_factors_long.weight": np.ones(4, np.float32)}},
    "stretched by the rule 'su'": lambda: {"metadata": {"rope.scaling.type": "su"}},
    "where its metadata says .* Load another file": lambda: {"metadata": {"feed_forward_length": 7}},
    "some would be left out": lambda: {"network": module(attention_bias=True)},
    "one of 3 parts": lambda: {"metadata": {"split.count": 3}},
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_would_compute_something_else_is_refused(why, tmp_path):
    with pytest.raises(UnknownModel, match=why):
        load(write(tmp_path / "a.gguf", **REFUSED[why]()))


def test_the_header_agrees_with_that_of_the_package_gguf(small):
    from gguf import GGUFReader

    theirs, ours = GGUFReader(small), read_header(small)
    assert [(each.name, each.offset, each.n_bytes, each.kind) for each in ours.tensors] == [
        (each.name, int(each.data_offset), int(each.n_bytes), each.tensor_type.name) for each in theirs.tensors
    ]
    assert ours.metadata["llama.embedding_length"] == tiny_gguf.D
    assert ours.metadata["tokenizer.ggml.tokens"] == len(tiny_gguf.words())
    assert [tuple(reversed(each.shape)) for each in ours.tensors] == [
        tuple(map(int, each.shape)) for each in theirs.tensors
    ]


def _first_type(data: bytes, kind: int) -> bytes:
    """The type of the embedding's tensor, of two axes, is another."""
    at = data.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 2 * 8
    return data[:at] + kind.to_bytes(4, "little") + data[at + 4 :]


DAMAGES = {
    "The download is incomplete": lambda data: data[:-100],
    "damaged or incomplete": lambda data: data[:3000],
    "fetch the file itself": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "does not begin with 'GGUF'": lambda data: b"",
    "of version 1, which is no longer": lambda data: data[:4] + b"\1\0\0\0" + data[8:],
    "of version 4, newer": lambda data: data[:4] + b"\4\0\0\0" + data[8:],
    "is big-endian. Convert": lambda data: data[:4] + b"\0\0\0\3" + data[8:],
    "type 99, which the installed package gguf": lambda data: _first_type(data, 99),
}


@pytest.mark.parametrize("why", DAMAGES)
def test_a_damaged_file_is_told_from_others(why, plain, tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(DAMAGES[why](plain.read_bytes()))
    with pytest.raises(UnknownModel, match=why):
        load(path)


@pytest.mark.parametrize("missing", [("gguf",), ("accelerate",), ("gguf", "accelerate")])
def test_without_what_reads_it_the_extra_is_named(missing, plain, monkeypatch):
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name in missing else find(name, *rest))
    with pytest.raises(MissingExtra, match=rf"needs {' and '.join(missing)} .* Install micrographia\[gguf\]"):
        load(plain)


def test_nothing_of_transformers_is_shown_and_its_settings_stay(plain, capfd):
    from transformers import logging

    logging.set_verbosity_warning()
    assert logging.is_progress_bar_enabled()
    load(plain, dtype="bfloat16").save(plain.parent / "quiet")
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == logging.WARNING
    from transformers import LlamaForCausalLM

    LlamaForCausalLM.from_pretrained(plain.parent, gguf_file=plain.name)
    assert "de-quantizing" in capfd.readouterr().err  # the bar is back
    logging.set_verbosity_error()


def test_what_is_saved_is_a_plain_folder_with_the_same_logits(small, tmp_path):
    model = load(small)
    folder = model.save(tmp_path / "saved")
    again = load(folder)
    assert torch.equal(logits(again), logits(model))
    assert "quantization_config" not in (folder / "config.json").read_text()
    assert again.to_tokens(" Mary  5").tolist() == model.to_tokens(" Mary  5").tolist()
    assert again.tokenizer.inner.chat_template == tiny_gguf.TEMPLATE
    with pytest.raises(CannotWrite, match="holds files already"):
        model.save(folder)


def test_a_module_that_the_user_loaded_from_gguf_is_saved_too_and_keeps_its_marks(small, tmp_path):
    from transformers import LlamaForCausalLM

    theirs = LlamaForCausalLM.from_pretrained(small.parent, gguf_file=small.name)
    with pytest.raises(ValueError, match="not serializable"):
        theirs.save_pretrained(tmp_path / "theirs")
    before = theirs.config.quantization_config
    again = load(load(theirs).save(tmp_path / "ours"))
    assert torch.equal(logits(again), truth(theirs))
    assert theirs.config.quantization_config is before
    assert theirs.hf_quantizer is not None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_nothing(error, small, tmp_path, monkeypatch):
    model = load(small)

    def fails(folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(model.module, "save_pretrained", fails)
    with pytest.raises(CannotWrite if isinstance(error, OSError) else KeyboardInterrupt):
        model.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_what_transformers_cannot_write_is_said(small, tmp_path, monkeypatch):
    model = load(small)

    def refuses(folder):
        raise ValueError("packed weights")

    monkeypatch.setattr(model.module, "save_pretrained", refuses)
    with pytest.raises(UserError, match="packed weights"):
        model.save(tmp_path / "saved")


@pytest.mark.parametrize(
    ("key", "taken"),
    [("attention.layer_norm_rms_epsilon", "rms_norm_eps 1e-06"), ("context_length", "max_position_embeddings 2048")],
)
def test_what_the_file_does_not_say_is_told_with_the_value_that_is_taken(tmp_path, key, taken):
    told = []
    load(write(tmp_path / "a.gguf", without=(key,)), watch=told.append)
    (note,) = [each for each in told if isinstance(each, Note) and each.level == "warning"]
    assert f"does not say its {key} ({taken} is taken)" in note.text
    told.clear()
    load(write(tmp_path / "b.gguf"), watch=told.append)
    assert not any("does not say" in getattr(each, "text", "") for each in told)
