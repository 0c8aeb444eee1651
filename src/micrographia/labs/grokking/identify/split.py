"""Which pairs a network was trained on: a split that is given, stored beside the weights, or one of the known two.

Of those that are tried the credible one is taken (`methods.training_rows`); a Run's own needs no evidence.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from micrographia.core.errors import BadConfig
from micrographia.core.events import Note, Watch
from micrographia.core.splits import SPLITS, TRAIN_NAMES, mask_among, read_mask
from micrographia.methods.training_rows import Evidence, Mask, evidence, evidence_of_prefix


class SplitChoice(NamedTuple):
    """How a split is made, as far as a user gives it or the Run that a network is from records it."""

    split: str | None = None
    train_fraction: float | None = None
    seed: int | None = None


class Split(NamedTuple):
    """A mask of the training pairs, and the evidence of the losses."""

    name: str
    train: Mask
    choice: SplitChoice
    evidence: Evidence
    known: bool = False
    """Recorded by the Run itself, so that it needs no evidence."""

    @property
    def credible(self) -> bool:
        return self.known or not self.evidence.fault

    def as_json(self) -> dict[str, Any]:
        z, fault = self.evidence
        about = {"split": self.name, "train_fraction": fraction_of(self.train)}
        return about | {"z": z, "credible": self.credible, "fault": fault}

    def __str__(self) -> str:
        z, fault = self.evidence
        verdict = "recorded by the Run" if self.known else f"not credible: {fault}" if fault else "credible"
        size = f"{int(self.train.sum()):,} pairs ({fraction_of(self.train):.1%})"
        return (
            f"Split {self.name}, {size}: the rank sum of their losses lies {z:+.1f} standard deviations from that "
            f"of a random split; {verdict}."
        )


def fraction_of(train: Mask) -> float:
    return train.double().mean().item()


def find_split(
    given: SplitChoice,
    losses: Float[Tensor, "pairs"],
    *,
    extra: Mapping[str, Any],
    recorded: SplitChoice | None,
    allow_pickle: bool,
    watch: Watch,
) -> tuple[Split | None, list[Split]]:
    """The credible split, or None, and all that were tried. `recorded`: that of the Run that the network is from.

    `extra` holds what lay beside the weights. Raises BadConfig for half a description, UserError and UnreadableWeights
    for a split file that cannot be read.
    """
    if given.split == "none":
        watch(Note(f"No split, as requested: {EMPTY}"))
        return None, []
    if recorded is not None and given == SplitChoice():
        train = SPLITS[str(recorded.split)](len(losses), recorded.train_fraction or 0.0, recorded.seed or 0)
        tried = [Split("as recorded", train, recorded, evidence(train, losses)._replace(fault=""), known=True)]
    else:
        tried = _tried(given, recorded, losses, extra, allow_pickle)
    for each in tried:
        watch(Note(str(each)))
    best = min((each for each in tried if each.credible), key=lambda each: each.evidence.z, default=None)
    if best is None:
        unknown = "Which pairs it was trained on is not known"
        text = f"No split is credible: {EMPTY}" if tried else f"{unknown}: {EMPTY} {HINT}"
        watch(Note(text, "info" if given == SplitChoice() else "warning"))
    return best, tried


EMPTY = "figures of training and test pairs are left empty."
HINT = "Give --seed and --train-fraction, or --split FILE."


def _tried(
    given: SplitChoice, recorded: SplitChoice | None, losses: Tensor, extra: Mapping[str, Any], allow_pickle: bool
) -> list[Split]:
    p = round(len(losses) ** 0.5)
    if given.split not in (None, *SPLITS):
        mask = read_mask(Path(str(given.split)), p, known=(*SPLITS, "none"), allow_pickle=allow_pickle)
        return [_judged("file", mask, losses)]
    if recorded is not None:  # it completes what is given
        given = recorded._replace(**{name: x for name, x in given._asdict().items() if x is not None})
    split, fraction, seed = given
    if fraction is not None and not 0 < fraction < 1:
        raise BadConfig(f"Asked for a train fraction of {fraction}. It lies strictly between 0 and 1. Give such a one.")
    if fraction is not None and seed is not None:
        return [_prefix(name, losses, fraction, seed) for name in ([split] if split else SPLITS)]
    if split is not None:
        lacks = [flag for flag, value in (("--train-fraction", fraction), ("--seed", seed)) if value is None]
        raise BadConfig(f"Asked for the split {split!r}. It needs a fraction and a seed. Add {' and '.join(lacks)}.")
    beside = mask_among(extra, p, names=TRAIN_NAMES)
    return [] if beside is None else [_judged("beside the weights", beside, losses)]


def _judged(name: str, train: Mask, losses: Tensor) -> Split:
    return Split(name, train, SplitChoice(name, fraction_of(train)), evidence(train, losses))


def _prefix(name: str, losses: Tensor, fraction: float, seed: int) -> Split:
    def make(part: float) -> Mask:
        return SPLITS[name](len(losses), part, seed)

    found = evidence_of_prefix(make, fraction, losses)
    return Split(name, make(fraction), SplitChoice(name, fraction, seed), found)
