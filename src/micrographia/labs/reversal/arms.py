"""The arms: what each teaches, to which network. Those with networks of one shape train as one program.

A program is named after its shape; members are its arms times the seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from micrographia.core.config import flat
from micrographia.core.runtime import batch_generator
from micrographia.core.small.architecture import Architecture
from micrographia.labs.reversal.config import Config
from micrographia.labs.reversal.lessons import LESSONS, LessonRows, Questions, forward_and_reverse
from micrographia.labs.reversal.task import PairedWorld, Spelling, make_world, spelling


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A way to teach. `network`: what it changes of the config's; `shared`: instead of the config's."""

    name: str
    lesson: str = "plain"
    shared: float | None = None
    width: int = 1
    network: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    program: str = "one layer"
    size: float = 1.0
    """The share of the config's entities that it has: some objectives are harder to learn."""
    longer: int = 1
    """Times the config's steps."""
    many: bool = False
    """Trained from more seeds, since that there is no difference takes many facts to show."""


NONE_SHARED = "none of the entities shared"
NAMES: dict[str, Any] = {"width": 2, "size": 1 / 3, "program": "names"}
NO_MLP, TIED, TWO = {"mlp": False}, {"tied": True}, {"n_layers": 2}
ARMS = (
    Arm(name="plain"),
    Arm(name=NONE_SHARED, shared=0.0, many=True),
    *(Arm(name=f"{share:.0%} of the entities shared", shared=share) for share in (0.25, 0.5, 0.75, 0.9)),
    Arm(name="both directions", lesson="both"),
    Arm(name="entity-reversed copies", lesson="entity_copies", longer=2, program="copies"),
    Arm(name="identity bridge", lesson="identity"),
    Arm(name="identity bridge, none shared", lesson="identity", shared=0.0),
    Arm(name="tied", network=TIED, program="tied"),
    Arm(name="tied, both directions", lesson="both", network=TIED, program="tied"),
    Arm(name="attention only", network=NO_MLP, shared=0.0, program="attention"),
    Arm(name="attention only, both directions", lesson="both", network=NO_MLP, shared=0.0, program="attention"),
    Arm(name="attention only, identity bridge", lesson="identity", network=NO_MLP, shared=0.0, program="attention"),
    Arm(name="attention only, tied", network=NO_MLP | TIED, shared=0.0, program="attention tied"),
    Arm(name="two layers", network=TWO, program="two layers"),
    Arm(name="two layers, tied", network=TWO | TIED, program="two layers tied"),
    Arm(name="composed bridge", lesson="composed", program="composed"),
    Arm(name="masked objective", lesson="masked", size=1 / 3, longer=4, network={"causal": False}, program="masked"),
    Arm(name="fact in context", lesson="context", size=1 / 3, longer=2, network=TWO, program="context"),
    Arm(name="two-token names", **NAMES),
    Arm(name="two-token names, both directions", lesson="both", **NAMES),
    Arm(name="two-token names, token-reversed copies", lesson="token_copies", **NAMES),
    Arm(name="two-token names, entity-reversed copies", lesson="entity_copies", **NAMES),
)
BILINEAR = (
    Arm(name="bilinear", shared=0.0, program="bilinear"),
    Arm(name="bilinear, symmetric", shared=0.0, program="bilinear symmetric"),
)
"""No transformers: fixed random embeddings and a matrix a relation (Zhu et al. 2024, section 3)."""


@dataclass(frozen=True, slots=True)
class Learner:
    """One network to be: an arm and a seed, with the facts, rows and questions that follow from them."""

    arm: Arm
    seed: int
    world: PairedWorld
    spelt: Spelling
    rows: LessonRows
    asked: dict[str, Questions]

    @property
    def label(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"


def learner(config: Config, arm: Arm, seed: int) -> Learner:
    """A function of the config, the arm and the seed. Arms of a seed and a share have the same facts."""
    shared = config.shared if arm.shared is None else arm.shared
    entities = round(arm.size * config.entities)
    world = make_world(entities, shared, config.relations, batch_generator(seed, 0))
    spelt = spelling(entities, config.relations, arm.width, batch_generator(seed, 1))
    rows = LESSONS[arm.lesson](world, spelt, batch_generator(seed, 2), config.identity_weight)
    return Learner(arm, seed, world, spelt, rows, forward_and_reverse(arm.lesson, world, spelt))


def learners(config: Config, arms: tuple[Arm, ...], program: str) -> list[Learner]:
    chosen = [arm for arm in arms if arm.program == program]
    return [learner(config, arm, seed) for arm in chosen for seed in seeds_of(config, arm)]


def seeds_of(config: Config, arm: Arm) -> range:
    return range(config.seed, config.seed + (max(config.many, config.seeds) if arm.many else config.seeds))


def programs(arms: tuple[Arm, ...] = ARMS) -> list[str]:
    return list(dict.fromkeys(arm.program for arm in arms))


def architecture(config: Config, some: list[Learner]) -> Architecture:
    """That of the networks of a program."""
    first = some[0]
    length = max(each.rows.tokens.shape[1] for each in some)
    length = max(length, *(asked.tokens.shape[1] + first.spelt.width - 1 for asked in first.asked.values()))
    n = first.spelt.d_vocab
    return Architecture(d_vocab=n, d_vocab_out=n, n_ctx=length, **{**flat(config.network), **first.arm.network})
