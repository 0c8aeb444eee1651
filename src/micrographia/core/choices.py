"""What the choices of a Config must be, how those that are not are told, and which preset they are. No tensor library.

A check is a sentence that should be true, beside whether it is; a Config puts its own beside those that are shared here
and hands all to `refuse_broken`, so that a user is told of everything at once.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from micrographia.core.errors import BadConfig

Checks = Mapping[str, bool]
CUSTOM = "custom"


@runtime_checkable
class Trains(Protocol):
    """A Config that trains by AdamW with linear warm-up, on a number of CPU threads that it may leave open."""

    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def beta1(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def eps(self) -> float: ...
    @property
    def warmup(self) -> int: ...
    @property
    def threads(self) -> int | None: ...


def positive(config: object, names: Sequence[str]) -> Checks:
    """Each of these counts is at least 1."""
    return {f"{name} must be positive": getattr(config, name) >= 1 for name in names}


def training(config: Trains) -> Checks:
    """What AdamW and a number of threads must be."""
    return {
        "lr must be positive": config.lr > 0,
        "weight_decay must not be negative": config.weight_decay >= 0,
        "beta1 and beta2 must lie in [0, 1)": 0 <= config.beta1 < 1 and 0 <= config.beta2 < 1,
        "eps must be positive": config.eps > 0,
        "warmup must not be negative": config.warmup >= 0,
        "threads must be positive": config.threads is None or config.threads >= 1,
    }


def refuse_broken(config: object, checks: Checks) -> None:
    """Raise BadConfig naming every check that fails."""
    if broken := [text for text, good in checks.items() if not good]:
        raise BadConfig(f"This config cannot be run: {'; '.join(broken)}. Got {config}.")


def nearest_preset(config: Any, presets: Mapping[str, Callable[[], Any]], free: Collection[str]) -> str:
    """The preset, of one dataclass with `config`, that has the same value in every field not `free`; else "custom"."""
    fixed = [field.name for field in dataclasses.fields(config) if field.name not in free]
    for name, make in presets.items():
        preset = make()
        if all(getattr(preset, field) == getattr(config, field) for field in fixed):
            return name
    return CUSTOM
