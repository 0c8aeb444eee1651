"""Small models of every kind, for the tests to share: a grid of architectures, their weights and tokens.

`GRID` is every combination that differs, under a name such as "2-layernorm-gelu-rotary-tied"; `A_FEW` is one of each
kind. `architectures()` draws any, with odd sizes.
"""

from itertools import product

import torch
from hypothesis import strategies as st
from torch import Tensor

from micrographia.core.graph import Node
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.methods.circuits.members import Part

LAYERS = (1, 2)
NORMS = ("none", "layernorm", "rmsnorm")
ACTS = ("relu", "gelu", "gelu_new", "silu", "tanh", "square", "swiglu")
POSITIONS = ("learned", "rotary")
FLAGS = (False, True)
GRID_ACTS = ("relu", "gelu", "swiglu")
SIZES = {"d_vocab": 7, "d_vocab_out": 6, "n_ctx": 4, "d_model": 10, "n_heads": 3, "d_head": 4, "d_mlp": 12}


def _grid() -> dict[str, Architecture]:
    found = {}
    for layers, norm, tied in product(LAYERS, NORMS, FLAGS):
        for act, positions, bias in product(GRID_ACTS, POSITIONS, FLAGS):
            found |= _named(n_layers=layers, norm=norm, act=act, positions=positions, tied=tied, attn_bias=bias)
        for positions, bias in product(POSITIONS, FLAGS):
            found |= _named(n_layers=layers, norm=norm, positions=positions, tied=tied, attn_bias=bias, mlp=False)
        for act in GRID_ACTS:
            found |= _named(n_layers=layers, norm=norm, act=act, tied=tied, attention=False)
            found |= _named(n_layers=layers, norm=norm, act=act, tied=tied, attention=False, joined="summed")
    return found


def _named(**choices: object) -> dict[str, Architecture]:
    words = [
        str(value) if not isinstance(value, bool) else name for name, value in choices.items() if value is not True
    ]
    words = [word for word in words if word != "tied" and word != "attn_bias"]
    words += [name for name in ("tied", "attn_bias") if choices.get(name)]
    words = [{"attention": "mlp_only", "mlp": "attention_only"}.get(word, word) for word in words]
    return {"-".join(words): Architecture(**SIZES, **choices)}


GRID = _grid()
A_FEW = {
    "plain": Architecture(**SIZES),
    "plain-2": Architecture(**SIZES, n_layers=2, act="gelu", attn_bias=True, tied=True),
    "normed": Architecture(**SIZES, n_layers=2, norm="layernorm", act="gelu"),
    "biased": Architecture(**SIZES, norm="layernorm", attn_bias=True, unembed_bias=True),
    "modern": Architecture(**SIZES, n_layers=2, norm="rmsnorm", act="swiglu", positions="rotary", mlp_bias=False),
    "attention-only": Architecture(**SIZES, n_layers=2, mlp=False),
    "mlp-only": Architecture(**SIZES, n_layers=2, attention=False, norm="layernorm"),
    "summed": Architecture(**SIZES, n_layers=2, attention=False, joined="summed", norm="layernorm"),
}


def small_model(arch: Architecture, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Transformer:
    """Random weights, biases and gains too: at their published start those would hide mistakes."""
    weights = init_weights(arch, torch.Generator().manual_seed(seed), dtype=dtype)
    return Transformer(arch, roughened(weights, seed))


def roughened(weights: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Biases and gains moved off their start."""
    generator = torch.Generator().manual_seed(seed + 1000)
    flat = {name for name in weights if name.rpartition(".")[2][0] in "bw"}
    return {
        name: w + 0.3 * torch.randn(w.shape, generator=generator).to(w) if name in flat else w
        for name, w in weights.items()
    }


def some_tokens(arch: Architecture, *, batch: int = 5, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, arch.d_vocab, (batch, arch.n_ctx), generator=generator)


@st.composite
def architectures(draw: st.DrawFn, **fixed: object) -> Architecture:
    """Any architecture of small, odd sizes; `fixed` holds some choices."""
    attention, mlp = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    d_vocab = draw(st.integers(3, 9))
    choices = {
        "d_vocab": d_vocab,
        "d_vocab_out": draw(st.integers(2, d_vocab)),
        "n_ctx": draw(st.integers(2, 4)),
        "n_layers": draw(st.sampled_from(LAYERS)),
        "d_model": draw(st.integers(2, 9)),
        "n_heads": draw(st.integers(1, 3)),
        "d_head": 2 * draw(st.integers(1, 3)),
        "d_mlp": draw(st.integers(1, 9)),
        "act": draw(st.sampled_from(ACTS)),
        "norm": draw(st.sampled_from(NORMS)),
        "positions": draw(st.sampled_from(POSITIONS)),
        "attn_bias": draw(st.booleans()),
        "mlp_bias": draw(st.booleans()),
        "unembed_bias": draw(st.booleans()),
        "tied": draw(st.booleans()),
        "attention": attention,
        "mlp": mlp,
    }
    choices |= fixed
    if not choices["attention"]:
        choices.setdefault("joined", draw(st.sampled_from(("concatenated", "summed"))))
    return Architecture(**choices)


class Halves:
    """A toy dictionary: it keeps the first half of the units, so that the other half is its error."""

    def encode(self, activation: Tensor) -> Tensor:
        return 8 * activation[..., : activation.shape[-1] // 2]

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat([latents / 8, torch.zeros_like(latents)], -1)


def head(layer: int, index: int) -> Part:
    """A head at all positions."""
    return Part(Node(Site("z", layer), index))


def mlp(layer: int) -> Part:
    """An MLP at all positions."""
    return Part(Node(Site("mlp_out", layer)))
