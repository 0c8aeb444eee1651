"""A Llama of random weights that reads any words it is given, a token a word: made on the spot."""

from collections.abc import Sequence
from pathlib import Path

import torch

from micrographia.core.load import load_any
from micrographia.core.pretrained.model import Pretrained

NUMBERS = ("one", "two", "three", "four", "five")


def save_words(folder: Path, words: Sequence[str] = NUMBERS, *, n_layer: int = 3) -> Path:
    """The model with its tokenizer, as Hugging Face writes them; words that it lacks are <unk>."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    listed = list(dict.fromkeys(["<unk>", "<pad>", *words]))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(listed), hidden_size=32, num_hidden_layers=n_layer, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, max_position_embeddings=128, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # at their usual start these weights hardly do anything
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(listed)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", pad_token="<pad>").save_pretrained(folder)
    return folder


def word_model(folder: Path, words: Sequence[str] = NUMBERS) -> Pretrained:
    model = load_any(save_words(folder / "words", words), device="cpu")
    assert isinstance(model, Pretrained)
    return model
