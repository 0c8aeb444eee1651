"""The choices of fine-tuning on invented people. Imports no torch."""

from dataclasses import dataclass

from micrographia.core.config import positive, validate


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningChoices:
    """How a pretrained model is taught, and how it is asked."""

    data: str = ""
    """A folder with statements in the published layout; empty: invented here."""
    facts: int = 100
    """People known by name to description, as many the other way, and as many both ways."""
    wordings: int = 4
    """Sentences in which each fact is told in training; others are asked."""
    first_layer: int = 24
    """The layers from this one on are trained, those below, embeddings and unembedding are frozen."""
    tune_steps: int = 800
    """Steps of training."""
    tune_batch: int = 16
    """Sentences a step."""
    tune_lr: float = 3e-4
    """Peak rate of AdamW, falling linearly to 0 at the last step."""
    asked: int = 60
    """Tests of each arm and direction, drawn where there are more."""
    others: int = 9
    """Random completions beside the right one, all from the same tests."""

    def __post_init__(self) -> None:
        names = ("facts", "wordings", "first_layer", "tune_steps", "tune_batch", "asked", "others")
        validate(self, {**positive(self, names), "tune_lr must be positive": self.tune_lr > 0})


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuning(TuningChoices):
    """Teach a pretrained model facts in one direction, and ask for them in both."""

    model: str = "smollm2"
    """A name on the hub or of `micrographia models`, a folder or a .gguf file."""
    seed: int = 0
    """Of the names, the order of the sentences and everything that is drawn."""
    device: str = "cpu"
    """Where to train and measure: auto, cpu, cuda, cuda:1."""
    threads: int | None = None
    """CPU threads; by default the cores this process may use."""


def tiny() -> FineTuning:
    """Same machinery in a minute; too few steps to learn much."""
    return FineTuning(facts=12, wordings=3, tune_steps=20, tune_batch=8, asked=12, others=3)
