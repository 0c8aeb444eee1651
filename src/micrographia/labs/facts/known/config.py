"""The choices of looking for facts in a pretrained model. Imports no torch."""

from dataclasses import dataclass

from micrographia.core.config import positive, validate


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownChoices:
    """Which facts a pretrained model is asked for, and how it is looked into."""

    relations: str = ""
    """A file or folder of relations, athletes' CSV or known_1000.json; empty: those that come with the package."""
    named: tuple[str, ...] = ()
    """Only the relations of these names; empty: all."""
    looked_into: tuple[str, ...] = ()
    """Relations to look into; empty: those with few answers of which enough is known."""
    shots: int = 3
    """Examples before a question of the table."""
    inside_shots: int = 1
    """Examples before a question where the model is looked into."""
    facts: int = 40
    """Known facts of a relation that are looked into, at most."""
    known_splits: int = 4
    """Splits into facts that a probe is fitted to, and those that judge it."""
    every: int = 3
    """Of the layers, every so many are read and replaced."""
    window: int = 5
    """Layers whose MLPs are replaced together."""
    probe_steps: int = 200
    """Steps of fitting a probe."""

    def __post_init__(self) -> None:
        names = ("inside_shots", "facts", "known_splits", "every", "window", "probe_steps")
        validate(self, {**positive(self, names), "shots must not be negative": self.shots >= 0})


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownFacts(KnownChoices):
    """What a pretrained model knows, forward and back, and where an attribute is before it is asked for."""

    model: str = "smollm2"
    """A name on the hub or of `micrographia models`, a folder or a .gguf file."""
    seed: int = 0
    """Of examples, splits and everything else that is drawn."""
    device: str = "cpu"
    """Where to run: auto, cpu, cuda, cuda:1."""
    threads: int | None = None
    """CPU threads; by default the cores this process may use."""


def tiny() -> KnownFacts:
    """One relation, a few layers."""
    return KnownFacts(named=("country continent",), facts=24, known_splits=2, every=10, window=10, probe_steps=60)
