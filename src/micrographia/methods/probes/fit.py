"""Fit probes of many sites and targets in one pass over the data.

Multinomial logistic regression by AdamW with a cosine schedule, on activations that are standardised by their first
batch; the standardisation is folded into the probe. Rates are those of Lee's probes in Nanda, Lee and Wattenberg 2023
(arXiv 2309.00941); the hidden layer is that of Li et al. 2023 (arXiv 2210.13382). The gradient of cross-entropy is
written out: softmax less the label. Axes: site row d item class hidden.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.errors import BadShape, UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.methods.probes.probe import LabelledRows, ProbeLayer, Probes, ProbeTarget, SiteProbes

IGNORED = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitting:
    """How probes are fitted."""

    steps: int
    """Batches."""
    hidden: int | None = None
    """Neurons of a hidden layer; None: linear probes."""
    lr: float = 1e-2
    """Of AdamW, falling along a cosine to nothing."""
    weight_decay: float = 0.01


def fit_probes(
    batches: Iterable[LabelledRows],
    targets: Mapping[str, ProbeTarget],
    fitting: Fitting,
    *,
    generator: Generator,
    watch: Watch = silent,
    task: str = "probe",
) -> Probes:
    """A probe of every target at every site. Raises UserError for fewer batches than steps.

    Each is what it would be alone: the loss is a sum over probes, and Adam has no common scale. `generator` draws the
    hidden layers. Cost a batch: three products of x with (d, items x classes) a site and target; with a hidden layer
    three with (d, hidden) as well.
    """
    batches = iter(batches)
    if (first := next(batches, None)) is None:
        raise UserError("Probes were to be fitted, but there are no labelled activations.")
    _check(first, targets)
    mean, scale = _moments(first.x)
    probes = {name: _fresh(first.x, target, fitting.hidden, generator) for name, target in targets.items()}
    weights = [part for probe in probes.values() for layer in _layers(probe) for part in layer]
    optimiser = torch.optim.AdamW(weights, lr=fitting.lr, betas=(0.9, 0.99), weight_decay=fitting.weight_decay)
    done = 0
    for done, rows in enumerate(itertools.islice(itertools.chain([first], batches), fitting.steps), 1):
        x = (rows.x - mean[:, None]) / scale[:, None]
        loss = sum(_descend(probe, x, rows.labels[name]) for name, probe in probes.items()) / len(probes)
        optimiser.param_groups[0]["lr"] = fitting.lr * 0.5 * (1 + math.cos(math.pi * (done - 1) / fitting.steps))
        optimiser.step()
        watch(Progress(task, done, fitting.steps, "batch", {"loss": loss}))
    if done < fitting.steps:
        raise UserError(f"Probes were to be fitted on {fitting.steps} batches. Found {done}. Give more data or fewer.")
    return Probes({name: _folded(probe, mean, scale) for name, probe in probes.items()})


def _layers(probe: SiteProbes) -> Iterator[ProbeLayer]:
    yield from (layer for layer in (probe.hidden, probe.readout) if layer is not None)


def _check(rows: LabelledRows, targets: Mapping[str, ProbeTarget]) -> None:
    for name, target in targets.items():
        shape, wanted = tuple(rows.labels[name].shape), (rows.x.shape[1], target.n_items)
        if shape != wanted or int(rows.labels[name].max()) >= target.n_classes:
            raise BadShape(
                f"The labels of {name!r} should have shape {wanted} and classes below {target.n_classes}. Found shape "
                f"{shape} and classes up to {int(rows.labels[name].max())}."
            )


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every feature; a constant one is left at its scale."""
    mean, scale = x.mean(1), x.std(1)
    return mean, torch.where(scale > 1e-6 * scale.amax(1, keepdim=True).clamp(min=1e-30), scale, 1.0)


def _fresh(x: Tensor, target: ProbeTarget, hidden: int | None, generator: Generator) -> SiteProbes:
    """A readout of nothing but its bias; a hidden layer with random directions (He et al. 2015)."""
    n_sites, _, d = x.shape
    width = hidden or d
    readout = ProbeLayer(x.new_zeros(n_sites, width, math.prod(target)), x.new_zeros(n_sites, math.prod(target)))
    if hidden is None:
        return SiteProbes(target, readout)
    drawn = torch.randn(n_sites, d, hidden, generator=generator) * math.sqrt(2 / d)
    out = torch.randn(n_sites, hidden, math.prod(target), generator=generator) / math.sqrt(hidden)
    return SiteProbes(
        target, ProbeLayer(out.to(x), readout.bias), ProbeLayer(drawn.to(x), x.new_zeros(n_sites, hidden))
    )


def _descend(probe: SiteProbes, x: Float[Tensor, "site row d"], labels: Int[Tensor, "row item"]) -> float:
    """Set the gradients of the mean cross-entropy of labelled items; the loss in nats, the mean over sites."""
    features = probe.features(x)
    error = probe.readout(features).unflatten(-1, tuple(probe.target))
    known = labels != IGNORED
    error -= error.amax(-1, keepdim=True)
    error.exp_()
    error /= error.sum(-1, keepdim=True)
    at = labels.clamp(min=0).long()[None, :, :, None].expand(len(x), -1, -1, 1)
    right = error.gather(-1, at)
    loss = -(right[..., 0].clamp(min=1e-30).log() * known).sum() / (known.sum().clamp(min=1) * len(x))
    error.scatter_(-1, at, right - 1)
    error *= known[None, :, :, None] / known.sum().clamp(min=1)
    flat = error.flatten(2)
    probe.readout.weight.grad = features.transpose(1, 2) @ flat
    probe.readout.bias.grad = flat.sum(1)
    if probe.hidden is not None:
        back = (flat @ probe.readout.weight.transpose(1, 2)) * (features > 0)
        probe.hidden.weight.grad = x.transpose(1, 2) @ back
        probe.hidden.bias.grad = back.sum(1)
    return float(loss)


def _folded(probe: SiteProbes, mean: Float[Tensor, "site d"], scale: Float[Tensor, "site d"]) -> SiteProbes:
    """The probe of activations as they are."""
    first = probe.readout if probe.hidden is None else probe.hidden
    weight = (first.weight / scale[..., None]).detach()
    folded = ProbeLayer(weight, (first.bias - (mean[:, None] @ weight)[:, 0]).detach())
    if probe.hidden is None:
        return SiteProbes(probe.target, folded)
    return SiteProbes(probe.target, ProbeLayer(probe.readout.weight.detach(), probe.readout.bias.detach()), folded)
