"""Flip a square inside the model, and watch the predictions follow.

A way changes the residual stream at the last position, at some layers, along the probes of those layers, so that they
read the other colour at one square; `flip_scores` holds the predictions against what is legal on the changed board.
Sources: gradient through a probe, Li et al. 2023 (arXiv 2210.13382), algorithm 1; addition and erasure, Nanda, Lee and
Wattenberg 2023 (arXiv 2309.00941), section 4; reflection, Nanda's notebook of it. Controls: a random direction of the
same length, and the probe of another square. Axes: case d pos vocab.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from micrographia.core.edits import Edit, apply
from micrographia.core.gradients import with_gradients
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.labs.othello.cases import Cases
from micrographia.labs.othello.reading import place_of
from micrographia.labs.othello.task import EMPTY, MINE, THEIRS
from micrographia.methods.probes.probe import SiteProbes

GRADIENT_STEPS = 10


class SquareReading(NamedTuple):
    """What a probe of one layer says of each case's square: x @ (to - of) + bias is above 0 where it reads the new
    class rather than the old one."""

    probe: SiteProbes
    square: Tensor
    old: Tensor
    new: Tensor

    @property
    def direction(self) -> Float[Tensor, "case d"]:
        W = self.probe.directions[0].movedim(1, 0)[self.square]  # case d class
        at = torch.arange(len(self.square))
        return W[at, :, self.new] - W[at, :, self.old]

    @property
    def bias(self) -> Float[Tensor, "case"]:
        b = self.probe.readout.bias[0].unflatten(-1, tuple(self.probe.target))[self.square]
        at = torch.arange(len(self.square))
        return b[at, self.new] - b[at, self.old]

    def margin(self, x: Float[Tensor, "case d"]) -> Float[Tensor, "case"]:
        return (x * self.direction).sum(-1) + self.bias


Change = Callable[[Float[Tensor, "case d"], SquareReading, float], Float[Tensor, "case d"]]
"""(activation at the last position, what its probe reads, scale) -> the activation that should read otherwise."""


def _add(x: Tensor, reading: SquareReading, scale: float) -> Tensor:
    return x + scale * _unit(reading.direction)


def _reflect(x: Tensor, reading: SquareReading, scale: float) -> Tensor:
    """To the other side of the plane on which the probe is undecided, at `scale` times the distance."""
    w = reading.direction
    past = (1 + scale) * reading.margin(x) / w.square().sum(-1)
    return torch.where((reading.margin(x) < 0)[:, None], x - past[:, None] * w, x)


@with_gradients
def _descend(x: Tensor, reading: SquareReading, scale: float) -> Tensor:
    """Down the cross-entropy of the square's new class, through the probe, a fixed number of steps."""
    for _ in range(GRADIENT_STEPS):
        leaf = x.detach().requires_grad_()
        logits = reading.probe.logits(leaf[None])[0]
        at = torch.arange(len(leaf))
        loss = -logits[at, reading.square].log_softmax(-1)[at, reading.new].sum()
        (slope,) = torch.autograd.grad(loss, leaf)
        x = x - scale * slope
    return x.detach()


class Way(NamedTuple):
    """How to flip: a change, the probes that it goes along, and scales to choose among."""

    change: Change
    frame: str
    hidden: bool = False
    scales: Sequence[float] = ()
    control: str = ""


RANDOM = "random direction"
"""A control of any way: a direction drawn for each case and layer, as long as the way's own change there."""
UNFLIP = "unflip"
"""Takes the last move's flip of a square back, along the probe of what was flipped (Nanda et al. 2023, section 4)."""
ADDED, REFLECTED, SLOPES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0), (0.5, 1.0, 2.0, 4.0), (0.03, 0.1, 0.3, 1.0, 3.0)
WAYS: Mapping[str, Way] = {
    "add": Way(_add, "mover", scales=ADDED),
    "reflect": Way(_reflect, "mover", scales=REFLECTED),
    "add, absolute": Way(_add, "absolute", scales=ADDED),
    "gradient, MLP": Way(_descend, "absolute", hidden=True, scales=SLOPES),
    UNFLIP: Way(_add, "flipped", scales=ADDED),
    RANDOM: Way(_add, "mover", scales=ADDED, control=RANDOM),
    "another square": Way(_add, "mover", scales=ADDED, control="square"),
}
"""By name. The controls take layers and scale from "add". With cases whose new class is empty they erase."""


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def edits_of(
    way: Way, probe: SiteProbes, cases: Cases, layers: Sequence[int], scale: float, generator: Generator
) -> list[Edit]:
    """The edits of the residual stream after these layers, by the probe of each at `reading.sites_of`.

    Where a case has several squares each is changed along its own direction, one after the other.
    """
    changes = [_squares(way, each, generator) for each in cases.one_by_one()]
    return [
        _edit(way, SquareReading(probe.at(place_of(layer)), *change), cases, layer, scale, generator)
        for layer in layers
        for change in changes
    ]


def _squares(way: Way, cases: Cases, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A square of each case, and its old and new class in the frame of the way."""
    square = cases.square
    if way.control == "square":
        further = torch.randint(1, cases.board.n_squares, square.shape, generator=generator)
        square = (square + further) % cases.board.n_squares
    return square, *classes_in_frame(cases, way.frame)


def _edit(way: Way, reading: SquareReading, cases: Cases, layer: int, scale: float, generator: Generator) -> Edit:
    at, last = torch.arange(len(cases.last)), cases.last
    drawn = torch.randn(len(last), reading.probe.d_model, generator=generator)

    def change(x: Tensor) -> Tensor:
        here = x[at, last]
        moved = way.change(here, reading, scale)
        if way.control == RANDOM:
            moved = here + (moved - here).norm(dim=-1, keepdim=True) * _unit(drawn)
        x[at, last] = moved
        return x

    return apply(Site("resid_post", layer), change)


def classes_in_frame(cases: Cases, frame: str) -> tuple[Tensor, Tensor]:
    """Old and new class of each case's square: in the absolute frame Black's discs are the first class."""
    if frame == "flipped":
        return torch.ones_like(cases.old), torch.zeros_like(cases.new)
    swap = torch.zeros_like(cases.black) if frame == "mover" else ~cases.black
    turned = torch.tensor([EMPTY, THEIRS, MINE])
    return torch.where(swap, turned[cases.old], cases.old), torch.where(swap, turned[cases.new], cases.new)


def logits_at_last(model: Model, cases: Cases, edits: Sequence[Edit] = ()) -> Float[Tensor, "case vocab"]:
    """What the model predicts after each history. One run."""
    logits = model.run(cases.tokens, edits=list(edits)).logits
    return logits[torch.arange(len(logits)), cases.last]


class FlipScores(NamedTuple):
    """Predictions held against the board B' of each case."""

    error: Float[Tensor, "case"]
    """Wrong among the N likeliest moves, N being the number of legal ones, counted twice: as false positive and as the
    false negative that it leaves. Always even."""
    legal_mass: Float[Tensor, "case"]
    """Probability of the legal moves of B' together."""
    divergence: Float[Tensor, "case"]
    """KL divergence of the predictions from the uniform distribution on the legal moves, in nats."""
    gained_in_top: Float[Tensor, "case"]
    """Of the moves that the flip makes legal, how many are among the N likeliest. NaN where there are none."""
    gained_above: Float[Tensor, "case"]
    """How many exceed the least likely move that is legal on both boards."""
    lost_out_of_top: Float[Tensor, "case"]
    """Of the moves that the flip makes illegal, how many are not among the N likeliest."""
    gained_probability: Float[Tensor, "case"]
    lost_probability: Float[Tensor, "case"]

    def means(self) -> dict[str, float]:
        return {name: float(value.nanmean()) for name, value in self._asdict().items()}


def flip_scores(logits: Float[Tensor, "case vocab"], cases: Cases) -> FlipScores:
    """Hold predictions against B'. With the predictions of the untouched model this is the null."""
    after, before = cases.after, cases.before
    log_probs = logits.double().log_softmax(-1)
    n = after.sum(-1)
    rank = logits.argsort(-1, descending=True).argsort(-1)
    top = rank < n[:, None]
    gained, lost, kept = after & ~before, before & ~after, after & before
    least_kept = log_probs.masked_fill(~kept, math.inf).amin(-1, keepdim=True)
    above = (log_probs > least_kept) & least_kept.isfinite()
    probabilities = log_probs.exp()
    return FlipScores(
        error=2.0 * (n - (top & after).sum(-1)).double(),
        legal_mass=(probabilities * after).sum(-1),
        divergence=-log_probs.masked_fill(~after, 0).sum(-1) / n - n.double().log(),
        gained_in_top=_share(top, gained),
        gained_above=_share(above, gained),
        lost_out_of_top=_share(~top, lost),
        gained_probability=_mean(probabilities, gained),
        lost_probability=_mean(probabilities, lost),
    )


def _share(which: Bool[Tensor, "case vocab"], of: Bool[Tensor, "case vocab"]) -> Float[Tensor, "case"]:
    return (which & of).sum(-1).double() / of.sum(-1)  # 0 / 0 is NaN


def _mean(values: Float[Tensor, "case vocab"], of: Bool[Tensor, "case vocab"]) -> Float[Tensor, "case"]:
    return (values * of).sum(-1) / of.sum(-1)
