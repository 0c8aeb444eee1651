"""All choices of the lottery: which networks are trained, at which checkpoints, and how the null is drawn.

Initialisation and split are crossed: every initial seed with every split seed. No tensor library is imported here.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from micrographia.core.config import flat, validate, with_fields
from micrographia.core.plan import RUNNER
from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.sweep.config import small


def past_grokking() -> Config:
    """The small problem, a few hundred epochs past grokking, when the frequencies have been chosen."""
    return with_fields(small(), epochs=900, eval_every=25, snapshots=24, checkpoint_every=300)


@dataclass(frozen=True, kw_only=True, slots=True)
class LotteryConfig:
    """Which frequencies win, and from which epoch on do the weights predict it?"""

    base: Config = field(default_factory=past_grokking)
    """The problem; its seeds are those below. Each network runs on one thread."""
    init_seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    """Seeds of the initial weights."""
    split_seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Seeds of the split."""
    looks: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50, 100, 200, 400, 900)
    """Checkpoints: epochs t0 from whose weights the winners are predicted; the nearest kept ones are taken."""
    permutations: int = 2000
    """Label permutations for the null: each network gets the winners of another one."""
    resamples: int = 2000
    """Bootstrap draws for the intervals."""
    chance_seed: int = 0
    """Seed of both."""

    def __post_init__(self) -> None:
        own_seeds = self.base.seed == 0 and self.base.split_seed is None
        checks = {
            "init_seeds must be two or more different ones": len(set(self.init_seeds)) == len(self.init_seeds) >= 2,
            "split_seeds must be two or more different ones": len(set(self.split_seeds)) == len(self.split_seeds) >= 2,
            "looks must be epochs from 0 on": bool(self.looks) and min(self.looks) >= 0,
            "permutations and resamples must be at least 1": min(self.permutations, self.resamples) >= 1,
            "the polynomial has no characters, so no frequency can win": self.base.operation != "polynomial",
            "base.seed and base.split_seed are decided by init_seeds and split_seeds": own_seeds,
            "base.threads must be 1": self.base.machine.threads in (None, 1),
        }
        validate(self, checks)

    @property
    def networks(self) -> dict[str, Config]:
        """Every network's config, by its name."""
        return {
            f"init-{init}_split-{split}": with_fields(self.base, seed=init, split_seed=split, threads=1)
            for init in self.init_seeds
            for split in self.split_seeds
        }

    @property
    def stored(self) -> dict[str, Any]:
        """The config as its Run stores it."""
        return asdict(self) | {"base": flat(self.base)} | RUNNER
