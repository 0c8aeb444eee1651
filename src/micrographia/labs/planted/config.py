"""All choices of one run of the planted lab: circuits that were built by hand leave none but where to compute."""

from dataclasses import dataclass, field
from functools import partial

from micrographia.core.config import Machine, nearest_preset


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Apply every method to circuits that were built by hand, and compare what it finds with theory."""

    seed: int = 0
    """Stored with the Run; nothing is drawn."""
    machine: Machine = field(default_factory=partial(Machine, threads=1))
    """Where to measure; the circuits are so small that one thread is the fastest."""


FREE = ("seed", "device", "threads")


def quick() -> Config:
    """Everything; a few seconds on one core."""
    return Config()


PRESETS = {"quick": quick, "tiny": quick}


def preset_of(config: Config) -> str:
    """Always "quick", which is "tiny" too."""
    return nearest_preset(config, PRESETS, FREE)
