"""Is the multi-token embedding all that is used? The residual stream at the subject replaced by a table.

The table holds, for each subject, the mean of the residual stream after a layer over several contexts. If the look-up
is local, writing it in place of the stream costs nothing; then only what its probe directions read is kept of it, the
rest at the mean over subjects. Controls: the table of another subject, a random subspace of the same rank, and the mean
alone. Source: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), posts 2 and 5.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.errors import BadShape
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.methods.lookup.facts import Answered, Facts, at_subjects, outcome, written


class Replaced(NamedTuple):
    """How the facts are answered when the stream at the subject is what the name says."""

    clean: Answered
    table: Answered
    shuffled: Answered
    projected: Answered
    random: Answered
    """The table's projection on a random subspace of the rank of the probe directions."""
    mean: Answered
    rank: int


def table_of(model: Model, contexts: Sequence[Facts], site: Site) -> Float[Tensor, "subject d_model"]:
    """The mean over contexts: the same subjects, in the same order, in other prompts. Raises BadShape. A pass each."""
    if len({each.n for each in contexts}) != 1 or any(not torch.equal(x.parts, contexts[0].parts) for x in contexts):
        raise BadShape("A table is a mean over contexts of the same subjects in one order. These differ in them.")
    return torch.stack([at_subjects(model, each, [site])[site] for each in contexts]).mean(0)


def replaced(
    model: Model,
    facts: Facts,
    site: Site,
    table: Float[Tensor, "subject d_model"],
    directions: Float[Tensor, "d_model direction"],
    generator: Generator,
) -> Replaced:
    """The facts answered from the table and its controls. Six passes a relation.

    `directions`: what `embedding.probe_directions` finds, fitted to other subjects where they are to be judged.
    """
    table = table.float()
    rank = _basis(directions).shape[1]
    drawn = torch.randn(len(directions), rank, generator=generator, dtype=torch.float64).to(directions.device)
    order = torch.randperm(facts.n, generator=generator)

    def answered(values: Tensor) -> Answered:
        return outcome(model, facts, lambda relation: [written(site, relation.at, values)])

    return Replaced(
        clean=outcome(model, facts),
        table=answered(table),
        shuffled=answered(table[order]),
        projected=answered(kept_of(table, directions)),
        random=answered(kept_of(table, drawn)),
        mean=answered(table.mean(0).expand_as(table)),
        rank=rank,
    )


def kept_of(table: Float[Tensor, "subject d"], directions: Float[Tensor, "d direction"]) -> Float[Tensor, "subject d"]:
    """The mean over subjects, and of the rest what lies in the span of the directions."""
    basis = _basis(directions)
    projector = (basis @ basis.T).to(table)
    mean = table.mean(0)
    return mean + (table - mean) @ projector


def _basis(directions: Float[Tensor, "d direction"]) -> Float[Tensor, "d rank"]:
    """Orthonormal, in float64, of what the directions span beyond the rounding of their own dtype."""
    u, s, _ = torch.linalg.svd(directions.double(), full_matrices=False)
    return u[:, s > s[:1] * max(directions.shape) * torch.finfo(directions.dtype).eps]
