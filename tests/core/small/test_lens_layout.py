"""Models in TransformerLens' layout: what is read is what was written, and only when it may be."""

import json

import pytest
import torch

from micrographia.core.errors import PickleRefused, UnknownModel, UnreadableWeights
from micrographia.core.runtime import generator
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.lens_layout import is_lens_model, load_lens_model
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.tokens import Vocabulary

CONFIG = {
    "d_vocab": 11, "n_ctx": 8, "n_layers": 1, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 32, "act_fn": "gelu",
    "normalization_type": "LN",
}  # fmt: skip
WORDS = Vocabulary(tuple("abcdefghijk"))


@pytest.fixture
def written(tmp_path):
    arch = Architecture(
        d_vocab=11, d_vocab_out=11, n_ctx=8, n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=32, act="gelu",
        norm="layernorm", attn_bias=True, unembed_bias=True,
    )  # fmt: skip
    weights = init_weights(arch, generator(0))
    torch.save({**weights, "blocks.0.attn.mask": torch.ones(8, 8), "blocks.0.attn.IGNORE": torch.tensor(-1e5)},
               tmp_path / "model_final.pth")  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path, Transformer(arch, weights, WORDS)


def test_the_same_logits_come_out(written):
    folder, model = written
    assert is_lens_model(str(folder))
    found = load_lens_model(str(folder), allow_pickle=True, tokenizer=WORDS)
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(found.run(tokens).logits, model.run(tokens).logits)


def test_a_pickle_is_refused_unless_allowed(written):
    with pytest.raises(PickleRefused):
        load_lens_model(str(written[0]), tokenizer=WORDS)


@pytest.mark.parametrize(("field", "value"), [("act_fn", "solu_ln"), ("normalization_type", "Funny")])
def test_what_is_not_known_is_named(written, field, value):
    (written[0] / "config.json").write_text(json.dumps({**CONFIG, field: value}))
    with pytest.raises(UnknownModel, match=value):
        load_lens_model(str(written[0]), allow_pickle=True, tokenizer=WORDS)


def test_a_missing_weight_is_named(written):
    torch.save({"embed.W_E": torch.ones(11, 16)}, written[0] / "model_final.pth")
    with pytest.raises(UnreadableWeights, match="blocks"):
        load_lens_model(str(written[0]), allow_pickle=True, tokenizer=WORDS)


def test_other_folders_are_not_of_this_layout(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert not is_lens_model(str(tmp_path))
    assert is_lens_model("gelu-1l")
