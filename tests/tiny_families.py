"""Hugging Face models of random weights, one of each kind of block, small enough for exact checks."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

from micrographia.core.pretrained import Pretrained

VOCAB = 31
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GROUPED = {"num_key_value_heads": 2}

CONFIGS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "grouped heads": ("LlamaConfig", GROUPED),
    "normed q and k": ("Qwen3Config", {**GROUPED, "head_dim": 8}),
    "parallel blocks": ("GPTNeoXConfig", {}),
    "norms behind": ("Gemma2Config", {**GROUPED, "head_dim": 8}),
    "no norms before": ("Olmo2Config", GROUPED),
    "flattened mlp": ("OPTConfig", {"ffn_dim": 24, "word_embed_proj_dim": 16}),
    "encoder": ("BertConfig", {}),
}


@cache
def tiny(kind: str, *, dtype: torch.dtype = torch.float64) -> Pretrained:
    """A model of this kind. Its weights are far from their usual start, at which nothing does much."""
    import transformers

    name, options = CONFIGS[kind]
    config = getattr(transformers, name)(**{**SIZES, **options})
    heads: Callable[..., Any] = (
        transformers.AutoModelForMaskedLM if kind == "encoder" else transformers.AutoModelForCausalLM
    ).from_config
    generator = torch.Generator().manual_seed(0)
    module = heads(config).eval().to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=dtype)
            parameter.copy_(0.25 * drawn + (parameter if parameter.ndim == 1 else 0))
    return Pretrained(module)
