"""All choices of one run of the lab, and its presets.

The task and the sizes of the models are those that a study of facts in a small world needs: names are shared, and there
are many more entities than names, so that no embedding can hold the table. `quick()` takes about five minutes on two
cores, `tiny()` is the machinery in 20 seconds, `paper()` has larger sizes. No tensor library is imported here.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from micrographia.core.config import (
    CUSTOM,
    Blocks,
    Machine,
    Optimiser,
    Schedule,
    nearest_preset,
    positive,
    validate,
    with_fields,
)
from micrographia.labs.facts.known.config import KnownChoices

NETWORK = partial(
    Blocks, n_layers=3, d_model=64, n_heads=4, d_head=16, d_mlp=256, act="gelu", norm="layernorm", attn_bias=True
)
OPTIM = partial(Optimiser, lr=3e-3, weight_decay=0.0, warmup=50)
SCHEDULE = partial(Schedule, eval_every=50, snapshots=8, checkpoint_every=250)
CROWDED = 4
"""Entities must be at least this many times the names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldChoices:
    """Entities with a first and a last name, and what is true of each."""

    first_names: int = 40
    """First names, each shared by many entities."""
    last_names: int = 40
    """Last names, likewise."""
    entities: int = 1_024
    """Known pairs of a first and a last name; all other pairs are unknown names."""
    values: tuple[int, ...] = (3, 16)
    """How many values each relation has: one relation an entry."""
    rule_p: float = 0.0
    """The share of facts that follow a rule, by which the last name says the value; the others are drawn evenly."""
    zipf: float = 0.0
    """Exposure of the entity of rank n is as n to the minus this; 0: all alike."""

    def __post_init__(self) -> None:
        names, cells = self.first_names + self.last_names, self.first_names * self.last_names
        validate(
            self,
            {
                **positive(self, ("first_names", "last_names", "entities")),
                f"entities must be at least {CROWDED} times all names ({CROWDED * names}), or embeddings could hold "
                "the facts": self.entities >= CROWDED * names,
                f"entities must be fewer than first_names x last_names ({cells}), so that some names are unknown": (
                    self.entities < cells
                ),
                "values must name one relation or more, each of two values or more": bool(self.values)
                and min(self.values) >= 2,
                "rule_p must lie between 0 and 1": 0 <= self.rule_p <= 1,
                "zipf must not be negative": self.zipf >= 0,
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Train models on facts about entities, and ask how they recall them."""

    seed: int = 11
    """Seed of world, weights, batches and splits; of several networks, that of the first."""
    seeds: int = 3
    """Networks of each kind to train, at seeds that follow one another: intervals are over them."""
    kind: Literal["transformer", "effective"] = "transformer"
    """A causal transformer, or the study's effective model: two summed embeddings, MLPs, a readout for each relation.
    The Run trains both; this is the kind of a single network within it."""
    world: WorldChoices = field(default_factory=WorldChoices)
    """Names and facts."""
    filler: int = 1
    """Words before a name, from none to this many."""
    together: bool = True
    """All facts of an entity in one sequence, instead of one fact."""
    order: Literal["random", "fixed"] = "random"
    """Where facts stand together: in random order (augmented), or always in one order."""
    frozen: bool = False
    """Embeddings stay as they were drawn."""

    network: Blocks = field(default_factory=NETWORK)
    """The transformer; the effective model has its widths."""
    mlps: int = 5
    """Layers of the effective model, as many as the study's MLPs 2 to 6."""
    optim: Optimiser = field(default_factory=OPTIM)
    """AdamW with linear warm-up and a linear fall to nothing."""
    rows: int = 128
    """Sequences in a batch of the transformer; the effective model sees every fact at each step."""
    steps: int = 800
    """Batches of the transformer."""
    epochs: int = 120
    """Steps of the effective model: exposures of each fact."""

    rules: tuple[float, ...] = (0.3, 0.6, 0.9)
    """Shares of facts that follow a rule, beside none, each in a world of its own for the effective model."""
    widths: tuple[int, ...] = (8, 12, 16, 24)
    """Widths of small effective models, of two layers, whose capacity is measured."""
    exposures: tuple[int, ...] = (100, 300, 1_000)
    """How often those see each fact."""

    model: str = ""
    """A pretrained model to look into instead of training: a name on the hub or of `micrographia models`, a folder or a
    .gguf file. Of the other choices only seed, machine and `known` then count."""
    known: KnownChoices = field(default_factory=KnownChoices)
    """What that model is asked, and how it is looked into."""

    splits: int = 10
    """Splits of the entities, 80 to 20, on which probes are fitted and judged."""
    pairs: int = 256
    """Pairs of entities that patching reads."""
    schedule: Schedule = field(default_factory=SCHEDULE)
    """How training is followed."""
    machine: Machine = field(default_factory=Machine)
    """Where to train and measure."""

    def __post_init__(self) -> None:
        counts = positive(self, ("seeds", "mlps", "rows", "steps", "epochs", "splits", "pairs"))
        own = {
            "mlps must be at least 2: its second is studied": self.mlps > 1,
            "filler must not be negative": self.filler >= 0,
            "rules must lie between 0 and 1, and differ": _differ(self.rules) and all(0 < p <= 1 for p in self.rules),
            "widths must be positive and differ": _differ(self.widths) and min(self.widths, default=1) >= 1,
            "exposures must be positive and differ": _differ(self.exposures) and min(self.exposures, default=1) >= 1,
            "attention and mlp must stay: their parts are studied": self.network.attention and self.network.mlp,
        }
        validate(self, {**counts, **own})

    @property
    def n_relations(self) -> int:
        return len(self.world.values)

    @property
    def n_ctx(self) -> int:
        """Tokens that the transformer reads: a start, filler, two names, a relation; with more facts, those too."""
        facts = self.n_relations if self.together else 1
        return 1 + self.filler + 2 + 2 * facts - 1


def _differ(values: tuple[float, ...]) -> bool:
    return len(set(values)) == len(values)


# Fields that say how a run is carried out or which sample it is, not what is studied.
FREE = ("seed", "seeds", "device", "threads", "eval_every", "snapshots", "checkpoint_every")


def paper() -> Config:
    """Four layers, 64 first and 64 last names, 2,048 entities. About an hour on two cores; not run here."""
    return with_fields(quick(), first_names=64, last_names=64, entities=2_048, n_layers=4, steps=2_500, epochs=500)


def quick() -> Config:
    """About five minutes on two cores. NOTES say how the sizes were chosen."""
    return Config()


def real() -> Config:
    """SmolLM2-135M on the relations that come with the package."""
    return with_fields(quick(), model="smollm2")


def tiny() -> Config:
    """Same machinery in 20 seconds; it need not learn, so its claims are *not run*."""
    world = {"first_names": 12, "last_names": 12, "entities": 100, "values": (3, 4)}
    sizes = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 32, "mlps": 2, "widths": (4,)}
    arms = {"rules": (0.9,), "exposures": (40,)}
    short = {"rows": 64, "steps": 40, "epochs": 40, "eval_every": 10, "snapshots": 3, "checkpoint_every": 20}
    return with_fields(quick(), seeds=2, splits=2, pairs=16, **world, **sizes, **arms, **short)


PRESETS = {"paper": paper, "quick": quick, "real": real, "tiny": tiny}


def preset_of(config: Config) -> str:
    """The preset whose choices these are, but for the FREE fields; fewer seeds than its own are "custom". Of any model
    that is looked into as SmolLM2 is: "real"."""
    if config.model:
        return nearest_preset(config, {"real": real}, (*FREE, "model"))
    found = nearest_preset(config, {name: each for name, each in PRESETS.items() if name != "real"}, FREE)
    return found if found == CUSTOM or config.seeds >= PRESETS[found]().seeds else CUSTOM
