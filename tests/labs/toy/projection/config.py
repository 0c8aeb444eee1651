"""How many points are projected, from how many dimensions to how many. Imports no tensor library."""

from dataclasses import dataclass, field

from micrographia.core.config import Machine, nearest_preset, positive, validate


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Project random points at random."""

    n_points: int = 40
    """Points."""
    d_in: int = 400
    """Dimensions before the projection."""
    d_out: int = 200
    """Dimensions after it."""
    seed: int = 0
    """Of points and projection."""
    machine: Machine = field(default_factory=lambda: Machine(threads=1))

    def __post_init__(self) -> None:
        validate(self, positive(self, ("n_points", "d_in", "d_out")))


PRESETS = {"quick": Config, "tiny": lambda: Config(n_points=6)}


def preset_of(config: Config) -> str:
    return nearest_preset(config, PRESETS, free=("seed", "device", "threads"))
