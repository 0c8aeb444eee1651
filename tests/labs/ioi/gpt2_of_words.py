"""A GPT-2 of random weights whose tokenizer knows every word of the published prompts: made on the spot."""

from pathlib import Path

import torch

from micrographia.labs.ioi.gpt2_prompts import EIGHT, NAMES, OBJECTS, PLACES, TEMPLATES


def vocabulary() -> list[str]:
    """Every word and mark of the templates and of what fills them, after the two special tokens."""
    texts = [*TEMPLATES, *(text for text, _ in EIGHT)]
    marks = str.maketrans({mark: f" {mark} " for mark in ".,[]{}"})
    found = [word for text in texts for word in text.translate(marks).split()]
    found += [*NAMES, *OBJECTS, *PLACES, *(name for _, names in EIGHT for name in names)]
    return list(dict.fromkeys(["<bos>", "<pad>", *found]))


def save(folder: Path, *, n_layer: int = 12, n_head: int = 12, words: list[str] | None = None) -> Path:
    """As many layers and heads as GPT-2 small by default, two dimensions each."""
    from transformers import GPT2Config, GPT2LMHeadModel

    words = words or vocabulary()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words), n_positions=32, n_embd=2 * n_head, n_layer=n_layer, n_head=n_head, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    with torch.no_grad():  # at their usual start these weights hardly do anything
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    _save_tokenizer(folder, words)
    return folder


def _save_tokenizer(folder: Path, words: list[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>", pad_token="<pad>").save_pretrained(folder)
