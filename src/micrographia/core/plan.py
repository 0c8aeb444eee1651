"""A sweep over any Config: axes of values around a base, how they are combined, and a plan in a TOML file.

A lab's plan is a dataclass with a field for each axis (a tuple of values; an empty one keeps the base's), the `base`
Config, `combine` and `seeds`. Its `Axes` say which field of the base each axis varies; a field that is no field of the
base stands for several (`choices`). Every combination is a member at every seed. No tensor library is imported here.
"""

import itertools
import tomllib
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from micrographia.core.config import flat, refuse_misfits, with_fields
from micrographia.core.errors import BadConfig

P = TypeVar("P")
Setting = dict[str, Any]
"""The value on every axis, by the name of the base's field."""
RUNNER = {"runner": "local"}  # stored Runs and plans name it, though there is only one


class Axes(NamedTuple):
    """`fields`: the field that each axis varies; `choices`: of one that is not the base's, the fields of each value."""

    fields: Mapping[str, str]
    choices: Mapping[str, Mapping[str, Mapping[str, Any]]] = {}


class Member(NamedTuple):
    """One network of a sweep. Networks of one setting differ by seed alone."""

    name: str
    seed: int
    setting: Setting
    config: Any


def check_plan(plan: Any, axes: Axes) -> None:
    """Raise BadConfig for values that no axis takes, for a value given twice, and for members that cannot be."""
    names = ("seeds", *axes.fields)
    refuse_misfits(type(plan), {name: getattr(plan, name) for name in ("combine", *names)})
    if not plan.seeds:
        raise BadConfig("A sweep needs at least one seed. Give some, for instance seeds 0 1 2.")
    for name in names:
        values = getattr(plan, name)
        if len(set(values)) < len(values):
            raise BadConfig(f"{name} holds a value twice: {values}. Give each once.")
    for setting in settings(plan, axes):
        _member(plan, axes, setting, plan.seeds[0])


def members(plan: Any, axes: Axes) -> list[Member]:
    """Every network of the sweep: setting by setting, seed by seed."""
    return [_member(plan, axes, setting, seed) for setting in settings(plan, axes) for seed in plan.seeds]


def settings(plan: Any, axes: Axes) -> list[Setting]:
    """The combinations of values, each once; the base's first where it is among them."""
    base = _base_setting(plan, axes)
    varied = {name: getattr(plan, axis) for axis, name in axes.fields.items() if getattr(plan, axis)}
    if plan.combine == "product":
        found = [base | dict(zip(varied, values)) for values in itertools.product(*varied.values())]
    else:
        found = [base, *(base | {name: value} for name, values in varied.items() for value in values)]
    once = {tuple(setting.items()): setting for setting in found}
    return sorted(once.values(), key=lambda setting: setting != base)


def varying(plan: Any, axes: Axes) -> list[str]:
    """The fields that take more than one value in this sweep."""
    every = settings(plan, axes)
    return [name for name in axes.fields.values() if len({setting[name] for setting in every}) > 1]


def setting_name(plan: Any, axes: Axes, setting: Setting) -> str:
    """What differs from the base: "weight_decay-2_act-gelu", or "base"."""
    base = _base_setting(plan, axes)
    texts = {name: f"{value:.12g}" if isinstance(value, float) else value for name, value in setting.items()}
    return "_".join(f"{name}-{texts[name]}" for name in setting if setting[name] != base[name]) or "base"


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file. Raises BadConfig where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(
            f"Cannot read the plan {path}: {error}. Give a TOML file of axes, for instance seeds = [0, 1]."
        ) from error


def plan_of(
    table: Mapping[str, Any], kind: type[P], axes: Axes, bases: Mapping[str, Callable[[], Any]], preset: str
) -> P:
    """The plan of a parsed TOML file: axes by name, `preset` and `[base]` fields for the base.

    Axes that it leaves out keep the base's value, all else its default. Raises BadConfig for an unknown name, with the
    nearest ones, and for a value that cannot be.
    """
    own = ("combine", "seeds", *axes.fields)
    _refuse_unknown(table, (*own, "preset", "base", *RUNNER), "The plan")
    chosen = {"preset": preset, "base": {}, **RUNNER, **table}
    for name, known in (("preset", bases), ("runner", RUNNER.values())):
        if chosen[name] not in known:
            raise BadConfig(
                f"The plan's {name} is {chosen[name]!r}; known are {', '.join(known)}. Choose one of these."
            )
    base = bases[chosen["preset"]]()
    _refuse_unknown(chosen["base"], list(flat(base)), "Its [base]")
    refuse_misfits(type(base), chosen["base"])
    given = {name: value for name, value in table.items() if name in own}
    refuse_misfits(kind, given)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    values |= {"base": with_fields(base, **chosen["base"])}
    return kind(**{**dict.fromkeys(axes.fields, ()), **values})


def _base_setting(plan: Any, axes: Axes) -> Setting:
    fields = flat(plan.base)
    for name, values in axes.choices.items():
        fields[name] = next(value for value, parts in values.items() if parts.items() <= fields.items())
    return {name: fields[name] for name in axes.fields.values()}


def _member(plan: Any, axes: Axes, setting: Setting, seed: int) -> Member:
    name = f"{setting_name(plan, axes, setting)}_seed-{seed}"
    fields = {field: value for field, value in setting.items() if field not in axes.choices}
    for field, values in axes.choices.items():
        fields |= values[setting[field]]
    try:
        return Member(name, seed, setting, with_fields(plan.base, **fields, seed=seed, threads=1))
    except BadConfig as error:
        raise BadConfig(f"The sweep's member {name} cannot be. {error} Leave this combination out.") from error


def _refuse_unknown(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for name in given:
        if name not in known:
            near = ", ".join(get_close_matches(name, known) or known)
            raise BadConfig(f"{where} names {name!r}, which is unknown. Nearest: {near}.")
