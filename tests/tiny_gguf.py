"""A miniature GGUF file, as llama.cpp's converter writes it: a Llama of random weights and a byte-level tokenizer."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

D, HEADS, KV, D_MLP, LAYERS = 32, 4, 2, 64, 2
CONTEXT, TEMPLATE = 64, "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
MERGES = ("Ġ M", "ar y", "a r", "r y", "ĠM ary", "Ġ J", "o h", "oh n", "ĠJ ohn", "Ġ Ġ", "Ġ s", "e e", "Ġs ee", "Ġsee s")


@cache
def words() -> tuple[str, ...]:
    """Special tokens, the byte alphabet, and what the merges make."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    made = dict.fromkeys(merge.replace(" ", "") for merge in MERGES)
    return ("<|pad|>", "<|begin|>", "<|end|>", *bytes_to_unicode().values(), *made)


def module(**options: Any) -> Any:
    """The network that the file holds."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": D, "num_attention_heads": HEADS, "num_key_value_heads": KV, "intermediate_size": D_MLP}
    sizes |= {"num_hidden_layers": LAYERS, "max_position_embeddings": CONTEXT, "vocab_size": len(words())}
    torch.manual_seed(0)
    made = LlamaForCausalLM(LlamaConfig(**{**sizes, "tie_word_embeddings": True, "rms_norm_eps": 1e-5, **options}))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm", "model.layers.": "blk.",
}  # fmt: skip


def named(name: str) -> str:
    """A parameter's name in the file."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


def pairs_apart(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Rows of q or k in llama.cpp's order of rotary pairs."""
    return weight.unflatten(0, (n_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def write(
    path: Path,
    *,
    kind: str = "F32",
    network: Any = None,
    metadata: Mapping[str, Any] | None = None,
    without: tuple[str, ...] = (),
    tensors: Mapping[str, np.ndarray] | None = None,
    pre: str | None = "smollm",
) -> Path:
    """A file with matrices of this `kind`, with further `metadata` (of the architecture) and without some of it.

    `pre` names the rule by which the tokenizer splits; None leaves the tokenizer out.
    """
    import gguf

    network = network or module()
    config, writer = network.config, gguf.GGUFWriter(path, "llama")
    facts: dict[str, Any] = {
        "context_length": CONTEXT, "embedding_length": D, "block_count": LAYERS, "feed_forward_length": D_MLP,
        "attention.head_count": HEADS, "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "rope.dimension_count": D // HEADS, "vocab_size": len(words()), **(metadata or {}),
    }  # fmt: skip
    for key, value in facts.items():
        if key not in without:
            add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
            add(key if key.startswith("split.") else f"llama.{key}", value)
    if pre is not None:
        _add_tokenizer(writer, pre, without)
    for name, parameter in network.named_parameters():
        weight = parameter.detach()
        if "q_proj.weight" in name or "k_proj.weight" in name:
            weight = pairs_apart(weight, HEADS if "q_proj" in name else config.num_key_value_heads)
        stored = weight.numpy().astype(np.float32)
        if kind == "F32" or stored.ndim == 1:
            writer.add_tensor(named(name), stored)
        else:
            form = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(named(name), gguf.quants.quantize(stored, form), raw_dtype=form)
    for name, value in (tensors or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, pre: str, without: tuple[str, ...]) -> None:
    import gguf

    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(words()) - 3)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(words())
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if "add_bos_token" not in without:
        writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def write_family(path: Path, architecture: str, network: Any, metadata: Mapping[str, Any]) -> Path:
    """A file of float32 of another architecture, without tokenizer; names are those of the package gguf."""
    import gguf

    config, writer = network.config, gguf.GGUFWriter(path, architecture)
    facts = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "attention.head_count": config.num_attention_heads,
        "vocab_size": config.vocab_size, **metadata,
    }  # fmt: skip
    for key, value in facts.items():
        {int: writer.add_uint32, float: writer.add_float32}[type(value)](f"{architecture}.{key}", value)
    writer.add_pad_token_id(0)
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for name, parameter in network.named_parameters():
        base, _, end = name.rpartition(".")
        weight = parameter.detach()
        if architecture.startswith("gemma") and base.endswith("norm"):
            weight = weight + 1
        if architecture == "gpt2" and ".h." in name and weight.ndim == 2:
            weight = weight.T
        writer.add_tensor(f"{names.get_name(base)}.{end}", np.ascontiguousarray(weight.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
