"""All choices of a sweep: a base config, the axes along which it varies, and how they are combined.

An axis is a tuple of values; an empty one keeps the base's. Every combination is trained at every seed. Flags give the
axes directly, `read_plan` takes them from a TOML file. No tensor library is imported here.
"""

import itertools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple

from micrographia.core.config import flat, refuse_misfits, with_fields
from micrographia.core.errors import BadConfig
from micrographia.labs.grokking.config import PRESETS, Config, Operation, paper

Parts = Literal["both", "attention", "mlp"]
Setting = dict[str, Any]
"""The value on every axis, by the name of the config's field."""


AXES = {
    "moduli": "modulus",
    "operations": "operation",
    "train_fractions": "train_fraction",
    "lrs": "lr",
    "weight_decays": "weight_decay",
    "layers": "n_layers",
    "d_models": "d_model",
    "d_mlps": "d_mlp",
    "acts": "act",
    "norms": "norm",
    "parts": "parts",
}
"""The config's field that each axis varies; `parts` stands for two of them."""
PARTS = {
    "both": {"attention": True, "mlp": True},
    "attention": {"attention": True, "mlp": False},
    "mlp": {"attention": False, "mlp": True},
}
FIELDS = ("combine", "seeds", *AXES)
RUNNER = {"runner": "local"}  # stored Runs and plans name it, though there is only one


def small() -> Config:
    """A network that groks in about 550 epochs, a quarter of a minute on one core."""
    schedule = {"epochs": 1_000, "eval_every": 10, "snapshots": 32, "checkpoint_every": 200, "threads": 1}
    return with_fields(paper(), modulus=59, train_fraction=0.4, d_mlp=256, lr=3e-3, weight_decay=3.0, **schedule)


BASES: dict[str, Callable[[], Config]] = {"small": small, **PRESETS}


class Member(NamedTuple):
    """One network of a sweep. Networks of one setting differ by seed alone."""

    name: str
    seed: int
    setting: Setting
    config: Config


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
        refuse_misfits(SweepConfig, {name: getattr(self, name) for name in FIELDS})
        if not self.seeds:
            raise BadConfig("A sweep needs at least one seed. Give some, for instance seeds 0 1 2.")
        if self.base.seed not in (0, *self.seeds) or self.base.machine.threads not in (None, 1):
            raise BadConfig(
                f"The base names seed {self.base.seed} and {self.base.machine.threads} threads, which a sweep decides: "
                "give seeds for the one; members run on one thread each, side by side."
            )
        for name in ("seeds", *AXES):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise BadConfig(f"{name} holds a value twice: {values}. Give each once.")
        for setting in settings(self):
            _member(self, setting, self.seeds[0])

    @property
    def stored(self) -> dict[str, Any]:
        """The plan as its Run stores it."""
        return asdict(self) | {"base": flat(self.base)} | RUNNER


def members(plan: SweepConfig) -> list[Member]:
    """Every network of the sweep: setting by setting, seed by seed."""
    return [_member(plan, setting, seed) for setting in settings(plan) for seed in plan.seeds]


def settings(plan: SweepConfig) -> list[Setting]:
    """The combinations of values, each once; the base's first where it is among them."""
    base = base_setting(plan)
    varied = {name: getattr(plan, axis) for axis, name in AXES.items() if getattr(plan, axis)}
    if plan.combine == "product":
        found = [base | dict(zip(varied, values)) for values in itertools.product(*varied.values())]
    else:
        found = [base, *(base | {name: value} for name, values in varied.items() for value in values)]
    once = {tuple(setting.items()): setting for setting in found}
    return sorted(once.values(), key=lambda setting: setting != base)


def base_setting(plan: SweepConfig) -> Setting:
    """The base's value on every axis."""
    fields = flat(plan.base)
    parts = next(name for name, parts in PARTS.items() if parts.items() <= fields.items())
    return {name: fields.get(name, parts) for name in AXES.values()}


def varying(plan: SweepConfig) -> list[str]:
    """The fields that take more than one value in this sweep."""
    every = settings(plan)
    return [name for name in AXES.values() if len({setting[name] for setting in every}) > 1]


def setting_name(plan: SweepConfig, setting: Setting) -> str:
    """What differs from the base: "weight_decay-2_act-gelu", or "base"."""
    base = base_setting(plan)
    texts = {name: f"{value:.12g}" if isinstance(value, float) else value for name, value in setting.items()}
    return "_".join(f"{name}-{texts[name]}" for name in setting if setting[name] != base[name]) or "base"


def read_plan(path: Path) -> SweepConfig:
    """The sweep of a TOML file: axes by name, `preset` or `[base]` fields for the base.

    Raises BadConfig for a file that is no TOML, an unknown name (with the nearest ones) or a value that cannot be.
    """
    try:
        return plan_of(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(
            f"Cannot read the plan {path}: {error}. Give a TOML file of axes, for instance seeds = [0, 1]."
        ) from error


def plan_of(table: Mapping[str, Any]) -> SweepConfig:
    """The sweep of a parsed TOML file. Axes that it leaves out keep the base's value, seeds their default."""
    _refuse_unknown(table, (*FIELDS, "preset", "base", *RUNNER), "The plan")
    given = dict(table)
    preset, base, runner = given.pop("preset", "small"), given.pop("base", {}), given.pop("runner", RUNNER["runner"])
    for name, value, known in (("preset", preset, BASES), ("runner", runner, RUNNER.values())):
        if value not in known:
            raise BadConfig(f"The plan's {name} is {value!r}; known are {', '.join(known)}. Choose one of these.")
    _refuse_unknown(base, list(flat(small())), "Its [base]")
    refuse_misfits(Config, base)
    refuse_misfits(SweepConfig, given)
    axes = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return SweepConfig(base=with_fields(BASES[preset](), **base), **{**dict.fromkeys(AXES, ()), **axes})


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in given:
        if name not in known:
            near = ", ".join(get_close_matches(name, known) or known)
            raise BadConfig(f"{where} names {name!r}, which is unknown. Nearest: {near}.")


def _member(plan: SweepConfig, setting: Setting, seed: int) -> Member:
    name = f"{setting_name(plan, setting)}_seed-{seed}"
    fields = setting | PARTS[setting["parts"]] | {"seed": seed, "threads": 1}
    del fields["parts"]
    try:
        return Member(name, seed, setting, with_fields(plan.base, **fields))
    except BadConfig as error:
        raise BadConfig(f"The sweep's member {name} cannot be. {error} Leave this combination out.") from error
