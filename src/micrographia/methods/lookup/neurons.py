"""Every neuron of the chosen MLPs mean-ablated by itself: what it does to every fact.

The neuron is held at its mean over the subjects, at the subject's last token, and the log-probability of the right
answer among the relation's options is read again. In place of neurons any orthonormal directions of the hidden space
can be ablated: a random rotation is the null that tells whether the neurons' own basis is special.
Relations that share their prompts are answered by one run. A model without attention has the fast plan of
`core.small.mlp_stack`; any other restarts at the neuron's layer.
Source: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), post 3.
Suffixes: S subject, B direction of the batch, M neuron, D d_model.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.edits import apply
from micrographia.core.errors import BadShape
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.model import Model, Start
from micrographia.core.sites import Site
from micrographia.core.small.mlp_stack import MlpStack, supports
from micrographia.core.small.transformer import Transformer
from micrographia.core.tokens import Inputs, rows_of
from micrographia.methods.lookup.facts import Facts, Relation, at_subjects, sharing

ROWS = 4096
"""Prompts x directions of a batch."""


class NeuronEffects(NamedTuple):
    """`change` (relation, layer, neuron, subject): of the log-probability of the right answer, in nats; below 0 where
    the neuron helps. `clean` (relation, subject): that log-probability when nothing is ablated.
    """

    layers: tuple[int, ...]
    change: Float[Tensor, "relation layer neuron subject"]
    clean: Float[Tensor, "relation subject"]

    @property
    def flat(self) -> Float[Tensor, "relation unit subject"]:
        """The neurons of all layers in one row."""
        return self.change.flatten(1, 2)


@runtime_checkable
class Ablating(Protocol):
    """Logits of every row when directions of a layer's hidden space are moved, each by itself."""

    clean: Tensor
    """The logits (subject, vocab) when nothing is moved."""

    def __call__(
        self, layer: int, away: Float[Tensor, "subject direction"], directions: Float[Tensor, "neuron direction"]
    ) -> Float[Tensor, "direction subject vocab"]: ...


def neuron_effects(
    model: Model,
    facts: Facts,
    *,
    layers: Sequence[int] | None = None,
    rotations: Sequence[Float[Tensor, "neuron direction"]] | None = None,
    reference: Facts | None = None,
    watch: Watch = silent,
) -> NeuronEffects:
    """What ablating each neuron of these layers (None: all) does to every fact.

    `rotations`: a matrix a layer with orthonormal columns, ablated in place of the neurons. `reference`: the subjects
    to take means over; None: the facts themselves.
    Cost: for each set of prompts and each neuron of layer l one pass of the layers from l on; without attention one of
    the layers after l, less a product. Memory: the changes, (relation, layer, neuron, subject), and one batch.
    """
    chosen = tuple(range(model.shape.n_layers) if layers is None else layers)
    _check_rotations(rotations, chosen, model.shape.d_mlp)
    sites = [Site("neurons", layer) for layer in chosen]
    hidden = at_subjects(model, facts, sites)
    means = {
        site: h.mean(0) for site, h in (hidden if reference is None else at_subjects(model, reference, sites)).items()
    }
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for members in sharing(facts.relations):
        relations = [facts.relations[i] for i in members]
        ablating = _ablating(model, relations[0], chosen)
        clean = [each.nats(each.among(ablating.clean)) for each in relations]
        changes = [hidden[sites[0]].new_empty(len(chosen), model.shape.d_mlp, facts.n) for _ in members]
        for i, site in enumerate(sites):
            basis = None if rotations is None else rotations[i].to(hidden[site])
            for units, logits in _moved(ablating, chosen[i], hidden[site], means[site], basis):
                for relation, base, change in zip(relations, clean, changes):
                    change[i, units] = relation.nats(logits[..., relation.options]) - base
                watch(
                    Progress("neurons", i * model.shape.d_mlp + units.stop, len(chosen) * model.shape.d_mlp, "neuron")
                )
        found |= {i: (change, base) for i, change, base in zip(members, changes, clean)}
    ordered = [found[i] for i in range(len(facts.relations))]
    return NeuronEffects(chosen, torch.stack([x for x, _ in ordered]), torch.stack([x for _, x in ordered]))


def random_rotations(n_layers: int, n_neurons: int, generator: Generator) -> list[Float[Tensor, "neuron direction"]]:
    """A random orthonormal basis for each of these layers (Haar measure, by QR of a normal matrix), in float64."""
    return [_haar(n_neurons, generator) for _ in range(n_layers)]


def _haar(n: int, generator: Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def _check_rotations(rotations: Sequence[Tensor] | None, layers: Sequence[int], n_neurons: int) -> None:
    found = None if rotations is None else [tuple(each.shape) for each in rotations]
    if found is not None and found != [(n_neurons, n_neurons)] * len(layers):
        raise BadShape(
            f"Rotations need {n_neurons} x {n_neurons} numbers for each of {len(layers)} layers. Found {found}."
        )


def _moved(
    ablating: Ablating, layer: int, h_SM: Tensor, mean_M: Tensor, basis: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """For batches of directions, which they are and the logits (direction, subject, vocab)."""
    S, M = h_SM.shape
    away_SM = mean_M - h_SM if basis is None else (mean_M - h_SM) @ basis
    basis = torch.eye(M).to(h_SM) if basis is None else basis
    for first in range(0, M, max(1, ROWS // S)):
        units = slice(first, min(M, first + max(1, ROWS // S)))
        yield units, ablating(layer, away_SM[:, units], basis[:, units])


def _ablating(model: Model, relation: Relation, layers: Sequence[int]) -> Ablating:
    if isinstance(model, Transformer) and supports(model.arch):
        return _ByStack(model, relation.inputs, layers)
    return _ByRestart(model, relation, layers)


class _ByStack:
    """The fast plan of a model without attention."""

    def __init__(self, model: Transformer, inputs: Inputs, layers: Sequence[int]) -> None:
        sites = {layer: Site("resid_post", layer) for layer in layers}
        output = model.run(inputs, keep=sites.values(), logits="last")
        self.clean = output.logits[:, -1]
        self.after = {layer: output.cache[site][:, 0] for layer, site in sites.items()}
        self.stack = MlpStack(model.arch, model.state)

    def __call__(self, layer: int, away: Tensor, directions: Tensor) -> Tensor:
        return self.stack.logits_after(layer, self.after[layer], away, directions.T @ self.stack.W_out[layer])


class _ByRestart:
    """Any Model, from the residual stream that enters the neurons' layer."""

    def __init__(self, model: Model, relation: Relation, layers: Sequence[int]) -> None:
        sites = {layer: Site("resid_pre", layer) for layer in layers}
        self.model, self.relation = model, relation
        output = model.run(relation.inputs, keep=sites.values(), logits="last")
        self.clean = output.logits[:, -1]
        self.entering = {layer: output.cache[site] for layer, site in sites.items()}

    def __call__(self, layer: int, away: Tensor, directions: Tensor) -> Tensor:
        S, B = away.shape
        change = (away.T[:, :, None] * directions.T[:, None]).flatten(0, 1)
        at = self.relation.at.to(away.device).repeat(B)

        def write(value: Tensor) -> Tensor:
            value[torch.arange(len(value)), at] += change
            return value

        inputs = rows_of(self.relation.inputs, torch.arange(S).repeat(B))
        x = self.entering[layer]
        start = Start(layer, x.repeat(B, *[1] * (x.ndim - 1)))
        edits = [apply(Site("neurons", layer), write)]
        return self.model.run(inputs, edits=edits, start=start, logits="last").logits[:, -1].unflatten(0, (B, S))
