"""Does one MLP read another? Each path MLP i -> MLP j mean-ablated by itself.

MLP j reads the residual stream with the output of MLP i at the subject's last token replaced by its mean over the
subjects; every other reader sees what MLP i wrote. If facts were looked up in one step, paths between the MLPs of the
look-up would not matter. Accuracies tell what is looked up, loss and divergence what is boosted: the study saw the
latter move far more. Source: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), post 3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.edits import Edit, apply, put
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.methods.lookup.facts import Answered, Facts, Relation, at_subjects, outcome


class MlpPaths(NamedTuple):
    """Row i, column j: the path from MLP `layers[i]` to MLP `layers[j]`; NaN where j is not later than i. The values
    when nothing is ablated come last.
    """

    layers: tuple[int, ...]
    accuracy: Float[Tensor, "relation sender receiver"]
    loss: Float[Tensor, "relation sender receiver"]
    divergence: Float[Tensor, "relation sender receiver"]
    clean: Answered


def mlp_paths(model: Model, facts: Facts, *, layers: Sequence[int] | None = None) -> MlpPaths:
    """Every path between the MLPs of these layers (None: all). Two passes a relation and path, one cut short."""
    chosen = tuple(range(model.shape.n_layers) if layers is None else layers)
    means = {
        site.layer: out.mean(0) for site, out in at_subjects(model, facts, [Site("mlp_out", i) for i in chosen]).items()
    }
    clean = outcome(model, facts)
    empty = torch.full((3, len(facts.relations), len(chosen), len(chosen)), torch.nan, dtype=torch.float64)
    for i, sender in enumerate(chosen):
        for j, receiver in enumerate(chosen):
            if sender < receiver:
                found = outcome(model, facts, lambda each, i=sender, j=receiver: [_cut(model, each, means[i], i, j)])
                empty[:, :, i, j] = torch.stack([found.accuracy, found.loss, found.divergence(clean)])
    return MlpPaths(chosen, *empty, clean=clean)


def _cut(model: Model, relation: Relation, mean: Float[Tensor, "d_model"], sender: int, receiver: int) -> Edit:
    """The receiver's output as it is when it reads the sender's mean, written into an otherwise clean run."""
    entry, out = _read_at(model, receiver), Site("mlp_out", receiver)
    sent = Site("mlp_out", sender)
    written: dict[str, Tensor] = {}

    def note(value: Tensor) -> Tensor:
        written["out"] = value[torch.arange(len(value)), relation.at.to(value.device)]
        return value

    def replace(value: Tensor) -> Tensor:
        value[torch.arange(len(value)), relation.at.to(value.device)] += mean.to(value) - written["out"]
        return value

    cache = model.run(relation.inputs, keep=out, edits=[apply(sent, note), apply(entry, replace)], stop=out).cache
    return put(out, cache[out])


def _read_at(model: Model, layer: int) -> Site:
    """The residual stream as the MLP of this layer reads it."""
    middle = Site("resid_mid", layer)
    return middle if middle in model.sites else Site("resid_pre", layer)
