"""A GGUF file through transformers' own reader, and what that reader passes over.

transformers (5.23) makes the config of a table of metadata keys, and drops the others in silence: stretched rotary
embeddings, head widths, the rules by which some tokenizers split. `mended` puts right what changes the computation, and
refuses what it cannot.
"""

import math
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from micrographia.core.errors import MissingExtra, UnknownModel
from micrographia.core.pretrained.gguf_header import GgufHeader, read_header

NEEDED = ("gguf", "accelerate")

MEANT = {  # metadata of the architecture -> the config's name of it, whichever of these it has
    "context_length": ("max_position_embeddings",),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.key_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
}
TO_BE_SAID = ("context_length", "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
"""Of these, what a config has and the file lacks is a guess of transformers', which may compute something else."""
GEMMA_27B = (46, 62)
"""The layers of Gemma 2 and 3 of 27 B, whose scores are scaled by d_model / n_heads; all others by the width of a head
(llama.cpp, src/llama-model.cpp, which tells them apart so too)."""
ROTARY = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that stretch the rotary embeddings, and are no weights of the module."""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""The rule of all Llama 3 (Llama Team, "The Llama 3 Herd of Models", 2024); the file holds what follows from it."""

WHOLE = frozenset({"F64", "F32", "F16", "BF16"})
DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
"""Tokenizers of GPT-2's rule, applied after digits are set apart one by one (llama.cpp, src/llama-vocab.cpp)."""
LLAMA3_WORDS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "tekken"})
"""Tokenizers that put a BOS first where the file does not say otherwise, and take a word of their vocabulary whole,
whatever the merges give (the same source)."""


def opened(path: Path) -> GgufHeader:
    """The header of a GGUF file. Raises MissingExtra without what reads it, UnknownModel as `read_header`."""
    if missing := [name for name in NEEDED if util.find_spec(name) is None]:
        raise MissingExtra(
            f"The GGUF file {path} needs {' and '.join(missing)} to be read, not installed here. Install "
            "micrographia[gguf]."
        )
    header = read_header(path)
    if "split.count" in header.metadata and int(header.metadata["split.count"]) > 1:
        raise UnknownModel(
            f"Asked for the model in {path}, which is one of {header.metadata['split.count']} parts. transformers "
            "reads whole files only: join them (`llama-gguf-split --merge`)."
        )
    return header


def mended(config: Any, header: GgufHeader) -> Any:
    """The config with what transformers did not read of the file. Changes it in place.

    Raises UnknownModel for stretched rotary embeddings that cannot be expressed.
    """
    for key, names in MEANT.items():
        value = header.own(key)
        name = next((name for name in names if hasattr(config, name)), None)
        if name is not None and isinstance(value, int | float):
            setattr(config, name, value)
    if hasattr(config, "query_pre_attn_scalar") and header.own("attention.key_length"):
        by_model = header.own("block_count") in GEMMA_27B
        width = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = width if by_model else header.own("attention.key_length")
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight":
            config.vocab_size = tensor.shape[0]
    if rotary := _rotary(config, header):
        own = config.rope_parameters
        own.get("full_attention", own).update(rotary)  # Gemma 3 stretches these layers alone
    return config


def assumed(config: Any, header: GgufHeader) -> str | None:
    """A sentence on what the file should say and does not, with the values that are taken; None where it says all."""
    lacking = [
        f"{key} ({name} {getattr(config, name)} is taken)"
        for key in TO_BE_SAID
        for name in MEANT[key]
        if hasattr(config, name) and header.own(key) is None
    ]
    if not lacking:
        return None
    return (
        f"{header.path.name} does not say its {' and its '.join(lacking)}: what transformers takes where nothing is "
        "said. Compare with the original model; another value computes something else."
    )


def _rotary(config: Any, header: GgufHeader) -> dict[str, Any]:
    """The stretching of the rotary embeddings in transformers' words; empty where there is none."""
    kind = header.own("rope.scaling.type", "none")
    if any(each.name in ROTARY[1:] for each in header.tensors):
        raise _not_expressed(header, "a factor for each frequency, one set for short and one for long texts (LongRoPE)")
    factors = header.values(ROTARY[0])
    if factors is not None:
        return _llama3(config, header, factors)
    if kind in ("none", ""):
        return {}
    factor = header.own("rope.scaling.factor")
    if kind == "linear" and factor:
        return {"rope_type": "linear", "factor": float(factor)}
    original = header.own("rope.scaling.original_context_length")
    if kind == "yarn" and factor and original:
        return {"rope_type": "yarn", "factor": float(factor), "original_max_position_embeddings": int(original)}
    raise _not_expressed(header, f"stretched by the rule {kind!r}")


def _llama3(config: Any, header: GgufHeader, factors: NDArray[np.float32]) -> dict[str, Any]:
    """Llama 3's rule, if these factors follow from it."""
    base, width = float(config.rope_parameters["rope_theta"]), 2 * len(factors)
    factor = float(factors.max())
    waves = 2 * math.pi * base ** (np.arange(0, width, 2) / width)
    turns = LLAMA3["original_max_position_embeddings"] / waves
    smooth = (turns - LLAMA3["low_freq_factor"]) / (LLAMA3["high_freq_factor"] - LLAMA3["low_freq_factor"])
    wanted = 1 / ((1 - smooth.clip(0, 1)) / factor + smooth.clip(0, 1))
    if not np.allclose(factors, wanted, rtol=1e-3):
        raise _not_expressed(header, "stretched by a factor for each frequency, not by the rule of Llama 3")
    return {"rope_type": "llama3", "factor": factor, **LLAMA3}


def _not_expressed(header: GgufHeader, how: str) -> UnknownModel:
    return UnknownModel(
        f"Asked for the model in {header.path}: its rotary embeddings are {how}, which transformers does not read from "
        "a GGUF file, so that it would compute something else. Load the original weights as a folder."
    )


def said(header: GgufHeader, module: Any) -> str:
    """How the weights lie in the file, and how they are run: "Q4_1 (79 %), Q8_0 (21 %), dequantised to float32"."""
    how = "run in" if {each.kind for each in header.tensors} <= WHOLE else "dequantised to"
    return f"{header.quantisation}, {how} {str(module.dtype).removeprefix('torch.')}"


def whole_weights() -> dict[str, Any]:
    """The choice that dequantises every weight and leaves no mark of it; transformers below 5.23 knows no other way."""
    import transformers

    kind = getattr(transformers, "GgufConfig", None)
    return {} if kind is None else {"quantization_config": kind(dequantize=True)}


def checked(module: nn.Module, header: GgufHeader) -> None:
    """Put right the order of rotary pairs, and raise UnknownModel where the module has no place for the file's weights.

    Numbers of elements are compared: transformers drops tensors that its module lacks, such as biases.
    """
    if header.architecture == "llama" and header.own("attention.head_count_kv") is None:
        _unpermute(module, header.own("attention.head_count"))
    stored = sum(each.n_elements for each in header.tensors if each.name not in ROTARY)
    placed = sum(parameter.numel() for parameter in module.parameters())
    if stored != placed:
        kinds = sorted({each.name.split(".", 2)[-1] for each in header.tensors if each.name.startswith("blk.")})
        raise UnknownModel(
            f"Asked for the model in {header.path}, which holds {stored:,} weights; {type(module).__name__} has "
            f"{placed:,}, so that some would be left out (each block holds {', '.join(kinds)}). Load the original "
            "weights as a folder."
        )


def _unpermute(module: nn.Module, n_heads: int) -> None:
    """The pairs of rotary as transformers has them: (i, i + d/2), where llama.cpp has (2 i, 2 i + 1).

    transformers does it itself where the file says how many heads the keys have.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.copy_(parameter.unflatten(0, (n_heads, -1, 2)).transpose(1, 2).flatten(0, 2).clone())


def tokenizer_of(header: GgufHeader) -> Any:
    """The file's tokenizer as Hugging Face's, splitting and beginning as the file says; None for a file without one."""
    if "tokenizer.ggml.tokens" not in header.metadata:
        return None
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    inner: Any = AutoTokenizer.from_pretrained(
        str(header.path.parent), gguf_file=header.path.name, trust_remote_code=False
    )
    rule = header.metadata.get("tokenizer.ggml.pre")
    if header.metadata.get("tokenizer.ggml.model") != "gpt2":
        return inner
    if rule in LLAMA3_WORDS:
        inner.backend_tokenizer.model.ignore_merges = True
        if "tokenizer.ggml.add_bos_token" not in header.metadata and inner.bos_token is not None:
            inner.add_bos_token = True
    if rule in DIGITS_APART:
        by_digit = pre_tokenizers.Digits(individual_digits=True)
        by_word = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        inner.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([by_digit, by_word])
    return inner
