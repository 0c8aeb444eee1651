"""Miniature models with a tokenizer, made on the spot: a GPT-2 folder of random weights, and a Run of our own."""

import json
from pathlib import Path

import torch

from micrographia.core.runtime import provenance
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.trained import describe_model
from micrographia.core.small.weights import init_weights
from micrographia.core.store import RunFolder
from micrographia.core.tokens import Vocabulary

WORDS = (
    "<bos>", "<pad>", "When", "Mary", "John", "Anna", "Tom", "and", "went", "to", "the", "store", "park", "gave", "a",
    "drink", "book", "then",
)  # fmt: skip
CLEAN = "When Mary and John went to the store then John gave a drink to"
CORRUPT = "When Mary and John went to the store then Mary gave a drink to"
ASKED = ["--clean", CLEAN, "--corrupt", CORRUPT, "--answer", "Mary", "--wrong", "John", "--device", "cpu"]


def save_gpt2(folder: Path, *, tokenizer: bool = True) -> Path:
    """A GPT-2 of two layers with three heads, with a tokenizer by words, as Hugging Face writes them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=24, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    with torch.no_grad():  # at their usual start these weights hardly do anything
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if tokenizer:
        _save_tokenizer(folder)
    return folder


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>", pad_token="<pad>").save_pretrained(folder)


def save_run(folder: Path) -> Path:
    """A Run with a small transformer in it, as one of our labs leaves it."""
    arch = Architecture(
        d_vocab=len(WORDS), d_vocab_out=len(WORDS), n_ctx=24, n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32,
        norm="layernorm", act="gelu",
    )  # fmt: skip
    weights = {name: 1.6 * weight for name, weight in init_weights(arch, torch.Generator().manual_seed(0)).items()}
    about = provenance(0, "cpu", "float32", 1)
    with RunFolder.open(
        folder, lab="ioi", preset="tiny", config={"seed": 0}, provenance=about, resume=False
    ) as writing:
        describe_model(writing, arch, Vocabulary(WORDS, bos=0, pad=1))
        writing.save_snapshot(1, weights)
        writing.finish({"summary": "made for tests"}, (), (), {"step": [1]})
    return folder


def pairs_file(path: Path) -> Path:
    """Two pairs of prompts of one length as JSONL."""
    other = CLEAN.replace("Mary", "Anna").replace("John", "Tom"), CORRUPT.replace("Mary", "Anna").replace("John", "Tom")
    rows = [
        {"clean": CLEAN, "corrupt": CORRUPT, "answer": "Mary", "wrong": "John"},
        {"clean": other[0], "corrupt": other[1], "answer": "Anna", "wrong": "Tom"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path
