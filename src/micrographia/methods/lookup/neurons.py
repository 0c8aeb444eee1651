"""Every neuron of the chosen MLPs mean-ablated by itself: what it does to every fact.

The neuron is held at its mean over the subjects, at the subject's last token, and the log-probability of the right
answer among the relation's options is read again. In place of neurons any orthonormal directions of the hidden space
can be ablated: a random rotation is the null that tells whether the neurons' own basis is special.
Source: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), post 3.
Suffixes: S subject, B direction of the batch, M neuron, R relation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.edits import apply
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.model import Model, Start
from micrographia.core.sites import Site
from micrographia.core.tokens import ids_of, rows_of
from micrographia.methods.lookup.facts import Facts, Relation, at_subjects


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


def neuron_effects(
    model: Model,
    facts: Facts,
    *,
    layers: Sequence[int] | None = None,
    rotations: Sequence[Float[Tensor, "neuron direction"]] | None = None,
    rows_at_once: int = 4096,
    watch: Watch = silent,
) -> NeuronEffects:
    """What ablating each neuron of these layers (None: all) does to every fact.

    `rotations`: a matrix a layer with orthonormal columns, ablated in place of the neurons.
    Cost: for each neuron of layer l one pass of the layers from l on, `rows_at_once` prompts.
    """
    chosen = tuple(range(model.shape.n_layers) if layers is None else layers)
    sites = [Site("neurons", layer) for layer in chosen]
    hidden = at_subjects(model, facts, sites)
    found, clean = list[Tensor](), list[Tensor]()
    for relation in facts.relations:
        base, each = _effects_of(model, relation, chosen, hidden, rotations, rows_at_once, watch)
        found.append(each)
        clean.append(base)
    return NeuronEffects(chosen, torch.stack(found), torch.stack(clean))


def random_rotations(
    effects_of: Sequence[int], n_neurons: int, generator: Generator
) -> list[Float[Tensor, "neuron direction"]]:
    """A random orthonormal basis for each of these layers (Haar measure, by QR of a normal matrix)."""
    return [_haar(n_neurons, generator) for _ in effects_of]


def _haar(n: int, generator: Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return (q * r.diagonal().sign()).float()


def _effects_of(
    model: Model,
    relation: Relation,
    layers: Sequence[int],
    hidden: dict[Site, Tensor],
    rotations: Sequence[Tensor] | None,
    rows_at_once: int,
    watch: Watch,
) -> tuple[Tensor, Tensor]:
    keep = [Site("resid_pre", layer) for layer in layers]
    output = model.run(relation.inputs, keep=keep, logits="last")
    clean = relation.nats(output.logits[:, -1][:, relation.options])
    S = len(ids_of(relation.inputs))
    found = []
    for i, layer in enumerate(layers):
        h_SM = hidden[Site("neurons", layer)]
        basis = torch.eye(h_SM.shape[1]).to(h_SM) if rotations is None else rotations[i].to(h_SM)
        along = h_SM @ basis
        away = along.mean(0) - along
        entering = output.cache[keep[i]]
        rows = []
        for units in torch.arange(basis.shape[1]).split(max(1, rows_at_once // S)):
            logits = _ablated(model, relation, layer, entering, away[:, units], basis[:, units])
            rows.append(relation.nats(logits) - clean)
            watch(Progress("neurons", int(units[-1]) + 1, basis.shape[1], "neuron"))
        found.append(torch.cat(rows))
    return clean, torch.stack(found)


def _ablated(
    model: Model, relation: Relation, layer: int, entering: Tensor, away: Tensor, directions: Tensor
) -> Float[Tensor, "direction subject option"]:
    """Logits of the options when each direction of the layer's hidden space is moved by `away`."""
    S, B = away.shape
    at = relation.at.to(away.device).repeat(B)
    change = (away.T[:, :, None] * directions.T[:, None]).flatten(0, 1)

    def write(value: Tensor) -> Tensor:
        value[torch.arange(len(value)), at] += change
        return value

    rows = rows_of(relation.inputs, torch.arange(S).repeat(B))
    start = Start(layer, entering.repeat(B, *[1] * (entering.ndim - 1)))
    logits = model.run(rows, edits=[apply(Site("neurons", layer), write)], start=start, logits="last").logits
    return logits[:, -1][:, relation.options].unflatten(0, (B, S))
