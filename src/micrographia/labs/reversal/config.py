"""All choices of one run of the lab, and its presets. No tensor library is imported here.

The toy is ours, after Zhu et al. 2024 (arXiv 2405.04669) and Wang and Sun 2025 (arXiv 2504.01928), shrunk to minutes;
every entity of a held-out pair is read and answered in training.
"""

from dataclasses import dataclass, field
from functools import partial

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
from micrographia.labs.reversal.finetune.config import TuningChoices

NETWORK = partial(Blocks, n_layers=1, d_model=64, n_heads=4, d_head=16, d_mlp=256)
OPTIM = partial(Optimiser, lr=2e-3, weight_decay=0.1)
SCHEDULE = partial(Schedule, eval_every=50, snapshots=1, checkpoint_every=200)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Teach facts in one direction, and ask for the other."""

    entities: int = 600
    """Entities, each with one partner in every relation."""
    shared: float = 2 / 3
    """Share of the entities whose facts are taught in both directions; the others' are taught in one."""
    relations: int = 3
    """Relations, each with its inverse."""
    identity_weight: float = 1 / 6
    """How often a row of an identity bridge is drawn, for each time that a fact is."""
    seeds: int = 3
    """Networks of every arm, each with its own facts."""
    many: int = 10
    """Networks of the arm by which forward and reverse are held to be equal to chance: that takes many facts."""
    seed: int = 0
    """Seed of the first; the others have those that follow."""
    model: str = ""
    """A pretrained model to fine-tune instead of training the toys: a name on the hub or of `micrographia models`, a
    folder or a .gguf file. Of the other choices only seed, machine and `tuning` then count."""
    tuning: TuningChoices = field(default_factory=TuningChoices)
    """How that model is taught and asked."""

    network: Blocks = field(default_factory=NETWORK)
    """The toy; some arms change its layers, its MLP or its tying."""
    optim: Optimiser = field(default_factory=OPTIM)
    """AdamW with linear warm-up."""
    batch: int = 256
    """Rows of a step, drawn with replacement."""
    steps: int = 800
    """Steps of training."""
    edits: int = 50
    """Facts that are rewritten, each alone."""
    draws: int = 200
    """Permutations of every null."""
    schedule: Schedule = field(default_factory=SCHEDULE)
    """How the training is followed."""
    machine: Machine = field(default_factory=Machine)
    """Where to train and measure."""

    def __post_init__(self) -> None:
        counts = positive(self, ("entities", "relations", "seeds", "many", "batch", "steps", "edits", "draws"))
        network = self.network
        plan = network.attention and network.mlp and network.norm == "none" and network.positions == "learned"
        own = {
            "relations must be at least 2, so that every entity is read and answered": self.relations >= 2,
            "entities must be at least 40": self.entities >= 40,
            "shared must lie in (0, 1); the arm that shares nothing is there anyway": 0 < self.shared < 1,
            "entities x (1 - shared) must be at least 5 x relations, so that enough is held out": (
                self.entities * (1 - self.shared) >= 5 * self.relations - 1e-9
            ),
            "identity_weight must lie in (0, 1]": 0 < self.identity_weight <= 1,
            "network must have attention and mlp, learned positions, and neither norm nor attn_bias": plan
            and not network.attn_bias
            and network.act != "swiglu",
        }
        validate(self, {**counts, **own})


# Fields that say how a run is carried out or which sample it is, not what is studied.
FREE = ("seed", "device", "threads", "eval_every", "snapshots", "checkpoint_every")


def paper() -> Config:
    """Two layers of 256, 4,800 entities, ten seeds: about 400 times the work of `quick`, so for an accelerator. Not run
    here. No paper has this toy; theirs are GPT-2 of 24 layers."""
    network = {"n_layers": 2, "d_model": 256, "d_head": 64, "d_mlp": 1_024}
    return with_fields(Config(), entities=4_800, seeds=10, steps=6_000, batch=512, lr=1e-3, **network)


def quick() -> Config:
    """Three seeds of every arm, about ten minutes on two cores."""
    return Config()


def real() -> Config:
    """SmolLM2-135M, fine-tuned in one direction on invented people. NOTES of `finetune` say how long it takes."""
    return with_fields(Config(), model="smollm2")


def tiny() -> Config:
    """The same machinery with sixty entities in some seconds; its claims are *not run*."""
    network = {"d_model": 32, "n_heads": 2, "d_mlp": 64}
    short = {"steps": 60, "batch": 64, "eval_every": 30, "checkpoint_every": 30, "edits": 5, "draws": 20}
    return with_fields(Config(), entities=60, seeds=1, many=1, **network, **short)


PRESETS = {"paper": paper, "quick": quick, "real": real, "tiny": tiny}


def preset_of(config: Config) -> str:
    """The preset whose choices these are, but for the FREE fields; else "custom". Of any model that is fine-tuned as
    SmolLM2 is: "real"."""
    if config.model:
        return nearest_preset(config, {"real": real}, (*FREE, "model"))
    return nearest_preset(config, {name: each for name, each in PRESETS.items() if name != "real"}, FREE)
