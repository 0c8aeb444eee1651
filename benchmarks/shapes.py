"""The models of random weights that are timed, by the name of their shape, and the flags that choose among them.

"gpt2", "xl" and "gpt3" are GPT-2's architecture (sizes of GPT-2 small and XL, and of GPT-3: Brown et al. 2020, table
2.1), "7b" is Llama's and "smollm2" that of SmolLM2-135M: deep, with grouped heads. `--smoke` takes a miniature of the
same family.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from paired import Contender
from torch import Tensor

from micrographia.core.runtime import torch_dtype

N_PROMPTS, N_POS = 8, 15
SCALE = 2.5  # of the usual random weights, so that patches matter
GPT2_MINIATURE = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA_MINIATURE = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0},
}
SMOLLM2 = {
    **{"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9},
    **{"num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True},
}
GROUPED_MINIATURE = LLAMA_MINIATURE | {"num_key_value_heads": 2}


class Shape(NamedTuple):
    """A family of transformers, the sizes that are not its defaults, and those of its miniature."""

    family: str
    sizes: dict[str, int]
    miniature: dict[str, int]


SHAPES = {
    "gpt2": Shape("GPT2", {}, GPT2_MINIATURE),
    "xl": Shape("GPT2", {"n_embd": 1600, "n_layer": 48, "n_head": 25}, GPT2_MINIATURE),
    "7b": Shape("Llama", LLAMA_7B, LLAMA_MINIATURE),
    "smollm2": Shape("Llama", SMOLLM2, GROUPED_MINIATURE),
    "gpt3": Shape("GPT2", {"n_embd": 12288, "n_layer": 96, "n_head": 96, "n_positions": 2048}, GPT2_MINIATURE),
}
TIMED = ("gpt2", "xl", "7b", "smollm2")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--shape", choices=TIMED, default="gpt2", help="of the model of random weights")


def words(chosen: argparse.Namespace) -> list[str]:
    """Those flags and the thread count again, for a process of its own."""
    return [
        word for name in ("threads", "device", "dtype", "shape") for word in (f"--{name}", str(getattr(chosen, name)))
    ]


def title(benchmark: str, chosen: argparse.Namespace) -> str:
    """The benchmark's name with what is not the default."""
    odd = [str(getattr(chosen, name)) for name in ("shape", "device", "dtype")]
    return "_".join([benchmark, *(each for each in odd if each not in ("gpt2", "cpu", "float32"))])


def config_of(name: str, *, smoke: bool = False) -> Any:
    import transformers

    family, sizes, miniature = SHAPES[name]
    return getattr(transformers, f"{family}Config")(**(miniature if smoke else sizes))


def model(name: str, *, smoke: bool = False, device: str = "cpu", dtype: str = "float32") -> Any:
    """A module of that shape, its weights drawn on that device in that dtype."""
    import transformers

    family = SHAPES[name].family
    makes = getattr(transformers, "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    try:
        torch.set_default_dtype(torch_dtype(dtype))
        with torch.device(device):
            module = makes(config_of(name, smoke=smoke)).eval()
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(SCALE)
    return module


def chosen_model(chosen: argparse.Namespace) -> Any:
    return model(chosen.shape, smoke=chosen.smoke, device=chosen.device, dtype=chosen.dtype)


def some_tokens(vocab: int, device: str = "cpu", n_prompts: int = N_PROMPTS) -> dict[str, Tensor]:
    """Pairs that differ at one position, and two answers for each."""
    generator = torch.Generator().manual_seed(1)
    clean, corrupt = (torch.randint(0, vocab, (n_prompts, N_POS), generator=generator) for _ in range(2))
    corrupt = torch.cat([clean[:, :4], corrupt[:, 4:5], clean[:, 5:]], 1)
    right, wrong = (torch.randint(0, vocab, (n_prompts,), generator=generator) for _ in range(2))
    found = {"clean": clean, "corrupt": corrupt, "right": right, "wrong": wrong}
    return {name: value.to(device) for name, value in found.items()}


def save(module: Any, folder: Path) -> None:
    """The model with a toy tokenizer, without which TransformerBridge asks the hub for one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(module.config.vocab_size - 1)} | {"<end>": module.config.vocab_size - 1}
    toy = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    toy.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<end>", "eos_token": "<end>", "pad_token": "<end>", "unk_token": "<end>"}
    PreTrainedTokenizerFast(tokenizer_object=toy, **special).save_pretrained(folder / "model")
    module.save_pretrained(folder / "model")


def arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """On the CPU, and in float32 what numpy has no name for."""
    return {k: (v.float() if v.is_floating_point() else v).cpu().numpy() for k, v in tensors.items()}


def timed(name: str, run: Callable[[], object], device: str = "cpu") -> Contender:
    """`run` so many times, and the wait until an accelerator has done what it was told."""

    def repeat(count: int) -> None:
        for _ in range(count):
            run()
        wait(device)

    return Contender(name, repeat)


def wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def lens_settings(chosen: argparse.Namespace, config: Any) -> dict[str, Any]:
    """What a worker of TransformerLens needs to build the same model."""
    if config.model_type != "gpt2":
        raise SystemExit(
            f"TransformerLens was asked for with --shape {chosen.shape}; it is timed at GPT-2's shapes only."
        )
    model = {
        "n_layers": config.n_layer,
        "d_model": config.n_embd,
        "n_ctx": config.n_positions,
        "d_head": config.n_embd // config.n_head,
        "n_heads": config.n_head,
        "d_mlp": 4 * config.n_embd,
        "d_vocab": config.vocab_size,
        "act_fn": "gelu_new",
        "normalization_type": "LN",
        "eps": config.layer_norm_epsilon,
        "device": chosen.device,
    }
    return {"threads": chosen.threads, "device": chosen.device, "dtype": chosen.dtype, "model": model}


def lens_weights(module: Any) -> dict[str, np.ndarray]:
    """GPT-2's weights under TransformerLens' names, nothing folded, in float32."""
    state = {name.removeprefix("transformer."): value for name, value in module.state_dict().items()}
    heads, width = module.config.n_head, module.config.n_embd
    found = {
        "embed.W_E": state["wte.weight"],
        "pos_embed.W_pos": state["wpe.weight"],
        "unembed.W_U": state["wte.weight"].T,
    }
    found |= {"unembed.b_U": torch.zeros(module.config.vocab_size)}
    found |= {f"ln_final.{ours}": state[f"ln_f.{theirs}"] for ours, theirs in (("w", "weight"), ("b", "bias"))}
    for i in range(module.config.n_layer):
        found |= _lens_block(f"blocks.{i}.", {k.removeprefix(f"h.{i}."): v for k, v in state.items()}, heads, width)
    return arrays({name: value.contiguous() for name, value in found.items()})


def _lens_block(block: str, state: dict[str, Tensor], heads: int, width: int) -> dict[str, Tensor]:
    found = {}
    for ours, theirs in (("ln1", "ln_1"), ("ln2", "ln_2")):
        found |= {f"{block}{ours}.w": state[f"{theirs}.weight"], f"{block}{ours}.b": state[f"{theirs}.bias"]}
    for j, name in enumerate("QKV"):
        part = slice(j * width, (j + 1) * width)
        weight = state["attn.c_attn.weight"][:, part].unflatten(1, (heads, -1))
        found[f"{block}attn.W_{name}"] = weight.transpose(0, 1)
        found[f"{block}attn.b_{name}"] = state["attn.c_attn.bias"][part].unflatten(0, (heads, -1))
    found[f"{block}attn.W_O"] = state["attn.c_proj.weight"].unflatten(0, (heads, -1))
    found[f"{block}attn.b_O"] = state["attn.c_proj.bias"]
    for ours, theirs in (("in", "c_fc"), ("out", "c_proj")):
        found[f"{block}mlp.W_{ours}"] = state[f"mlp.{theirs}.weight"]
        found[f"{block}mlp.b_{ours}"] = state[f"mlp.{theirs}.bias"]
    return found


def lens_python(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tl-python", type=Path, help="Python of an environment with transformer-lens 3.9")
