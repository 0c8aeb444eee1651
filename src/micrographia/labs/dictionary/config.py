"""All choices of one run of the dictionary lab, and the three presets.

`quick()` trains a one-layer language model on text that every user has, the Python standard library's own, and
dictionaries of its neurons; `paper()` is the setting of Nanda, "Some open source sparse autoencoders for a one-layer
model" (2023): gelu-1l and its two published autoencoders. `tiny()` is the quick machinery in about a minute. No tensor
library is imported here.
"""

from dataclasses import dataclass, field
from functools import partial

from micrographia.core.config import (
    Blocks,
    Machine,
    Optimiser,
    Schedule,
    flat,
    nearest_preset,
    positive,
    validate,
    with_fields,
)

NETWORK = partial(
    Blocks, n_layers=1, d_model=64, n_heads=4, d_head=16, d_mlp=256, act="gelu_new", norm="layernorm", attn_bias=True
)
OPTIM = partial(Optimiser, lr=3e-3, weight_decay=0.1, warmup=100)
SCHEDULE = partial(Schedule, eval_every=200, snapshots=1, checkpoint_every=200)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dictionaries:
    """The dictionaries that are trained on the neurons, and how."""

    seeds: int = 2
    """Dictionaries of the published recipe, alike but for their seed."""
    expansion: int = 8
    """Latents a neuron; 8 as published."""
    l1: float = 0.1
    """Weight of the sum of the latents beside the squared error, both of inputs scaled to a mean squared norm of 1."""
    dictionary_lr: float = 1e-3
    """Rate of Adam."""
    dictionary_steps: int = 1_600
    """Batches to train each dictionary on."""
    activations: int = 1_024
    """Tokens in a batch."""
    buffer_mb: int = 256
    """Memory of the buffer that mixes them."""
    moments: int = 5
    """How often the dictionaries are looked at while they are trained, the end among them."""

    def __post_init__(self) -> None:
        counts = ("seeds", "expansion", "dictionary_steps", "activations", "buffer_mb", "moments")
        own = {
            "l1 must not be negative": self.l1 >= 0,
            "dictionary_lr must be positive": self.dictionary_lr > 0,
            "moments must not exceed dictionary_steps": self.moments <= self.dictionary_steps,
        }
        validate(self, {**positive(self, counts), **own})


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Train a one-layer language model on text and dictionaries on its neurons, and ask what they consist of."""

    text: str = ""
    """What to read: a file, a folder, a JSONL file, or hf:NAME. Empty: the Python standard library's own sources."""
    tokens: int | None = None
    """Tokens of the text to read, from its beginning; null: all of it."""
    model: str = ""
    """A pretrained one-layer model instead of training one: gelu-1l, a folder of its layout, or a Run of this lab."""
    published: str = ""
    """Published autoencoders of that model instead of training some: their folder, or a repository of the Hub."""
    allow_pickle: bool = False
    """Whether the published files, which are pickles, may be read; tensors only."""
    seed: int = 0
    """Seed of tokens, weights and batches; of several dictionaries, that of the first."""

    n_vocab: int = 4_096
    """Tokens of the byte-pair tokenizer that is trained on the text."""
    n_ctx: int = 128
    """Tokens in a context, the beginning-of-text token among them."""
    network: Blocks = field(default_factory=NETWORK)
    """The language model: a transformer of one layer, as published, but smaller."""
    optim: Optimiser = field(default_factory=OPTIM)
    """AdamW with linear warm-up."""
    rows: int = 32
    """Contexts in a batch of the language model."""
    steps: int = 1_200
    """Batches to train the language model on."""

    dictionaries: Dictionaries = field(default_factory=Dictionaries)
    """The dictionaries."""
    held_out: int = 500_000
    """Tokens that nothing is trained on: frequencies and losses are of these. One firing in them is the finest
    frequency that can be told from none."""
    loss_tokens: int = 32_768
    """So many of them for each loss with a dictionary spliced in."""
    schedule: Schedule = field(default_factory=SCHEDULE)
    """How the training of the language model is followed."""
    machine: Machine = field(default_factory=Machine)
    """Where to train and measure."""

    def __post_init__(self) -> None:
        idle = _idle(self)
        own = {
            f"what is given is not trained: leave out {', '.join(idle)}": not idle,
            "n_layers must be 1: the lab is about models of one layer": self.network.n_layers == 1,
            "attention and mlp must stay": self.network.attention and self.network.mlp,
            "tokens must exceed held_out": self.tokens is None or self.tokens > self.held_out,
            "n_vocab must exceed 256, the bytes": self.n_vocab > 256,
            "n_ctx must be at least 4": self.n_ctx >= 4,
            "loss_tokens must not exceed held_out": self.loss_tokens <= self.held_out,
            "published autoencoders need their model": bool(self.model) or not self.published,
        }
        validate(self, {**positive(self, ("rows", "steps", "held_out", "loss_tokens")), **own})


def _idle(config: Config) -> list[str]:
    """The choices about training what is given that differ from their defaults: of no use."""
    made = {*flat(config.network), *flat(config.optim), "rows", "steps", "n_vocab"} if config.model else set()
    made |= set(flat(config.dictionaries)) if config.published else set()
    usual = flat(Config()) if made else {}
    return [name for name, value in flat(config).items() if name in made and value != usual[name]]


# Fields that say how a run is carried out or which sample it is, not what is studied.
FREE = ("seed", "device", "threads", "eval_every", "snapshots", "checkpoint_every", "allow_pickle")


def paper() -> Config:
    """gelu-1l and the two published autoencoders of its 2,048 neurons; nothing is trained."""
    about = {"model": "gelu-1l", "published": "NeelNanda/sparse_autoencoder", "text": "hf:NeelNanda/c4-code-20k"}
    return with_fields(quick(), **about, held_out=1_638_400, tokens=1_700_000)


def quick() -> Config:
    """From scratch. NOTES say how the sizes were chosen and what they cost."""
    return Config()


def tiny() -> Config:
    """Same machinery in about a minute; too short for its claims, which are *not run*."""
    network = {"d_model": 32, "n_heads": 2, "d_head": 16, "d_mlp": 128, "n_vocab": 1_024, "rows": 16}
    short = {"steps": 300, "eval_every": 100, "dictionary_steps": 200, "activations": 1_024, "moments": 3}
    return with_fields(quick(), **network, **short, tokens=600_000, held_out=100_000, loss_tokens=16_384)


PRESETS = {"paper": paper, "quick": quick, "tiny": tiny}


def preset_of(config: Config) -> str:
    """The preset whose choices these are, but for the FREE fields; else "custom"."""
    return nearest_preset(config, PRESETS, FREE)
