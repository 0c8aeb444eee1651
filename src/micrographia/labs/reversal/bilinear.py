"""The bilinear model: a logit is x^T Theta_r y, with fixed random embeddings (Zhu et al. 2024, section 3).

Theirs has one matrix; here each relation and each inverse has its own, and in the symmetric form the inverse has the
transpose, so that both directions are one by construction: the positive control. Trained on all rows at once.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.gradients import with_gradients
from micrographia.core.runtime import batch_generator
from micrographia.core.training import Flat, LossAndGradient
from micrographia.labs.reversal.arms import Learner
from micrographia.labs.reversal.behaviour import Asker
from micrographia.labs.reversal.config import Config

EMBEDDINGS = 4
"""The sample of a seed that the fixed embeddings are."""


class BilinearObjective:
    """Mean cross-entropy of every network over all its facts. Weights: (member, relation * d * d)."""

    def __init__(self, config: Config, learners: Sequence[Learner], *, symmetric: bool) -> None:
        self.d, self.symmetric = config.network.d_model, symmetric
        self.matrices = config.relations * (1 if symmetric else 2)
        self.learners = learners
        self.embeddings = [
            torch.randn(config.entities, self.d, generator=batch_generator(each.seed, EMBEDDINGS)) / self.d**0.5
            for each in learners
        ]

    def thetas(self, weights: Float[Tensor, "parameter"]) -> Float[Tensor, "relation d d"]:
        """A matrix a relation, inverses at odd places."""
        own = weights.view(self.matrices, self.d, self.d)
        return torch.stack([own, own.mT], 1).flatten(0, 1) if self.symmetric else own

    @with_gradients
    def __call__(self, weights: Flat, step: int = 0) -> LossAndGradient:
        leaf = weights.detach().requires_grad_()
        loss = torch.stack([self._loss(leaf[k], k) for k in range(len(leaf))])
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return LossAndGradient(loss.detach(), gradient)

    def _loss(self, weights: Tensor, k: int) -> Tensor:
        facts, E = self.learners[k].world.lessons, self.embeddings[k]
        thetas, total = self.thetas(weights), torch.zeros(())
        for relation in range(len(thetas)):
            group = facts.relation == relation
            logits = E[facts.source[group]] @ thetas[relation] @ E.T
            total = total + torch.nn.functional.cross_entropy(logits, facts.target[group], reduction="sum")
        return total / len(facts.source)


def fresh_bilinear(objective: BilinearObjective) -> Flat:
    """Zeros: the problem is convex."""
    return torch.zeros(len(objective.learners), objective.matrices * objective.d**2)


def bilinear_asker(objective: BilinearObjective, weights: Flat, k: int) -> Asker:
    """Of prompts `e r`, as of any network."""
    E, spelt = objective.embeddings[k], objective.learners[k].spelt

    @torch.no_grad()
    def asker(tokens: Tensor, at: int) -> Tensor:
        thetas = objective.thetas(weights[k])[tokens[:, 1] - spelt.name_tokens]
        logits = torch.einsum("bd,bde->be", E[tokens[:, 0]], thetas) @ E.T
        rest = torch.full((len(logits), spelt.d_vocab - logits.shape[1]), -torch.inf)
        return torch.cat([logits, rest], 1)

    return asker
