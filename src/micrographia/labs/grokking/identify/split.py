"""Which pairs a network was trained on: a split that is given, stored beside the weights, or one of the known two.

A split is *credible* when the losses on its training pairs rank below those on the others: Mann-Whitney's z under the
permutation of pairs is at most -4. A split that has nothing to do with the network is a random one, so this is its
exact null: it passes three times in 100,000. For the known splits, prefixes of one shuffled order, the tenth of the
pairs on either side of the boundary must look like its own side too, or the fraction is wrong.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.errors import BadConfig
from micrographia.core.events import Note, Watch
from micrographia.labs.grokking.identify.split_file import TRAIN_NAMES, mask_among, read_mask
from micrographia.labs.grokking.task import SPLITS

Z = 4.0
RING = 0.1  # fraction of the training pairs on either side of the boundary that is checked

Mask = Bool[Tensor, "pairs"]


class SplitChoice(NamedTuple):
    """How a split is made, as far as a user gives it or the Run that a network is from records it."""

    split: str | None = None
    train_fraction: float | None = None
    seed: int | None = None


class Split(NamedTuple):
    """A mask of the training pairs, and the evidence of the losses. `fault`: why it is not credible."""

    name: str
    train: Mask
    z: float
    choice: SplitChoice
    fault: str = ""
    known: bool = False
    """Recorded by the Run itself, so that it needs no evidence."""

    @property
    def credible(self) -> bool:
        return self.known or not self.fault

    def as_json(self) -> dict[str, Any]:
        evidence = {"z": self.z, "credible": self.credible, "fault": self.fault}
        return {"split": self.name, "train_fraction": fraction_of(self.train), **evidence}

    def __str__(self) -> str:
        verdict = "recorded by the Run" if self.known else f"not credible: {self.fault}" if self.fault else "credible"
        size = f"{int(self.train.sum()):,} pairs ({fraction_of(self.train):.1%})"
        return (
            f"Split {self.name}, {size}: the rank sum of their losses lies {self.z:+.1f} standard deviations from that "
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
        tried = [Split("as recorded", train, rank_z(losses, train), recorded, known=True)]
    else:
        tried = _tried(given, recorded, losses, extra, allow_pickle)
    for each in tried:
        watch(Note(str(each)))
    best = min((each for each in tried if each.credible), key=lambda each: each.z, default=None)
    if best is None:
        unknown = "Which pairs it was trained on is not known"
        text = f"No split is credible: {EMPTY}" if tried else f"{unknown}: {EMPTY} {HINT}"
        watch(Note(text, "info" if given == SplitChoice() else "warning"))
    return best, tried


EMPTY = "figures of training and test pairs are left empty."
HINT = "Give --seed and --train-fraction, or --split FILE."


def rank_z(losses: Float[Tensor, "pairs"], chosen: Mask, among: Mask | None = None) -> float:
    """Mann and Whitney's (1947) rank sum of the chosen losses in standard deviations from its mean; below 0: smaller.

    Midranks for ties, and the exact variance over all choices of as many pairs. 0 where there is nothing to compare.
    """
    if among is not None:
        losses, chosen = losses[among], chosen[among]
    n, m = len(losses), int(chosen.sum())
    if m in (0, n):
        return 0.0
    ranks = _midranks(losses)
    variance = m * (n - m) / n * ranks.var().item()
    return (ranks[chosen].sum().item() - m * ranks.mean().item()) / variance**0.5 if variance else 0.0


def _midranks(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Ranks from 1, equal values sharing their mean."""
    _, where, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2).double()[where]


def _tried(
    given: SplitChoice, recorded: SplitChoice | None, losses: Tensor, extra: Mapping[str, Any], allow_pickle: bool
) -> list[Split]:
    p = round(len(losses) ** 0.5)
    if given.split not in (None, *SPLITS):
        return [_judged("file", read_mask(Path(str(given.split)), p, allow_pickle=allow_pickle), losses)]
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
    z = rank_z(losses, train)
    return Split(name, train, z, SplitChoice(name, fraction_of(train)), "" if z <= -Z else f"it takes {-Z:.0f} or less")


def _prefix(name: str, losses: Tensor, fraction: float, seed: int) -> Split:
    """A known split, and whether the tenth on either side of its boundary looks like its side."""
    make, n = SPLITS[name], len(losses)
    found = _judged(name, make(n, fraction, seed), losses)._replace(choice=SplitChoice(name, fraction, seed))
    if found.fault:
        return found
    train = found.train
    inner = train & ~make(n, fraction * (1 - RING), seed)
    outer = make(n, min(1.0, fraction * (1 + RING)), seed) & ~train
    if (z := rank_z(losses, inner, train)) > Z:
        return found._replace(fault=f"the last tenth of it looks unseen (z {z:+.1f}), so the fraction is too large")
    if (z := rank_z(losses, outer, ~train)) < -Z:
        return found._replace(fault=f"as many pairs after it look seen too (z {z:+.1f}), so the fraction is too small")
    return found
