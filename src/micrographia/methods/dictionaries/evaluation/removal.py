"""TPP and SCR: whether ablating a few latents removes one concept from what a probe reads, and no other.

Latents are ablated by x' = x - sum over chosen latents of a_i d_i, so the dictionary's error stays in. Chosen are the
largest products of the latent's difference of class means and its decoder row's projection on the probe.
TPP (targeted probe perturbation): mean_i (A_i - A_ii) - mean_{i != j} (A_j - A_ij), with A_j the test accuracy of
class j's probe and A_ij the same once class i's latents are ablated. Higher is better; random latents, as many, are the
null.
SCR (spurious correlation removal): (A_ablated - A_base) / (A_oracle - A_base), with a probe for one attribute trained
where a second always goes with it, judged where the two are independent; ablated are latents of the second; the oracle
probe is trained on independent data.
Sources: Karvonen et al., "Evaluating sparse autoencoders on targeted concept erasure tasks" (2411.18895), whose SHIFT
score SAEBench calls SCR. An audit of SAEBench (Chanin, "Are sparse autoencoder benchmarks reliable?", 2026) finds that
both order dictionaries of known quality wrongly: read them beside their nulls, and do not choose by them alone.
Axes: row d latent.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import UserError
from micrographia.methods.dictionaries.evaluation.labelled import Examples, decoder_of
from micrographia.methods.dictionaries.evaluation.logistic import LogisticProbe, fit

NS = (5, 10, 20, 50)


class Removal(NamedTuple):
    """A score and its null for each number of ablated latents."""

    name: str
    n: int
    score: float
    random: float
    """The same with as many latents drawn among those that fire."""
    intended: float
    """TPP: the fall of the accuracy of the class whose latents were ablated. SCR: accuracy after ablation."""
    unintended: float
    """TPP: that of the other classes. SCR: accuracy before."""


def effects_on(
    examples: Examples, positive: Bool[Tensor, "row"], probe: LogisticProbe, decoder: Float[Tensor, "latent d"]
) -> Float[Tensor, "latent"]:
    """How much each latent moves the probe from one class to the other, on average."""
    difference = examples.latents[positive].double().mean(0) - examples.latents[~positive].double().mean(0)
    return difference * (decoder @ probe.direction)


def ablated(
    examples: Examples, latents: Int[Tensor, "n"], decoder: Float[Tensor, "latent d"]
) -> Float[Tensor, "row d"]:
    """The activations without what these latents add."""
    return examples.x.double() - examples.latents[:, latents].double() @ decoder[latents]


def _drawn(examples: Examples, n: int, generator: Generator) -> Int[Tensor, "n"]:
    live = (examples.latents != 0).any(0).nonzero()[:, 0]
    return live[torch.randperm(len(live), generator=generator)[:n]]


def tpp(
    dictionary: Dictionary, train: Examples, test: Examples, *, generator: Generator, ns: Sequence[int] = NS
) -> list[Removal]:
    """Targeted probe perturbation over the classes of the labels. Cost: a probe a class; then products alone.

    Raises UserError for fewer than two classes, BadShape for a transcoder.
    """
    classes = train.labels.unique().tolist()
    if len(classes) < 2:
        raise UserError(f"TPP compares classes. Found the labels {classes}. Give two or more.")
    decoder = decoder_of(dictionary)
    probes = {c: fit(train.x, train.labels == c) for c in classes}
    ranked = {c: effects_on(train, train.labels == c, probes[c], decoder).argsort(descending=True) for c in classes}
    return [_tpp(test, classes, probes, ranked, decoder, n, generator) for n in ns if n <= dictionary.n_latents]


def _tpp(
    test: Examples,
    classes: list[Any],
    probes: dict[Any, LogisticProbe],
    ranked: dict[Any, Tensor],
    decoder: Tensor,
    n: int,
    generator: Generator,
) -> Removal:
    def accuracies(x: Tensor) -> Tensor:
        return torch.tensor([probes[c].accuracy(x, test.labels == c) for c in classes], dtype=torch.float64)

    clean = accuracies(test.x)

    def scored(chosen: dict[Any, Tensor]) -> tuple[float, float]:
        falls = torch.stack([clean - accuracies(ablated(test, chosen[c], decoder)) for c in classes])
        own = falls.diagonal().mean()
        other = (falls.sum() - falls.diagonal().sum()) / (len(classes) * (len(classes) - 1))
        return float(own), float(other)

    own, other = scored({c: ranked[c][:n] for c in classes})
    null = scored({c: _drawn(test, n, generator) for c in classes})
    return Removal("TPP", n, own - other, null[0] - null[1], own, other)


class TwoAttributes(NamedTuple):
    """Examples with an attribute to keep and a spurious one; `labels` of `examples` are not read."""

    examples: Examples
    wanted: Bool[Tensor, "row"]
    spurious: Bool[Tensor, "row"]

    def where(self, which: Bool[Tensor, "row"]) -> "TwoAttributes":
        return TwoAttributes(self.examples.rows(which), self.wanted[which], self.spurious[which])


def scr(
    dictionary: Dictionary,
    train: TwoAttributes,
    test: TwoAttributes,
    *,
    generator: Generator,
    ns: Sequence[int] = NS,
) -> list[Removal]:
    """Spurious correlation removal. `train` holds both attributes independently: the biased probe is trained on its
    rows where the two agree, the oracle on all. Test data should be balanced.

    `score` is NaN where the biased probe is as good as the oracle, so that there is nothing to recover. Raises
    UserError for training data in which the two always or never agree.
    """
    decoder = decoder_of(dictionary)
    agree = train.wanted == train.spurious
    if not bool(agree.any()) or bool(agree.all()):
        raise UserError(
            f"The two attributes agree in {int(agree.sum())} of {len(agree)} training examples. Give both cases: the "
            "biased probe is trained where they agree, the oracle on all."
        )
    biased_data = train.where(agree)
    biased = fit(biased_data.examples.x, biased_data.wanted)
    oracle = fit(train.examples.x, train.wanted).accuracy(test.examples.x, test.wanted)
    base = biased.accuracy(test.examples.x, test.wanted)
    spurious = fit(train.examples.x, train.spurious)
    order = effects_on(train.examples, train.spurious, spurious, decoder).abs().argsort(descending=True)

    def scored(latents: Tensor) -> tuple[float, float]:
        after = biased.accuracy(ablated(test.examples, latents, decoder), test.wanted)
        return (after - base) / (oracle - base) if oracle > base else float("nan"), after

    found = []
    for n in ns:
        if n <= dictionary.n_latents:
            score, after = scored(order[:n])
            found.append(Removal("SCR", n, score, scored(_drawn(test.examples, n, generator))[0], after, base))
    return found
