"""All choices of one grokking run, and the three presets.

`paper()` is the mainline run of Nanda et al., "Progress measures for grokking via mechanistic interpretability"
(2023), section 3 and appendix A; `quick()` is the same problem at a stronger learning rate and decay, so that a laptop
sees all three phases in a minute; `tiny()` is the same machinery in seconds. No tensor library is imported here.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from micrographia.core.config import Blocks, Machine, Optimiser, Schedule, nearest_preset, validate, with_fields

Operation = Literal["add", "subtract", "multiply", "polynomial"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Learn `a o b mod p` from a part of all p * p pairs, written as the tokens a, b, "="."""

    modulus: int = 113
    """p. With a prime, as published, all frequencies are alike; with a composite not, and multiply is refused."""
    operation: Operation = "add"
    """add: a+b, subtract: a-b, multiply: a*b, polynomial: a^2+ab+b^2, all mod p."""
    train_fraction: float = 0.3
    """Fraction of the pairs that the model is trained on."""
    split: Literal["shuffle", "randperm"] = "shuffle"
    """Which pairs: python's random.shuffle, as in the paper's code, or torch.randperm, as in TransformerLens' demo."""
    seed: int = 0
    """Seed of the initial weights, and of the split unless `split_seed` is given."""
    split_seed: int | None = None
    """Seed of the split alone, to separate the effects of weights and data."""

    network: Blocks = field(default_factory=Blocks)
    """The network. The defaults are the paper's mainline: one layer, no norm, no biases in attention."""
    optim: Optimiser = field(default_factory=Optimiser)
    """AdamW; the first step has rate 0, as published. Biases and embeddings decay too."""
    epochs: int = 40_000
    """Full-batch steps."""

    schedule: Schedule = field(default_factory=partial(Schedule, eval_every=1, snapshots=120, checkpoint_every=500))
    """What is kept: snapshots half evenly spaced in log epochs, half in epochs. A step is an epoch."""
    plan: Literal["auto", "plain", "fast"] = "auto"
    """Forward and backward pass: the plain transformer, or the fast plan for one layer read at its last position."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the weights. The loss keeps the accuracy of a float64 log-softmax in either."""
    machine: Machine = field(default_factory=Machine)
    """Where to train and measure."""

    def __post_init__(self) -> None:
        checks = {
            "modulus must be at least 3": self.modulus >= 3,
            "train_fraction must lie strictly between 0 and 1": 0 < self.train_fraction < 1,
            "train_fraction must give at least one pair": self.train_fraction * self.modulus**2 >= 1,
            "multiply needs a prime modulus": self.operation != "multiply" or is_prime(self.modulus),
            "epochs must be positive": self.epochs >= 1,
        }
        validate(self, checks)

    @property
    def effective_split_seed(self) -> int:
        return self.seed if self.split_seed is None else self.split_seed


# Fields that say how a run is carried out or which sample it is, not what is studied: a preset's claims are judged
# whatever these are.
FREE = ("seed", "split_seed", "plan", "device", "threads", "eval_every", "snapshots", "checkpoint_every")


def paper() -> Config:
    """Mainline: 40,000 epochs, the length at which the paper analyses its network (50,000 were configured)."""
    return Config()


def quick() -> Config:
    """The paper's problem, about a minute on two cores.

    Rate and decay were chosen on the phases of seeds 0 to 4 alone: all five memorise, form the circuit, clean up and
    settle within 725 epochs, and none slingshots, as two of five do at 3e-3 with decay 3.
    """
    return with_fields(
        paper(), lr=2e-3, weight_decay=5.0, epochs=1_200, eval_every=25, snapshots=48, checkpoint_every=200
    )


def tiny() -> Config:
    """Same machinery, seconds on a CPU; it need not grok, so its claims are *not run*."""
    small = {"modulus": 29, "train_fraction": 0.6, "d_model": 32, "n_heads": 2, "d_head": 16, "d_mlp": 64}
    short = {"epochs": 150, "eval_every": 5, "snapshots": 12, "checkpoint_every": 25}
    return with_fields(quick(), **small, **short, threads=1)


PRESETS = {"paper": paper, "quick": quick, "tiny": tiny}


def preset_of(config: Config) -> str:
    """The preset whose choices these are, but for the FREE fields; else "custom".

    "paper-short" is the paper's run stopped early, at 20,000 epochs or later: by then its set of key frequencies has
    settled, so claims about sets are judged there too.
    """
    whole = dataclasses.replace(config, epochs=paper().epochs)
    early = SETTLED <= config.epochs < whole.epochs and nearest_preset(whole, PRESETS, FREE) == "paper"
    return "paper-short" if early else nearest_preset(config, PRESETS, FREE)


SETTLED = 20_000  # epochs


def is_prime(n: int) -> bool:
    return n >= 2 and all(n % k for k in range(2, int(n**0.5) + 1))
