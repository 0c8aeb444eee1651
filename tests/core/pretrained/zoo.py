"""A miniature random model of every family, built from its own config class: three layers, odd sizes, no download.

Grouped keys and values where the family has them, soft caps that bite, windows shorter than the sequences. Weights and
biases are moved off their start, where they would hide mistakes.
"""

from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BloomConfig,
    DistilBertConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OlmoConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    RobertaConfig,
)

from micrographia.core.pretrained import Pretrained

transformers.logging.set_verbosity_error()

VOCAB, LENGTH, CONTEXT, WINDOW = 40, 7, 24, 3
WORDS = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
BLOCKS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
SIZES: dict[str, Any] = {**BLOCKS, "intermediate_size": 48, "max_position_embeddings": CONTEXT, **WORDS}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2}
GEMMA: dict[str, Any] = {**GROUPED, "head_dim": 10, "sliding_window": WINDOW, "query_pre_attn_scalar": 12}
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT, **WORDS}
OPT: dict[str, Any] = {**BLOCKS, "ffn_dim": 48, "max_position_embeddings": CONTEXT, **WORDS}
NEO: dict[str, Any] = {"hidden_size": 32, "num_layers": 3, "num_heads": 4, "max_position_embeddings": CONTEXT, **WORDS}

LAYERS = ["sliding_attention"] * 2 + ["full_attention"]
SIGHT = {**BLOCKS, "num_hidden_layers": 1, "intermediate_size": 48, "image_size": 28, "patch_size": 14}
DISTILLED: dict[str, Any] = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, **WORDS}

BLOOM: dict[str, Any] = {**BLOCKS, **WORDS}
FALCON: dict[str, Any] = {**BLOCKS, "max_position_embeddings": CONTEXT, **WORDS}

CHOSEN: dict[str, Any] = {**GROUPED, "num_experts_per_tok": 2}
MOE: dict[str, Any] = {**CHOSEN, "num_experts": 5, "moe_intermediate_size": 24}
ROTARY = {"rope_type": "default", "rope_theta": 10_000.0}

CONFIGS = {
    "gpt2": lambda: GPT2Config(**GPT2),
    "gpt2-upcast": lambda: GPT2Config(
        **GPT2, reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True
    ),
    "gpt_neo": lambda: GPTNeoConfig(
        **NEO, attention_types=[[["global", "local"], 1], [["global"], 1]], window_size=WINDOW
    ),
    "gptj": lambda: GPTJConfig(**GPT2, rotary_dim=4),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES),
    "gpt_neox-sequential": lambda: GPTNeoXConfig(**SIZES, use_parallel_residual=False),
    "phi": lambda: PhiConfig(**GROUPED),
    "bloom": lambda: BloomConfig(**BLOOM),
    "falcon": lambda: FalconConfig(**FALCON),
    "falcon-new": lambda: FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=True),
    "falcon-sequential": lambda: FalconConfig(**FALCON, multi_query=False, parallel_attn=False),
    "llama": lambda: LlamaConfig(**GROUPED),
    "llama-biased": lambda: LlamaConfig(
        **GROUPED, attention_bias=True, mlp_bias=True, head_dim=6, tie_word_embeddings=True
    ),
    "mistral": lambda: MistralConfig(**GROUPED, sliding_window=WINDOW),
    "mixtral": lambda: MixtralConfig(**CHOSEN, num_local_experts=4, sliding_window=WINDOW),
    "mixtral-grouped": lambda: MixtralConfig(**CHOSEN, num_local_experts=4),
    "qwen2": lambda: Qwen2Config(**GROUPED),
    "qwen2_moe": lambda: Qwen2MoeConfig(**MOE, shared_expert_intermediate_size=28, mlp_only_layers=[0]),
    "qwen3": lambda: Qwen3Config(**GROUPED, head_dim=10),
    "qwen3_moe": lambda: Qwen3MoeConfig(**MOE, head_dim=10, norm_topk_prob=True),
    "gpt_oss": lambda: GptOssConfig(
        **CHOSEN, num_local_experts=4, head_dim=10, sliding_window=WINDOW, layer_types=LAYERS, rope_parameters=ROTARY
    ),
    "olmo": lambda: OlmoConfig(**GROUPED),
    "olmo2": lambda: Olmo2Config(**GROUPED),
    "phi3": lambda: Phi3Config(**GROUPED),
    "gemma": lambda: GemmaConfig(**GROUPED, head_dim=10),
    "gemma2": lambda: Gemma2Config(**GEMMA, attn_logit_softcapping=0.5, final_logit_softcapping=0.7),
    "gemma3": lambda: Gemma3TextConfig(**GEMMA, layer_types=LAYERS),
    "gemma3-images": lambda: Gemma3Config(
        text_config={**GEMMA, "layer_types": LAYERS}, vision_config=SIGHT, mm_tokens_per_image=4
    ),
    "opt": lambda: OPTConfig(**OPT, word_embed_proj_dim=32),
    "opt-350m": lambda: OPTConfig(**OPT, word_embed_proj_dim=20, do_layer_norm_before=False),
    "bert": lambda: BertConfig(**SIZES),
    "roberta": lambda: RobertaConfig(**{**SIZES, "bos_token_id": 0, "pad_token_id": 1}),
    "distilbert": lambda: DistilBertConfig(**DISTILLED, max_position_embeddings=CONTEXT),
}  # fmt: skip
EAGER_ONLY = ("gpt_neo", "gptj", "bloom", "gemma2", "gpt_oss")
ENCODERS = ("bert", "roberta", "distilbert")
NAMES = tuple(CONFIGS)
DECODERS = tuple(name for name in NAMES if name not in ENCODERS)
NARROW = ("gpt2-upcast", "mixtral-grouped")
"""Models that themselves refuse float64."""
MIXTURES = ("mixtral", "mixtral-grouped", "qwen2_moe", "qwen3_moe", "gpt_oss")
EVERY = tuple((name, how) for name in NAMES for how in ("eager", "sdpa") if how == "eager" or name not in EAGER_ONLY)


DTYPES = (torch.float32, torch.bfloat16, torch.float64)
EXACT = tuple((*pair, dtype) for pair in EVERY for dtype in DTYPES[: 2 if pair[0] in NARROW else 3])


def widest(name: str) -> torch.dtype:
    return torch.float32 if name in NARROW else torch.float64


def fresh(name: str, how: str = "eager", dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    """A new bare module."""
    config = CONFIGS[name]()
    kind = transformers.AutoModelForMaskedLM if name in ENCODERS else transformers.AutoModelForCausalLM
    torch.manual_seed(seed)
    experts = {"experts_implementation": "eager"} if name in MIXTURES and name != "mixtral-grouped" else {}
    module = kind.from_config(config, attn_implementation=how, **experts)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            step = 0.15 if parameter.ndim > 1 else 0.3
            parameter.add_(step * torch.randn(parameter.shape, generator=generator))
    return module.to(dtype).eval()


@cache
def bare(name: str, how: str = "eager", dtype: torch.dtype = torch.float32) -> nn.Module:
    """The module that tests share. A test that changes a module makes a fresh one."""
    return fresh(name, how, dtype)


@cache
def model(name: str, how: str = "eager", dtype: torch.dtype = torch.float32) -> Pretrained:
    return Pretrained(bare(name, how, dtype))


def tokens(batch: int = 2, length: int = LENGTH, seed: int = 1) -> Tensor:
    return torch.randint(3, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def logits_of(module: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return module(input_ids=ids).logits


def hooks_on(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())
