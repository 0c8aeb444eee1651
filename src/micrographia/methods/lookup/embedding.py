"""The multi-token embedding: is a subject's attribute readable at its last token, before it is asked for?

A linear probe at every Site, on subjects that it was not fitted to, beside four floors: the additive one (a probe of
which first and which last name, which is all that a sum of token embeddings can tell), the commonest answer, a probe of
the network before training, and a probe of answers dealt among the subjects (Hewitt and Liang 2019). For facts that
were drawn at random no probe can pass on to unseen subjects: what it reads there, it reads because the network had
looked it up. Source: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), posts 2 and 3 (80/20, ten times).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.methods.lookup.facts import Facts, Relation, at_subjects
from micrographia.methods.lookup.ridge import fit_ridge, ridge_accuracy, split_rows


class EmbeddingProbes(NamedTuple):
    """Accuracies on held-out subjects. `untrained` is None where no such network was given."""

    sites: tuple[Site, ...]
    accuracy: Float[Tensor, "site relation split"]
    shuffled: Float[Tensor, "site relation split"]
    untrained: Float[Tensor, "site relation split"] | None
    additive: Float[Tensor, "relation split"]
    majority: Float[Tensor, "relation split"]

    @property
    def selectivity(self) -> Float[Tensor, "site relation"]:
        """Accuracy above that of the same probe of answers that mean nothing."""
        return (self.accuracy - self.shuffled).mean(-1)


def embedding_probes(
    model: Model,
    facts: Facts,
    generator: Generator,
    *,
    sites: Sequence[Site] | str = "L*.resid_post",
    untrained: Model | None = None,
    splits: int = 10,
    test_share: float = 0.2,
) -> EmbeddingProbes:
    """Probes of all relations at all Sites. One pass of each model; an eigendecomposition a Site and split, twice.

    Raises UserError for too few subjects to split.
    """
    judged = split_rows(facts.n, generator, splits=splits, test_share=test_share)
    labels, sizes = _labels(facts), [len(each.options) for each in facts.relations]
    dealt = torch.stack([column[torch.randperm(facts.n, generator=generator)] for column in labels.unbind(1)], 1)
    values = at_subjects(model, facts, sites)
    null = None if untrained is None else at_subjects(untrained, facts, sites)
    return EmbeddingProbes(
        tuple(values),
        _each(values, labels, sizes, judged),
        _each(values, dealt, sizes, judged),
        None if null is None else _each(null, labels, sizes, judged),
        ridge_accuracy(part_indicators(facts), labels, sizes, judged),
        _majority(labels, judged),
    )


def part_indicators(facts: Facts) -> Float[Tensor, "subject indicator"]:
    """Which first name and which last name, one-hot side by side."""
    return torch.cat([F.one_hot(column).double() for column in facts.parts.cpu().unbind(1)], 1)


def _labels(facts: Facts) -> Int[Tensor, "subject relation"]:
    return torch.stack([each.answer.cpu() for each in facts.relations], 1)


def _each(values: dict[Site, Tensor], labels: Tensor, sizes: list[int], judged: Tensor) -> Tensor:
    return torch.stack([ridge_accuracy(x.cpu(), labels, sizes, judged) for x in values.values()])


def _majority(
    labels: Int[Tensor, "row relation"], judged: Bool[Tensor, "split row"]
) -> Float[Tensor, "relation split"]:
    said = torch.stack([labels[~test].mode(0).values for test in judged], 1)
    right = [(labels[test] == guess).double().mean(0) for test, guess in zip(judged, said.unbind(1))]
    return torch.stack(right, 1)


def probe_directions(
    model: Model, facts: Facts, site: Site, rows: Int[Tensor, "row"] | None = None
) -> Float[Tensor, "d direction"]:
    """The directions that probes of all relations read at a Site, fitted to these subjects (None: all).

    A relation of V options has V - 1, since scores of one subject sum to a constant.
    """
    chosen = torch.arange(facts.n) if rows is None else rows
    x = at_subjects(model, facts, [site])[site].cpu()
    fitted = fit_ridge(x[chosen], _labels(facts)[chosen], [len(each.options) for each in facts.relations])
    return torch.cat([_independent(each.weight) for each in fitted], 1)


def _independent(weight: Float[Tensor, "d option"]) -> Float[Tensor, "d direction"]:
    return (weight - weight.mean(1, keepdim=True))[:, :-1]


def weight_probe(
    model: Model, relation: Relation, *, layer: int | None = None, head: int | None = None
) -> Float[Tensor, "d_model option"]:
    """A probe without any fit: what the unembedding of the options reads, through a head's W_V W_O where one is named.

    Norms' gains are applied, their divisors are not (they change no argmax). Source: Nanda et al. (2023), post 2.
    """
    weights = model.weights
    readout = weights.final_readout(relation.among(weights.W_U))
    if layer is None or head is None:
        return readout
    of_head = head * len(weights.W_V[layer]) // model.shape.n_heads  # where heads share a value
    read = weights.W_V[layer, of_head] @ weights.W_O[layer, head] @ readout
    gain = weights.attn_norm_w[layer]
    return read if gain is None else gain[:, None] * read


def weight_probe_accuracy(x: Float[Tensor, "subject d"], probe: Float[Tensor, "d option"], relation: Relation) -> float:
    """How often the mean-centred activations have the largest score at the right answer."""
    said = ((x - x.mean(0)) @ probe.to(x)).argmax(-1)
    return float((said == relation.answer.to(x.device)).double().mean())
