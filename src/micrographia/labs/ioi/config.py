"""All choices of one run of the ioi lab, and the three presets.

`quick()` trains small transformers from scratch on the lab's own grammar and studies those; `paper()` studies GPT-2
small as Wang et al., "Interpretability in the wild: a circuit for indirect object identification in GPT-2 small"
(2022), do; `tiny()` is the quick machinery in seconds. No tensor library is imported here.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Literal

from micrographia.core.config import (
    CUSTOM,
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

LONGEST_PROMPT = 15
SIZES = {"n_layers": 2, "d_model": 64, "n_heads": 8, "d_head": 32, "d_mlp": 256}
NETWORK = partial(Blocks, **SIZES, act="gelu_new", norm="layernorm", positions="rotary")
OPTIM = partial(Optimiser, lr=3e-3, weight_decay=0.1, warmup=50)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Train a transformer on short sentences, or take a pretrained model, and ask which components do what."""

    model: str = ""
    """A model to study: a name on the Hugging Face hub or of `micrographia models`, or a path. Empty: train one from
    scratch on the lab's grammar."""
    seed: int = 0
    """Seed of weights, batches and prompts; of several networks, that of the first."""
    seeds: int = 3
    """Networks to train, at seeds that follow one another: intervals are over them."""

    network: Blocks = field(default_factory=NETWORK)
    """The network. gelu_new is GPT-2's activation."""
    n_ctx: int = 32
    """Tokens in a context: the beginning-of-text token and sentences end to end."""
    rows: int = 32
    """Contexts in a batch."""
    optim: Optimiser = field(default_factory=OPTIM)
    """AdamW with linear warm-up."""
    steps: int = 2_500
    """Batches to train on."""

    prompts: int = 256
    """Held-out prompts of each behaviour that a measure reads."""
    pairs: int = 48
    """Prompt pairs of each behaviour that patching and attribution read; circuits are judged on as many others."""
    places: int = 256
    """Places of each kind of Site that are patched exactly beside the estimates, drawn at random where more exist."""
    least: float = 0.8
    """Accuracy from which a behaviour is learned and analysed, if halfway from its baseline to 1 too. 0: all are."""
    schedule: Schedule = field(default_factory=Schedule)
    """How training is followed; snapshots are even in steps."""
    plan: Literal["fused", "plain"] = "fused"
    """Forward pass in training: fused products, or the plain transformer."""
    machine: Machine = field(default_factory=Machine)
    """Where to train and measure."""

    def __post_init__(self) -> None:
        idle = _trained(self) if self.model else []
        own = {
            f"n_ctx must be at least {LONGEST_PROMPT}, the longest prompt": self.n_ctx >= LONGEST_PROMPT,
            "least must lie between 0 and 1": 0 <= self.least <= 1,
            "attention and mlp must stay: their parts are studied": self.network.attention and self.network.mlp,
            "a pretrained model is not trained: take --preset paper, or seeds 1": not self.model or self.seeds == 1,
            f"a pretrained model is not trained: leave out {', '.join(idle)}": not idle,
        }
        validate(self, {**positive(self, ("seeds", "rows", "steps", "prompts", "pairs", "places")), **own})


def _trained(config: Config) -> list[str]:
    """The choices about making and training a network that differ from their defaults: no use beside a model."""
    made = {**flat(config.network), **flat(config.optim), **flat(config.schedule)}
    usual, about = flat(Config()), {*made, "n_ctx", "rows", "steps", "least", "plan"}
    return [name for name, value in flat(config).items() if name in about and value != usual[name]]


# Fields that say how a run is carried out or which sample it is, not what is studied.
FREE = ("seed", "seeds", "plan", "device", "threads", "eval_every", "snapshots", "checkpoint_every")


def paper() -> Config:
    """GPT-2 small, the model of the paper; nothing is trained."""
    return Config(model="gpt2", seeds=1, pairs=8, places=64)


def quick() -> Config:
    """From scratch, on the lab's own grammar. NOTES say how it was chosen and what it costs."""
    return Config()


def tiny() -> Config:
    """Same machinery, seconds on a CPU; it need not learn, so its claims are *not run*."""
    network = {"d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 32, "eval_every": 20, "checkpoint_every": 20}
    work = {"seeds": 2, "rows": 8, "steps": 60, "prompts": 16, "pairs": 4, "places": 24, "snapshots": 2, "threads": 1}
    return with_fields(quick(), least=0.0, **network, **work)


PRESETS = {"paper": paper, "quick": quick, "tiny": tiny}
GPT2 = ("gpt2", "models--gpt2", "models--openai-community--gpt2")
"""Names of GPT-2 small: its own, and those of its folder in the hub's cache."""


def is_gpt2(model: str) -> bool:
    """Whether a name or a folder says that it is GPT-2 small: it ends so, or is a snapshot in the hub's cache.

    >>> [is_gpt2(name) for name in ("openai-community/gpt2", "hub/models--gpt2/snapshots/11c5", "gpt2/tuned")]
    [True, True, False]
    """
    *_, third, second, last = ("", "", "", *PurePath(model).parts)
    return last in GPT2 or (second == "snapshots" and third in GPT2)


def preset_of(config: Config) -> str:
    """The preset whose choices these are, but for the FREE fields; else "custom".

    Any folder of GPT-2 small is as good as its name. Claims are about as many networks as their preset has, at least:
    fewer are "custom".
    """
    if is_gpt2(config.model):
        config = dataclasses.replace(config, model=paper().model)
    found = nearest_preset(config, PRESETS, FREE)
    return found if found == CUSTOM or config.seeds >= PRESETS[found]().seeds else CUSTOM
