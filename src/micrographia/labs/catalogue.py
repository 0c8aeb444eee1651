"""The labs, as a literal table: `--help` and completion read it without importing anything heavy.

`config` is a module with `Config`, `PRESETS` and `preset_of`, `run` one with `run(config, *, out, resume, watch)`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lab:
    """A room of the third floor: its name, its question, and where its Config and its orchestrator are."""

    name: str
    question: str
    config: str
    run: str
    claims: str
    """The package that holds its `claims.toml`."""
    preset_with_model: str = "quick"
    """The preset taken when a model that is there is named, and no preset: one that trains none."""


LABS = (
    Lab(
        name="grokking",
        question="What does a transformer learn when it groks modular addition?",
        config="micrographia.labs.grokking.config",
        run="micrographia.labs.grokking.run",
        claims="micrographia.labs.grokking",
    ),
    Lab(
        name="ioi",
        question="Which components carry a behaviour, and how far can each method be trusted?",
        config="micrographia.labs.ioi.config",
        run="micrographia.labs.ioi.run",
        claims="micrographia.labs.ioi",
        preset_with_model="paper",
    ),
)


def lab(name: str) -> Lab | None:
    """The lab of this name."""
    return next((each for each in LABS if each.name == name), None)
