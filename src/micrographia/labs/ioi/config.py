"""All choices of one run of the ioi lab, and the three presets.

`quick()` trains small transformers on the lab's own grammar, from nothing, and studies those; `paper()` studies GPT-2
small as Wang et al., "Interpretability in the wild: a circuit for indirect object identification in GPT-2 small"
(2022), do; `tiny()` is the quick machinery in seconds. No tensor library is imported here.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from micrographia.core.config import nearest_preset, positive, training, validate


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Train a transformer on short sentences, or take a model that is there, and ask which components do what."""

    model: str = ""
    """A model of Hugging Face (name or folder) to study. Empty: train one from nothing on the lab's grammar."""
    seed: int = 0
    """Seed of weights, batches and prompts; of several networks, that of the first."""
    seeds: int = 3
    """Networks to train, at seeds that follow one another: intervals are over them."""

    n_layers: int = 2
    """Transformer blocks."""
    d_model: int = 64
    """Width of the residual stream."""
    n_heads: int = 8
    """Attention heads a layer."""
    d_head: int = 32
    """Width of a head."""
    d_mlp: int = 256
    """Neurons a layer."""
    act: Literal["relu", "gelu", "gelu_new", "silu", "swiglu"] = "gelu_new"
    """Activation of the neurons; gelu_new is GPT-2's."""
    norm: Literal["none", "layernorm", "rmsnorm"] = "layernorm"
    """Normalisation before attention, MLP and unembedding."""
    positions: Literal["learned", "rotary"] = "rotary"
    """How the model knows positions."""

    n_ctx: int = 32
    """Tokens in a context: the beginning-of-text token and sentences end to end."""
    rows: int = 32
    """Contexts in a batch."""
    lr: float = 3e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.1
    """Decoupled decay on all parameters."""
    beta1: float = 0.9
    """AdamW's decay of the mean."""
    beta2: float = 0.98
    """AdamW's decay of the square."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    warmup: int = 50
    """Steps of linear warm-up."""
    steps: int = 2_500
    """Batches to train on."""

    prompts: int = 256
    """Held-out prompts of each behaviour that a measure reads."""
    pairs: int = 48
    """Prompt pairs of each behaviour that patching and attribution read; circuits are judged on as many others."""
    places: int = 256
    """Places of each kind of Site that are patched exactly beside the estimates, by lot where there are more."""
    least: float = 0.8
    """Accuracy from which a behaviour is learned and taken apart, if halfway from form alone to 1 too. 0: all are."""
    eval_every: int = 100
    """Steps between measures of the behaviours on held-out prompts."""
    snapshots: int = 6
    """Sets of weights kept along training, evenly in steps, beside the first."""
    checkpoint_every: int = 250
    """Steps between checkpoints to resume from."""
    plan: Literal["fused", "plain"] = "fused"
    """Forward pass in training: fused products, or the plain transformer."""
    device: str = "cpu"
    """Where to train and measure."""
    threads: int | None = None
    """CPU threads; by default the cores this process may use. Stored in the Run and reused on resumption."""

    def __post_init__(self) -> None:
        sizes = ("seeds", "n_layers", "d_model", "n_heads", "d_head", "d_mlp", "rows", "steps")
        sizes += ("prompts", "pairs", "places", "eval_every", "snapshots", "checkpoint_every")
        idle = [name for name in (*TRAINING, *LEARNING) if self.model and getattr(self, name) != DEFAULTS[name]]
        own = {
            f"n_ctx must be at least {LONGEST_PROMPT}, the longest prompt": self.n_ctx >= LONGEST_PROMPT,
            "least must lie between 0 and 1": 0 <= self.least <= 1,
            "rotary positions need an even d_head": self.positions != "rotary" or self.d_head % 2 == 0,
            "a model that is there is not trained: take --preset paper, or seeds 1": not self.model or self.seeds == 1,
            f"a model that is there is not trained: leave out {', '.join(idle)}": not idle,
        }
        validate(self, {**positive(self, sizes), **own, **training(self)})


LONGEST_PROMPT = 15

TRAINING = ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "act", "norm", "positions", "n_ctx", "rows", "lr")
TRAINING += ("weight_decay", "beta1", "beta2", "eps", "warmup", "steps")
"""Fields that say how a network is made and trained: of no effect on a model that is there, so refused beside one."""
LEARNING = ("least", "eval_every", "snapshots", "checkpoint_every", "plan")
"""Fields that say how a training is carried out and followed, and what it must reach: refused there too."""
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Config)}

# Fields that say how a run is carried out or which sample it is, not what is studied.
FREE = ("seed", "seeds", "plan", "device", "threads", "eval_every", "snapshots", "checkpoint_every")


def paper() -> Config:
    """GPT-2 small, the model of the paper; nothing is trained."""
    return Config(model="gpt2", seeds=1, pairs=8, places=64)


def quick() -> Config:
    """From nothing, on the lab's own grammar. NOTES say how it was chosen and what it costs."""
    return Config()


def tiny() -> Config:
    """Same machinery, seconds on a CPU; it need not learn, so its claims are *not run*."""
    return dataclasses.replace(
        quick(),
        seeds=2,
        d_model=16,
        n_heads=2,
        d_head=8,
        d_mlp=32,
        rows=8,
        steps=60,
        prompts=16,
        pairs=4,
        places=24,
        least=0.0,
        eval_every=20,
        snapshots=2,
        checkpoint_every=20,
        threads=1,
    )


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

    Any folder of GPT-2 small is as good as its name.
    """
    if is_gpt2(config.model):
        config = dataclasses.replace(config, model=paper().model)
    return nearest_preset(config, PRESETS, FREE)
