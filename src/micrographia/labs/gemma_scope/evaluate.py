"""The measures of a suite on held-out text, a Site at a time: its dictionaries and their baselines on the same runs.

Sections 4.1 and 4.3 of the report (arXiv 2408.05147): L0, delta loss, FVU, and how often latents fire. Beside each
stand the mean, the best linear map and random directions at its L0. A Site costs one reading of its activations, held
while it is measured (tokens x d x 4 bytes), and for each replacement a run of the layers behind it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Progress, Watch
from micrographia.core.model import Model
from micrographia.core.stream.rows import TokenSources
from micrographia.labs.gemma_scope.members import WantedDictionary
from micrographia.methods.dictionaries.evaluation.baselines import random_dictionary
from micrographia.methods.dictionaries.evaluation.by_group import by_source
from micrographia.methods.dictionaries.evaluation.in_depth import InDepth, in_depth
from micrographia.methods.dictionaries.evaluation.metrics import DictionaryMetrics, measure
from micrographia.methods.dictionaries.evaluation.reading import (
    Activity,
    ReadWrite,
    activity_of_rows,
    counted_by,
    outputs_of,
)
from micrographia.methods.dictionaries.evaluation.spliced import MEAN, Recovery, Replacement, Spliced, splice_losses

SAMPLE = 2_048
"""Tokens on which the gain of random directions is fitted."""
FREQUENT = 0.1
"""Ultra-high frequency, as SAEBench has it; the report shows a cluster and gives no bound."""
LINEAR, RANDOM = "best linear map", "random directions"


class Fidelity(NamedTuple):
    """How faithful something in the place of an activation is."""

    fvu: float
    delta_loss: float
    """Rise of the loss, in nats a token."""
    error: float
    """Its standard error over rows."""
    recovered: float
    """Of what the mean costs."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One dictionary of the suite, beside its baselines at the same L0."""

    member: WantedDictionary
    l0: float
    fidelity: Fidelity
    linear: Fidelity | None
    """None where the activations are too wide for their covariance."""
    random: Fidelity
    mean: Fidelity
    dead: float
    """Share of latents that never fired."""
    frequencies: Float[Tensor, "latent"]
    rms: float
    """sqrt(E||x||^2) of the activations."""
    spread: float
    """sqrt(E||x - E x||^2)."""
    clean_loss: float
    n_tokens: int

    @property
    def transcodes(self) -> bool:
        return self.member.target is not None

    @property
    def live(self) -> Float[Tensor, "alive"]:
        """The frequencies of latents that fire."""
        return self.frequencies[self.frequencies > 0]

    @property
    def frequent(self) -> float:
        """Share of latents that fire at more than one token in ten."""
        return float((self.frequencies > FREQUENT).double().mean())

    def row(self) -> dict[str, Any]:
        """As a record of a table."""
        member, own = self.member, self.fidelity
        beside = {"linear": self.linear, "random": self.random, "mean": self.mean}
        return {
            "name": member.name, "site": member.site.kind, "layer": member.site.layer, "width": member.width,
            "l0_asked": member.l0, "l0": self.l0, **own._asdict(), "dead": self.dead, "frequent": self.frequent,
            "median_frequency": float(self.live.median()) if len(self.live) else None, "rms": self.rms,
            "spread": self.spread, "clean_loss": self.clean_loss, "tokens": self.n_tokens,
            **{f"fvu_{name}": None if each is None else each.fvu for name, each in beside.items()},
            **{f"delta_loss_{name}": None if each is None else each.delta_loss for name, each in beside.items()},
        }  # fmt: skip


def evaluate_suite(
    dictionaries: Mapping[WantedDictionary, Dictionary],
    model: Model,
    rows: Int[Tensor, "row pos"],
    *,
    loss_rows: int,
    generator: Generator,
    stage: str,
    watch: Watch,
) -> list[Measurement]:
    """Every dictionary, in their order. `loss_rows`: the first rows, on which losses are measured."""
    by_place: dict[ReadWrite, dict[WantedDictionary, Dictionary]] = {}
    for member, one in dictionaries.items():
        by_place.setdefault(member.place, {})[member] = one
    found: dict[WantedDictionary, Measurement] = {}
    for i, (place, group) in enumerate(by_place.items()):
        watch(Progress(stage, i, len(by_place), "site"))
        found |= _of_place(place, group, model, rows, rows[:loss_rows], generator)
    watch(Progress(stage, len(by_place), len(by_place), "site"))
    return [found[member] for member in dictionaries]


def _of_place(
    place: ReadWrite,
    group: Mapping[WantedDictionary, Dictionary],
    model: Model,
    rows: Tensor,
    some: Tensor,
    generator: Generator,
) -> dict[WantedDictionary, Measurement]:
    counted = counted_by(model)
    chunks = list(activity_of_rows(model, place, rows, counted))
    measured: dict[WantedDictionary, DictionaryMetrics] = {}
    for member, one in group.items():
        measured[member] = measure(one, chunks, linear=not measured)  # the covariance is that of the activations
    first = next(iter(measured.values()))
    given = _given(place, first, chunks)
    replacements = dict[str, Replacement]()
    for member, one in group.items():
        replacements |= _replacements(member, one, round(measured[member].l0), given, generator)
    spliced = splice_losses(model, place, some, replacements, first.mean, counted)
    return {member: _measurement(member, measured[member], first, spliced) for member in group}


class _Given(NamedTuple):
    """What baselines are made of."""

    first: DictionaryMetrics
    """Of the dictionary that holds the covariance."""
    mean_in: Float[Tensor, "d_in"]
    sample: tuple[Float[Tensor, "token d_in"], Float[Tensor, "token d_out"]]


def _given(place: ReadWrite, first: DictionaryMetrics, chunks: Sequence[Activity]) -> _Given:
    x, y = torch.cat([each.x.flatten(1) for each in chunks]), torch.cat([each.y.flatten(1) for each in chunks])
    mean_in = first.mean if place.read == place.write else x.double().mean(0)
    return _Given(first, mean_in, (x[:SAMPLE], y[:SAMPLE]))


def _replacements(
    member: WantedDictionary, one: Dictionary, l0: int, given: _Given, generator: Generator
) -> dict[str, Replacement]:
    """What is written for a dictionary and its baselines, named apart from those of others."""
    k, mean_out = max(1, l0), given.first.mean
    found: dict[str, Replacement] = {member.name: _writes(one)}
    if (linear := given.first.linear(k)) is not None:
        found[f"{LINEAR}, {k}"] = lambda x, y: linear(x).to(y)
    random = random_dictionary(one, k, given.mean_in, mean_out, given.sample, generator)
    found[f"{RANDOM}, {member.name}"] = _writes(random)
    return found


def _writes(one: Dictionary) -> Replacement:
    return lambda x, y: outputs_of(one, x).to(y)


def _measurement(
    member: WantedDictionary, metrics: DictionaryMetrics, first: DictionaryMetrics, spliced: Spliced
) -> Measurement:
    k, total = max(1, round(metrics.l0)), first.residuals.target.total
    linear = first.linear(k)
    random = f"{RANDOM}, {member.name}"
    fvu_random = spliced.effects[random].squares.value / spliced.effects[MEAN].squares.value
    return Measurement(
        member=member,
        l0=metrics.l0,
        fidelity=_fidelity(metrics.fvu, spliced.of(member.name)),
        linear=None if linear is None else _fidelity(linear.fvu, spliced.of(f"{LINEAR}, {k}")),
        random=_fidelity(fvu_random, spliced.of(random)),
        mean=_fidelity(1.0, spliced.of(MEAN)),
        dead=metrics.firing.dead_share,
        frequencies=metrics.firing.frequencies,
        rms=first.residuals.squares.value**0.5,
        spread=total**0.5,
        clean_loss=spliced.clean_loss,
        n_tokens=metrics.n_tokens,
    )


def _fidelity(fvu: float, effect: Recovery) -> Fidelity:
    return Fidelity(fvu, effect.delta_loss, effect.delta_loss_error, effect.recovered_mean)


def looked_into(
    dictionaries: Mapping[WantedDictionary, Dictionary],
    model: Model,
    rows: Int[Tensor, "row pos"],
    sources: TokenSources | None,
    watch: Watch,
) -> tuple[WantedDictionary, InDepth]:
    """The report's further questions, of the autoencoder in the middle of the widest of the first kind of site."""
    first, widest = next(iter(dictionaries)).site.kind, max(each.width for each in dictionaries)
    own = [each for each in dictionaries if (each.site.kind, each.width) == (first, widest)]
    member = sorted(own, key=lambda each: (each.site.layer or 0, each.l0))[len(own) // 2]
    by = None if sources is None else by_source(sources, len(rows))
    return member, in_depth(dictionaries[member], model, member.place, rows, counted_by(model), sources=by, watch=watch)
