"""k-sparse probing: how well a few latents tell a label, beside a probe of all activations and one of k neurons.

The k latents with the largest difference of class means on training data, then logistic regression on them alone,
judged on test data. A dictionary that has a latent for the concept needs k = 1. Nulls: the same with permuted training
labels, and the share of the larger class. Labels of several classes are probed one against the rest.
Sources: Gurnee et al., "Finding neurons in a haystack" (2305.01610), section 3; SAEBench (Karvonen et al. 2025), whose
selection this is, with mean-pooled texts and k = 1, 2, 5. Axes: row latent d.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from micrographia.core import figures
from micrographia.core.errors import UserError
from micrographia.core.figures import Figure
from micrographia.methods.dictionaries.evaluation.labelled import Examples
from micrographia.methods.dictionaries.evaluation.logistic import fit

KS = (1, 2, 5)


class ProbeScore(NamedTuple):
    """One probe: test accuracy and F1, and which latents it read (empty: all)."""

    label: int
    read: str
    k: int | None
    accuracy: float
    f1: float
    latents: tuple[int, ...] = ()


class SparseProbing(NamedTuple):
    """Every probe of every label, and their means."""

    scores: tuple[ProbeScore, ...]

    def mean(self, read: str, k: int | None) -> float:
        """Mean test accuracy over labels."""
        found = [each.accuracy for each in self.scores if each.read == read and each.k == k]
        return sum(found) / len(found)

    def summary(self) -> list[dict[str, Any]]:
        """A row for each kind of probe: the mean accuracy over labels."""
        kinds = dict.fromkeys((each.read, each.k) for each in self.scores)
        return [{"read": read, "k": k, "accuracy": self.mean(read, k)} for read, k in kinds]

    def rows(self) -> list[dict[str, Any]]:
        return [each._asdict() for each in self.scores]

    def figures(self) -> list[Figure]:
        return [
            figures.table(
                "sparse-probing", "What a few latents tell", self.summary(), group="Dictionary",
                caption="Test accuracy, the mean over labels, each against the rest. Below: what chance gives.",
            )
        ]  # fmt: skip


def largest_difference(values: Float[Tensor, "row feature"], labels: Bool[Tensor, "row"], k: int) -> Int[Tensor, "k"]:
    """The k features whose means differ most between the classes."""
    difference = values[labels].mean(0) - values[~labels].mean(0)
    return difference.abs().topk(min(k, values.shape[1])).indices


def sparse_probing(
    train: Examples,
    test: Examples,
    *,
    generator: Generator,
    ks: Sequence[int] = KS,
    classes: Sequence[int] | None = None,
) -> SparseProbing:
    """Probes of each class against the rest (of two classes, of the second alone), on latents, neurons and all.

    `generator` permutes labels for the null. Cost: two fits of k features a k and label, and one of d.
    Raises UserError where a class is missing from training or test data.
    """
    found: list[ProbeScore] = []
    every = train.labels.unique().tolist()
    chosen = list(classes) if classes is not None else every[1:] if len(every) == 2 else every
    if len(every) < 2 or not chosen:
        raise UserError(f"Probing needs two labels. Found only {every} in {len(train.labels)} training examples.")
    for label in chosen:
        own, true = train.labels == label, test.labels == label
        if not 0 < int(true.sum()) < len(true) or not 0 < int(own.sum()) < len(own):
            raise UserError(
                f"Label {label} should be true of some examples and not of others. Found {int(own.sum())} of "
                f"{len(own)} in training, {int(true.sum())} of {len(true)} in test data."
            )
        permuted = own[torch.randperm(len(own), generator=generator)]
        for k in ks:
            found.append(_probe("latents", train.latents, test.latents, own, true, label, k))
        for k in ks:
            found.append(_probe("neurons", train.x, test.x, own, true, label, k))
        found.append(_probe("all activations", train.x, test.x, own, true, label, None))
        for k in ks:
            found.append(_probe("latents, permuted labels", train.latents, test.latents, permuted, true, label, k))
        share = float(true.double().mean())
        found.append(ProbeScore(label, "larger class", None, max(share, 1 - share), 0.0))
    return SparseProbing(tuple(found))


def _probe(
    read: str,
    train: Tensor,
    test: Tensor,
    labels: Bool[Tensor, "train"],
    true: Bool[Tensor, "test"],
    label: int,
    k: int | None,
) -> ProbeScore:
    chosen = None if k is None else largest_difference(train, labels, k)
    x, held_out = (train, test) if chosen is None else (train[:, chosen], test[:, chosen])
    probe = fit(x, labels)
    latents = () if chosen is None or not read.startswith("latents") else tuple(chosen.tolist())
    return ProbeScore(label, read, k, probe.accuracy(held_out, true), probe.f1(held_out, true), latents)
