"""Configs: the choices that labs share, their checks, their JSON form, and the nearest preset. Imports no torch.

A Config is a frozen dataclass; it may hold inner ones (`Blocks`, `Optimiser`, `Schedule`, `Machine`, `Target`), whose
fields have names of their own: stored, typed on a command line and read from a file it is one flat object. A check is a
sentence that should be true, beside whether it is; a Config hands all to `validate`, so that a user sees everything at
once.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from micrographia.core.errors import BadConfig

C = TypeVar("C")
Checks = Mapping[str, bool]
CUSTOM = "custom"
Dtype = Literal["float32", "float64", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """What kind of small transformer, without the sizes that follow from its task."""

    n_layers: int = 1
    """Transformer blocks."""
    d_model: int = 128
    """Width of the residual stream."""
    n_heads: int = 4
    """Attention heads a layer."""
    d_head: int = 32
    """Width of a head."""
    d_mlp: int = 512
    """Neurons a layer."""
    act: Literal["relu", "gelu", "gelu_new", "silu", "tanh", "square", "swiglu"] = "relu"
    """Activation of the neurons."""
    norm: Literal["none", "layernorm", "rmsnorm"] = "none"
    """Normalisation before attention, MLP and unembedding."""
    positions: Literal["learned", "rotary"] = "learned"
    """How the model knows positions."""
    attn_bias: bool = False
    """Biases in attention."""
    mlp_bias: bool = True
    """Biases in the MLPs."""
    tied: bool = False
    """Unembedding is the embedding's transpose."""
    attention: bool = True
    """False: the embeddings of all tokens but the last are joined before the first MLP; there is one position."""
    mlp: bool = True
    """False: attention only."""

    def __post_init__(self) -> None:
        sizes = positive(self, ("n_layers", "d_model", "n_heads", "d_head", "d_mlp"))
        even = self.positions != "rotary" or self.d_head % 2 == 0
        own = {
            "rotary positions turn pairs, so d_head must be even": even,
            "a model needs attention, an MLP, or both": self.attention or self.mlp,
        }
        validate(self, {**sizes, **own})


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimiser:
    """AdamW with linear warm-up."""

    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 1.0
    """Decoupled decay on all parameters."""
    beta1: float = 0.9
    """AdamW's decay of the mean."""
    beta2: float = 0.98
    """AdamW's decay of the square."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    warmup: int = 10
    """Steps of linear warm-up."""

    def __post_init__(self) -> None:
        checks = {
            "lr must be positive": self.lr > 0,
            "weight_decay must not be negative": self.weight_decay >= 0,
            "beta1 and beta2 must lie in [0, 1)": 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1,
            "eps must be positive": self.eps > 0,
            "warmup must not be negative": self.warmup >= 0,
        }
        validate(self, checks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What is written down of a training, and when."""

    eval_every: int = 100
    """Steps between measures on held-out data."""
    snapshots: int = 6
    """Sets of weights kept along training, beside the first."""
    checkpoint_every: int = 250
    """Steps between checkpoints to resume from."""

    def __post_init__(self) -> None:
        validate(self, positive(self, ("eval_every", "snapshots", "checkpoint_every")))


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where a Run is computed."""

    device: str = "cpu"
    """Where to train and measure: auto, cpu, cuda, cuda:1."""
    threads: int | None = None
    """CPU threads; by default the cores this process may use. Stored in the Run and reused on resumption."""

    def __post_init__(self) -> None:
        validate(self, {"threads must be positive": self.threads is None or self.threads >= 1})


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The model, and where it runs."""

    model: str
    """A name on the hub or of `micrographia models`, a folder, a .gguf file, a wheel, or one of your Runs."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: Dtype = "float32"
    """Precision of weights and activations."""
    device: str = "auto"
    """Where to run: auto, cpu, cuda, cuda:1."""
    threads: int | None = None
    """CPU threads; by default the cores this process may use."""
    seed: int = 0
    """Seed of everything that is drawn: noise, resamples, random checks, bootstraps."""

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= 4096:
            raise BadConfig(f"--threads must be 1 to 4096, not {self.threads}.")


def positive(config: object, names: Sequence[str]) -> Checks:
    """Each of these counts is at least 1."""
    return {f"{name} must be positive": getattr(config, name) >= 1 for name in names}


def validate(config: object, checks: Checks) -> None:
    """Raise BadConfig naming every check that fails, with the values of the fields that it names."""
    if broken := "; ".join(text for text, good in checks.items() if not good):
        named = set(re.findall(r"\w+", broken))
        found = ", ".join(f"{name} {value!r}" for name, value in flat(config).items() if name in named)
        raise BadConfig(f"This config cannot be run: {broken}.{found and f' Found {found}.'}")


def flat(config: Any) -> dict[str, Any]:
    """Every field by name, those of inner dataclasses among them: what is stored, and what flags are called."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        found |= flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found


def with_fields(config: C, **fields: Any) -> C:
    """The config with these fields replaced, its own or those of its inner dataclasses, and checked anew."""
    if unknown := sorted(fields.keys() - flat(config).keys()):
        raise BadConfig(f"{type(config).__name__} has no field {', '.join(unknown)}. It has {', '.join(flat(config))}.")
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # pyright: ignore[reportArgumentType] (a dataclass)
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            inner = {name: fields[name] for name in flat(value) if name in fields}
            changed |= {field.name: with_fields(value, **inner)} if inner else {}
        elif field.name in fields:
            changed[field.name] = fields[field.name]
    return dataclasses.replace(config, **changed)  # pyright: ignore[reportArgumentType] (a dataclass)


def nearest_preset(config: Any, presets: Mapping[str, Callable[[], Any]], free: Collection[str]) -> str:
    """The preset, of one dataclass with `config`, that has the same value in every field not `free`; else "custom"."""
    own = {name: value for name, value in flat(config).items() if name not in free}
    return next((name for name, make in presets.items() if flat(make()).items() >= own.items()), CUSTOM)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises BadConfig for a file that cannot be read, or that holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"Asked to run {path}, which cannot be read: {error}. Give a JSON file.") from error
    if not isinstance(found, dict):
        raise BadConfig(f"Asked to run {path}, which holds a {type(found).__name__}. Write a JSON object of choices.")
    return found


def read_config(path: Path, default: C) -> C:
    """The Config that a JSON file gives: a flat object of its fields; those left out are as in `default`.

    Raises BadConfig for a file that is no JSON object, for fields that the Config does not have, and for values that
    are not of a field's kind; whatever the Config itself refuses is raised as it is.
    """
    fields = read_object(path)
    if unknown := sorted(fields.keys() - flat(default).keys()):
        raise BadConfig(
            f"{path} holds {unknown}. A Config is a JSON object of these fields: {', '.join(flat(default))}."
        )
    refuse_misfits(type(default), fields)
    return with_fields(default, **fields)


def hints_of(kind: type) -> dict[str, Any]:
    """The annotation of every field by name, those of inner dataclasses among them."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        found |= hints_of(hint) if dataclasses.is_dataclass(hint) and isinstance(hint, type) else {name: hint}
    return found


def refuse_misfits(kind: type, fields: Mapping[str, Any]) -> None:
    """Raise BadConfig for values that are not of the kind that the fields of a dataclass hold, naming each."""
    hints = {**hints_of(kind), **get_type_hints(kind)}
    odd = {name: value for name, value in fields.items() if not _fits(value, hints[name])}
    if odd:
        raise BadConfig(f"Asked for {odd}. {'; '.join(f'{name} takes {_told(hints[name])}' for name in odd)}.")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is what a field of this annotation holds; a whole number is a number too."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:  # of any length
        return isinstance(value, list | tuple) and all(_fits(each, get_args(hint)[0]) for each in value)
    if options := get_args(hint):
        return any(_fits(value, option) for option in options)
    return type(value) in ((int, float) if hint is float else (hint,))


def _told(hint: Any) -> str:
    """An annotation in JSON's words."""
    if get_origin(hint) is Literal:
        return " or ".join(map(json.dumps, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list, each entry {_told(get_args(hint)[0])}"
    if options := get_args(hint):
        return " or ".join(map(_told, options))
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(hint, "null")
