"""All choices of a sweep: a base config, the axes along which it varies, and how they are combined.

An axis is a tuple of values; an empty one keeps the base's. Every combination is trained at every seed. Flags give the
axes directly, `read_plan` takes them from a TOML file. No tensor library is imported here.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from micrographia.core import plan
from micrographia.core.config import flat, with_fields
from micrographia.core.errors import BadConfig
from micrographia.labs.grokking.config import PRESETS, Config, Operation, paper

Parts = Literal["both", "attention", "mlp"]
AXES = plan.Axes(
    {
        "moduli": "modulus", "operations": "operation", "train_fractions": "train_fraction", "lrs": "lr",
        "weight_decays": "weight_decay", "layers": "n_layers", "d_models": "d_model", "d_mlps": "d_mlp", "acts": "act",
        "norms": "norm", "parts": "parts",
    },
    choices={
        "parts": {
            "both": {"attention": True, "mlp": True},
            "attention": {"attention": True, "mlp": False},
            "mlp": {"attention": False, "mlp": True},
        }
    },
)  # fmt: skip


def small() -> Config:
    """A network that groks in about 550 epochs, a quarter of a minute on one core."""
    schedule = {"epochs": 1_000, "eval_every": 10, "snapshots": 32, "checkpoint_every": 200, "threads": 1}
    return with_fields(paper(), modulus=59, train_fraction=0.4, d_mlp=256, lr=3e-3, weight_decay=3.0, **schedule)


BASES: dict[str, Callable[[], Config]] = {"small": small, **PRESETS}


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """Train the base's problem again and again, with other seeds and other choices."""

    base: Config = field(default_factory=small)
    """What every member shares but for the axes below. Each member runs on one thread."""
    combine: Literal["one-at-a-time", "product"] = "one-at-a-time"
    """Vary one axis around the base while the others stay, or take all combinations."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of weights and split; every setting is trained at each."""
    moduli: tuple[int, ...] = ()
    """p."""
    operations: tuple[Operation, ...] = ("subtract", "multiply", "polynomial")
    """add: a+b, subtract: a-b, multiply: a*b, polynomial: a^2+ab+b^2, all mod p."""
    train_fractions: tuple[float, ...] = (0.3, 0.5, 0.6)
    """Fraction of the pairs that the model is trained on."""
    lrs: tuple[float, ...] = ()
    """Peak learning rates."""
    weight_decays: tuple[float, ...] = (2.0,)
    """Decoupled decays."""
    layers: tuple[int, ...] = ()
    """Numbers of blocks. More than one takes the plain forward, about five times slower."""
    d_models: tuple[int, ...] = ()
    """Widths of the residual stream."""
    d_mlps: tuple[int, ...] = ()
    """Numbers of neurons a layer."""
    acts: tuple[Literal["relu", "gelu", "swiglu"], ...] = ("gelu",)
    """Activations of the neurons."""
    norms: tuple[Literal["none", "layernorm", "rmsnorm"], ...] = ()
    """Normalisations. Any but none takes the plain forward, about five times slower."""
    parts: tuple[Parts, ...] = ("mlp",)
    """both, attention alone, or an MLP alone over the operands' concatenated embeddings."""

    def __post_init__(self) -> None:
        if self.base.seed not in (0, *self.seeds) or self.base.machine.threads not in (None, 1):
            raise BadConfig(
                f"The base names seed {self.base.seed} and {self.base.machine.threads} threads, which a sweep decides: "
                "give seeds for the one; members run on one thread each, side by side."
            )
        plan.check_plan(self, AXES)

    @property
    def stored(self) -> dict[str, Any]:
        """The plan as its Run stores it."""
        return asdict(self) | {"base": flat(self.base)} | plan.RUNNER


def read_plan(path: Path) -> SweepConfig:
    """The sweep of a TOML file: axes by name, `preset` or `[base]` fields for the base. Raises BadConfig."""
    return plan_of(plan.read_table(path))


def plan_of(table: Mapping[str, Any]) -> SweepConfig:
    """The sweep of a parsed TOML file. Axes that it leaves out keep the base's value, seeds their default."""
    return plan.plan_of(table, SweepConfig, AXES, BASES, preset="small")
