"""All choices of a sweep: a base config, the axes along which it varies, and how they are put together.

An axis is a tuple of values; an empty one keeps the base's. Every combination is trained at every seed. Flags give the
axes directly, `read_plan` takes them from a TOML file. No tensor library is imported here.
"""

import itertools
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from micrographia.core.config import flat, hints_of, with_fields
from micrographia.core.errors import BadConfig
from micrographia.labs.grokking.config import PRESETS, Config, Operation, paper

Parts = Literal["both", "attention", "mlp"]
Setting = dict[str, Any]


class Axis(NamedTuple):
    """`name`: what varies, as a table's column says it; `kind` turns a value of a flag or a file into the config's."""

    name: str
    kind: Callable[[Any], Any]
    numeric: bool = True


AXES: dict[str, Axis] = {
    "moduli": Axis("modulus", int),
    "operations": Axis("operation", str, numeric=False),
    "train_fractions": Axis("train_fraction", float),
    "lrs": Axis("lr", float),
    "weight_decays": Axis("weight_decay", float),
    "layers": Axis("n_layers", int),
    "d_models": Axis("d_model", int),
    "d_mlps": Axis("d_mlp", int),
    "acts": Axis("act", str, numeric=False),
    "norms": Axis("norm", str, numeric=False),
    "parts": Axis("parts", str, numeric=False),
}
PARTS = {
    "both": {"attention": True, "mlp": True},
    "attention": {"attention": True, "mlp": False},
    "mlp": {"attention": False, "mlp": True},
}


def small() -> Config:
    """A network that groks in about 550 epochs, a quarter of a minute on one core."""
    return with_fields(
        paper(),
        modulus=59,
        train_fraction=0.4,
        d_mlp=256,
        lr=3e-3,
        weight_decay=3.0,
        epochs=1_000,
        eval_every=10,
        snapshots=32,
        checkpoint_every=200,
        threads=1,
    )


class Member(NamedTuple):
    """One network of a sweep. `setting` is its value on every axis; networks of one setting differ by seed alone."""

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
    """Share of the pairs that the model sees."""
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
    runner: str = "local"
    """Where the members run: local processes of one thread each."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise BadConfig("A sweep without seeds was asked for. Give at least one, for instance seeds 0 1 2.")
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


def members(plan: SweepConfig) -> list[Member]:
    """Every network of the sweep: setting by setting, seed by seed."""
    return [_member(plan, setting, seed) for setting in settings(plan) for seed in plan.seeds]


def settings(plan: SweepConfig) -> list[Setting]:
    """The combinations of values, each once; the base's first where it is among them."""
    base = base_setting(plan)
    varied = {axis.name: _read(axis, getattr(plan, key)) for key, axis in AXES.items() if getattr(plan, key)}
    if plan.combine == "product":
        found = [base | dict(zip(varied, values)) for values in itertools.product(*varied.values())]
    else:
        found = [base, *(base | {name: value} for name, values in varied.items() for value in values)]
    once = {tuple(setting.items()): setting for setting in found}
    return sorted(once.values(), key=lambda setting: setting != base)


def base_setting(plan: SweepConfig) -> Setting:
    """The base's value on every axis."""
    chosen = {axis.name: flat(plan.base)[axis.name] for axis in AXES.values() if axis.name != "parts"}
    here = {name: getattr(plan.base.network, name) for name in ("attention", "mlp")}
    return chosen | {"parts": next(name for name, parts in PARTS.items() if parts == here)}


def varying(plan: SweepConfig) -> dict[str, Axis]:
    """The axes that take more than one value in this sweep, by name."""
    every = settings(plan)
    return {axis.name: axis for axis in AXES.values() if len({setting[axis.name] for setting in every}) > 1}


def setting_name(plan: SweepConfig, setting: Setting) -> str:
    """What differs from the base: "weight_decay-2_act-gelu", or "base"."""
    base = base_setting(plan)
    return "_".join(_texts({name: x for name, x in setting.items() if x != base[name]})) or "base"


def read_plan(path: Path) -> SweepConfig:
    """The sweep that a TOML file asks for: axes by name, `preset` or `[base]` fields for the base.

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
    options = ("seeds", *AXES)
    _refuse_unknown(table, (*options, "combine", "runner", "preset", "base"), "the plan")
    fields = table.get("base", {})
    _refuse_unknown(fields, list(flat(small())), "its [base]")
    preset = table.get("preset", "small")
    if preset not in BASES:
        raise BadConfig(f"The plan's preset is {preset!r}; known are {', '.join(BASES)}. Choose one of these.")
    chosen: dict[str, Any] = dict.fromkeys(AXES, ())
    for name in options:
        if name in table:
            chosen[name] = _values(name, table[name])
    chosen |= {name: table[name] for name in ("combine", "runner") if name in table}
    try:
        return SweepConfig(base=with_fields(BASES[preset](), **fields), **chosen)
    except TypeError as error:
        raise BadConfig(
            f"The plan holds a value of the wrong type: {error}. Numbers stand bare, texts in quotes."
        ) from error


BASES: dict[str, Callable[[], Config]] = {"small": small, **PRESETS}


def _values(name: str, given: Any) -> tuple[Any, ...]:
    if not isinstance(given, list):
        raise BadConfig(f"The plan's {name} is {given!r}. Give a list, for instance {name} = [{given!r}].")
    return tuple(given)


def _read(axis: Axis, values: Sequence[Any]) -> list[Any]:
    """The values as the config wants them, each one that it knows."""
    try:
        found = [axis.kind(value) for value in values]
    except (TypeError, ValueError) as error:
        raise BadConfig(f"Values of {axis.name} were given as {list(values)}: {error}.") from error
    known = CHOICES.get(axis.name, found)
    for value in found:
        if value not in known:
            raise BadConfig(f"{axis.name} {value!r} was asked for; known are {', '.join(known)}. Choose one of these.")
    return found


CHOICES: dict[str, tuple[str, ...]] = {
    **{name: get_args(hints_of(Config)[name]) for name in ("operation", "act", "norm")},
    "parts": tuple(PARTS),
}


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in given:
        if name not in known:
            near = get_close_matches(name, known) or known
            raise BadConfig(
                f"{where[0].upper()}{where[1:]} names {name!r}, which is unknown. Nearest: {', '.join(near)}."
            )


def _member(plan: SweepConfig, setting: Setting, seed: int) -> Member:
    name = f"{setting_name(plan, setting)}_seed-{seed}"
    fields = {key: value for key, value in setting.items() if key != "parts"}
    try:
        config = with_fields(plan.base, **fields, **PARTS[setting["parts"]], seed=seed, threads=1)
    except BadConfig as error:
        raise BadConfig(f"The sweep's member {name} cannot be. {error} Leave this combination out.") from error
    return Member(name, seed, setting, config)


def _texts(setting: Setting) -> Iterator[str]:
    for name, value in setting.items():
        yield f"{name}-{value:.12g}" if isinstance(value, float) else f"{name}-{value}"
