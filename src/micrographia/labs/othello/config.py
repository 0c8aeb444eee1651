"""All choices of one run of the lab, and its presets.

`paper()` is the model of Li et al. 2023 (arXiv 2210.13382), section 3 and appendix, on games that are made as it
trains. `quick()` has a 6x6 board and a quarter of an hour; `tiny()` is the machinery in about a minute. No tensor
library is imported here.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from micrographia.core.config import (
    Blocks,
    Machine,
    Optimiser,
    Schedule,
    nearest_preset,
    positive,
    validate,
    with_fields,
)
from micrographia.labs.othello.engine.board import Board, Flanked

SHIPPED = "shipped"
"""The model that comes with the package."""
BATCH = 1_024
"""Positions in a batch of the dictionary."""
NETWORK = partial(
    Blocks, n_layers=6, d_model=128, n_heads=8, d_head=16, d_mlp=512, act="gelu", norm="layernorm", attn_bias=True
)
OPTIM = partial(Optimiser, lr=2e-3, weight_decay=0.1, beta1=0.9, beta2=0.95, warmup=100)
SCHEDULE = partial(Schedule, eval_every=250, snapshots=8, checkpoint_every=250)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeChoices:
    """How the board is read off the activations."""

    probe_games: int = 10_000
    """Games that the probes are fitted on."""
    test_games: int = 1_000
    """Other games, on which they are judged."""
    probe_rows: int = 25
    """Games in a batch of the probes."""
    hidden: int = 256
    """Neurons of the probes that are not linear."""

    def __post_init__(self) -> None:
        two = {"probe_rows must be at least 2, to deal boards to other games": self.probe_rows >= 2}
        validate(self, {**positive(self, ("probe_games", "test_games", "probe_rows", "hidden")), **two})


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipChoices:
    """How squares are flipped in the activations."""

    cases: int = 1_000
    """Positions of other games, with a square each, on which a flip is judged."""
    tuning_cases: int = 100
    """Cases of yet other games on which its layers and scale are chosen."""

    def __post_init__(self) -> None:
        validate(self, positive(self, ("cases", "tuning_cases")))


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentChoices:
    """The dictionary on the residual stream, where the probe of the mover's frame reads best."""

    n_latents: int = 1_024
    """Latents of a TopK dictionary; 0: none is trained."""
    k: int = 32
    """Active latents a position."""
    dictionary_games: int = 10_000
    """Games that it is trained on, again and again."""
    dictionary_steps: int = 1_000
    """Batches of 1,024 positions."""
    measured_games: int = 1_000
    """Games on which latents are chosen, and as many on which they are judged."""

    def __post_init__(self) -> None:
        counts = positive(self, ("k", "dictionary_games", "dictionary_steps", "measured_games"))
        own = {"k must be less than n_latents": not self.n_latents or self.k < self.n_latents}
        validate(self, {"n_latents must not be negative": self.n_latents >= 0, **counts, **own})


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Train a model to predict legal moves, and look for the board in it."""

    size: int = 6
    """Squares on a side of the board: 4, 6 or 8."""
    flanked: Flanked = "flipped"
    """The rules: flanked discs are flipped, of each run the "ends" alone, or "removed" (MetaOthello's variants)."""
    model: str = ""
    """Weights instead of training: "shipped", a Run of this lab, or a file named as TransformerLens or minGPT do."""
    probes: str = ""
    """Published linear probes to judge beside those that are fitted: a file of [modes, d_model, rows, columns, 3]."""
    benchmark: str = ""
    """Cases of an intervention instead of drawn ones: a JSON file of history, pos_int and ori_color."""
    allow_pickle: bool = False
    """Read a .pth file, which is a pickle: only tensors in it are made, nothing is run."""
    seed: int = 0
    """Seed of games, weights and probes."""

    network: Blocks = field(default_factory=NETWORK)
    """The model."""
    optim: Optimiser = field(default_factory=OPTIM)
    """AdamW with linear warm-up and a linear fall to nothing; with `optimiser` muon, of what is no hidden matrix."""
    optimiser: Literal["adamw", "muon"] = "muon"
    """What updates the hidden matrices."""
    muon_lr: float = 0.04
    """Rate of Muon."""
    targets: Literal["moves", "legal"] = "legal"
    """What the model learns from: the moves that were played, or for each all that were legal, as likely as each other.
    The second is the expectation of the first, with less noise."""
    games: int = 64
    """New games in a batch."""
    steps: int = 2_000
    """Batches to train the model on."""

    probing: ProbeChoices = field(default_factory=ProbeChoices)
    """Probes of every layer."""
    flipping: FlipChoices = field(default_factory=FlipChoices)
    """Interventions."""
    latents: LatentChoices = field(default_factory=LatentChoices)
    """A dictionary."""
    schedule: Schedule = field(default_factory=SCHEDULE)
    """How the training is followed."""
    machine: Machine = field(default_factory=Machine)
    """Where to train and measure."""

    def __post_init__(self) -> None:
        own = {
            "size must be 4, 6 or 8": self.size in (4, 6, 8),
            "flanked ends needs a size of 6 or 8: on 4x4 no run has a middle": self.flanked != "ends" or self.size > 4,
            "flanked must be flipped, ends or removed": self.flanked in ("flipped", "ends", "removed"),
            "attention and mlp must stay": self.network.attention and self.network.mlp,
            "muon_lr must be positive": self.muon_lr > 0,
        }
        latents = self.latents
        rows = latents.dictionary_games * self.n_ctx // 2
        own |= {
            f"dictionary_games of this size are too few for batches of {BATCH}": not latents.n_latents or rows > BATCH
        }
        validate(self, {**positive(self, ("games", "steps")), **own})

    @property
    def board(self) -> Board:
        """The board of the games, and their rules."""
        return Board(self.size, self.flanked)

    @property
    def n_ctx(self) -> int:
        """Moves that the model reads: all of a game but the last."""
        return self.size**2 - 5


# Fields that say how a run is carried out or which sample it is, not what is studied.
FREE = (
    "seed", "device", "threads", "eval_every", "snapshots", "checkpoint_every", "model", "probes", "benchmark",
    "allow_pickle",
)  # fmt: skip


def paper() -> Config:
    """Li et al. 2023: 8 layers of 512 on 8x8, the moves that were played, AdamW. 20 million games. Not run here."""
    network = {"n_layers": 8, "d_model": 512, "n_heads": 8, "d_head": 64, "d_mlp": 2_048}
    training = {"optimiser": "adamw", "lr": 5e-4, "warmup": 500, "targets": "moves", "games": 512, "steps": 40_000}
    probing = {"probe_games": 100_000, "hidden": 512, "n_latents": 4_096, "dictionary_games": 100_000}
    return with_fields(Config(), size=8, **network, **training, **probing)


def quick() -> Config:
    """A 6x6 board from nothing; with `--model shipped` the model that comes with the package instead of training. NOTES
    say how the sizes were chosen and what they cost."""
    return Config()


def tiny() -> Config:
    """Same machinery on a 4x4 board in about a minute; too short for its claims, which are *not run*."""
    network = {"n_layers": 2, "d_model": 32, "n_heads": 2, "d_head": 16, "d_mlp": 128}
    short = {"games": 32, "steps": 200, "eval_every": 50, "snapshots": 2, "cases": 50, "tuning_cases": 30}
    probing = {"probe_games": 2_000, "probe_rows": 20, "test_games": 200, "hidden": 32}
    latents = {"n_latents": 64, "k": 8, "dictionary_games": 1_000, "dictionary_steps": 100, "measured_games": 200}
    return with_fields(Config(), size=4, **network, **short, **probing, **latents)


PRESETS = {"paper": paper, "quick": quick, "tiny": tiny}


def preset_of(config: Config) -> str:
    """The preset whose choices these are, but for the FREE fields; else "custom"."""
    return nearest_preset(config, PRESETS, FREE)
