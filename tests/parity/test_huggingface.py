"""The small transformer against Hugging Face modules of the same architecture, built from miniature random configs.

Learned positions, LayerNorm, exact GELU and biases everywhere make a GPT-2; rotary positions, RMSNorm, SwiGLU and no
biases make a Llama. Weights are copied over, so nothing is downloaded.
"""

import pytest
import torch
from torch import Generator, Tensor

from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer

transformers = pytest.importorskip("transformers")

VOCAB, CONTEXT, LAYERS, HEADS, D_HEAD, D_MLP = 17, 9, 2, 3, 4, 20
D = HEADS * D_HEAD
SIZES = {"d_vocab": VOCAB, "d_vocab_out": VOCAB, "n_ctx": CONTEXT, "n_layers": LAYERS, "n_heads": HEADS}
SIZES |= {"d_head": D_HEAD, "d_model": D, "d_mlp": D_MLP}


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Every parameter random, gains and biases too."""
    generator = Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.copy_(drawn + 1 if "norm" in name or ".ln_" in name else drawn)
    return module.eval()


def by_head(weight: Tensor) -> Tensor:
    """(d_model, heads * d_head), applied as x @ W -> (heads, d_model, d_head)."""
    return weight.unflatten(1, (HEADS, D_HEAD)).permute(1, 0, 2)


def from_gpt2(state: dict[str, Tensor], *, tied: bool) -> dict[str, Tensor]:
    """GPT-2 holds its matrices as x @ W, with query, key and value side by side."""
    found = {"embed.W_E": state["transformer.wte.weight"], "pos_embed.W_pos": state["transformer.wpe.weight"]}
    for i in range(LAYERS):
        theirs, ours = f"transformer.h.{i}.", f"blocks.{i}."
        for norm in ("1", "2"):
            found[f"{ours}ln{norm}.w"] = state[f"{theirs}ln_{norm}.weight"]
            found[f"{ours}ln{norm}.b"] = state[f"{theirs}ln_{norm}.bias"]
        weights, biases = (state[f"{theirs}attn.c_attn.{x}"].chunk(3, -1) for x in ("weight", "bias"))
        for letter, weight, bias in zip("QKV", weights, biases):
            found[f"{ours}attn.W_{letter}"] = by_head(weight)
            found[f"{ours}attn.b_{letter}"] = bias.unflatten(0, (HEADS, D_HEAD))
        found[f"{ours}attn.W_O"] = state[f"{theirs}attn.c_proj.weight"].unflatten(0, (HEADS, D_HEAD))
        found[f"{ours}attn.b_O"] = state[f"{theirs}attn.c_proj.bias"]
        found[f"{ours}mlp.W_in"] = state[f"{theirs}mlp.c_fc.weight"]
        found[f"{ours}mlp.b_in"] = state[f"{theirs}mlp.c_fc.bias"]
        found[f"{ours}mlp.W_out"] = state[f"{theirs}mlp.c_proj.weight"]
        found[f"{ours}mlp.b_out"] = state[f"{theirs}mlp.c_proj.bias"]
    found |= {"ln_final.w": state["transformer.ln_f.weight"], "ln_final.b": state["transformer.ln_f.bias"]}
    return found if tied else found | {"unembed.W_U": state["lm_head.weight"].T}


def from_llama(state: dict[str, Tensor], *, tied: bool) -> dict[str, Tensor]:
    """Llama holds its matrices as (out, in)."""
    found = {"embed.W_E": state["model.embed_tokens.weight"]}
    for i in range(LAYERS):
        theirs, ours = f"model.layers.{i}.", f"blocks.{i}."
        found[f"{ours}ln1.w"] = state[f"{theirs}input_layernorm.weight"]
        found[f"{ours}ln2.w"] = state[f"{theirs}post_attention_layernorm.weight"]
        for letter in "QKV":
            found[f"{ours}attn.W_{letter}"] = by_head(state[f"{theirs}self_attn.{letter.lower()}_proj.weight"].T)
        found[f"{ours}attn.W_O"] = state[f"{theirs}self_attn.o_proj.weight"].T.unflatten(0, (HEADS, D_HEAD))
        for name, letter in (("up", "in"), ("gate", "gate"), ("down", "out")):
            found[f"{ours}mlp.W_{letter}"] = state[f"{theirs}mlp.{name}_proj.weight"].T
    found["ln_final.w"] = state["model.norm.weight"]
    return found if tied else found | {"unembed.W_U": state["lm_head.weight"].T}


def gpt2(*, tied: bool) -> tuple[torch.nn.Module, Transformer]:
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=CONTEXT, n_embd=D, n_layer=LAYERS, n_head=HEADS, n_inner=D_MLP,
        activation_function="gelu", layer_norm_epsilon=1e-5, tie_word_embeddings=tied,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    module = shaken(transformers.GPT2LMHeadModel(config))
    arch = Architecture(**SIZES, norm="layernorm", act="gelu", attn_bias=True, tied=tied)
    return module, Transformer(arch, from_gpt2(module.state_dict(), tied=tied))


def llama(*, tied: bool) -> tuple[torch.nn.Module, Transformer]:
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, max_position_embeddings=CONTEXT, hidden_size=D, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, head_dim=D_HEAD, intermediate_size=D_MLP,
        hidden_act="silu", rms_norm_eps=1e-5, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )  # fmt: skip
    module = shaken(transformers.LlamaForCausalLM(config))
    arch = Architecture(**SIZES, norm="rmsnorm", act="swiglu", positions="rotary", mlp_bias=False, tied=tied)
    return module, Transformer(arch, from_llama(module.state_dict(), tied=tied))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", [gpt2, llama], ids=["gpt2", "llama"])
def test_logits_and_residuals_are_those_of_hugging_face(family, tied):
    module, model = family(tied=tied)
    tokens = torch.randint(0, VOCAB, (4, CONTEXT), generator=Generator().manual_seed(2))
    with torch.no_grad():
        theirs = module(tokens, output_hidden_states=True)
    logits, cache = model.run(tokens, keep=["L*.resid_pre", "final_norm"])
    torch.testing.assert_close(logits, theirs.logits, rtol=1e-5, atol=1e-5)
    residuals = [*(cache[Site("resid_pre", i)] for i in range(LAYERS)), cache["final_norm"]]
    for ours, hidden in zip(residuals, theirs.hidden_states, strict=True):
        torch.testing.assert_close(ours, hidden, rtol=1e-5, atol=1e-5)
    assert logits.std() > 0.1


@pytest.mark.parametrize("family", [gpt2, llama], ids=["gpt2", "llama"])
def test_the_comparison_sees_a_weight_out_of_place(family):
    module, model = family(tied=False)
    tokens = torch.randint(0, VOCAB, (4, CONTEXT), generator=Generator().manual_seed(2))
    W_Q = model.state["blocks.0.attn.W_Q"]
    broken = Transformer(model.arch, {**model.state, "blocks.0.attn.W_Q": W_Q.flip(0)})
    with torch.no_grad(), pytest.raises(AssertionError):
        torch.testing.assert_close(broken.run(tokens).logits, module(tokens).logits, rtol=1e-5, atol=1e-5)
