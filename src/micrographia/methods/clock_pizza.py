"""Clock or pizza? Three measures that distinguish two algorithms for addition mod n.

The clock multiplies waves of a and b and depends on a + b only; the pizza adds the two embeddings first, so its
gradients are the same in both and its logits shrink for some differences a - b. Logits are `logits[a, b, c]` with the
right answer at c = a + b mod n, embeddings are rows in the same cyclic order (`core.basis.Characters`).
Source: Zhong, Liu, Tegmark and Andreas, "The Clock and the Pizza" (2023), section 4; defaults as in its notebook.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.basis import fourier_basis, frequency_rows, n_frequencies
from micrographia.core.errors import BadShape
from micrographia.core.gradients import with_gradients

Mechanism = Literal["clock", "pizza", "between"]

CLOCK, PIZZA = 0.4, 0.6
"""`pizza_score` of a clock at most, and of a pizza at least; the middle fifth is between."""

LogitFunction = Callable[[Float[Tensor, "batch d"], Float[Tensor, "batch d"]], Float[Tensor, "batch n"]]
"""Embeddings of the left and right operand (positions not yet added) to the logits after "="."""


@with_gradients
def gradient_symmetricity(
    logit_function: LogitFunction,
    W_E: Float[Tensor, "n d"],
    *,
    generator: torch.Generator | None = None,
    triples: Int[Tensor, "batch 3"] | None = None,
) -> float:
    """Mean cosine between the gradients of logit c in the embedding of a and in that of b, over triples (a, b, c).

    1 for a network that adds the embeddings first (pizza), lower for the clock: 0.99 and 0.33 in the paper's examples.
    Without `triples`, 100 distinct ones are drawn from all n^3 with `generator`. One forward and one backward pass. NaN
    if a gradient vanishes.
    Source: Zhong et al. (2023), definition 4.1.
    """
    n = W_E.shape[0]
    if triples is None:
        triples = random_triples(n, 100, generator=generator)
    a, b, c = triples.to(W_E.device).T
    left, right = (W_E[operand].detach().clone().requires_grad_() for operand in (a, b))
    chosen = logit_function(left, right).gather(1, c[:, None]).sum()
    of_left, of_right = torch.autograd.grad(chosen, (left, right))
    lengths = of_left.double().norm(dim=1) * of_right.double().norm(dim=1)
    return ((of_left.double() * of_right.double()).sum(dim=1) / lengths).mean().item()


def pizza_score(gradient_symmetricity: float, distance_irrelevance: float) -> float:
    """The mean of gradient symmetricity and 1 - distance irrelevance: 1 for an ideal pizza, 0 for an ideal clock.

    The paper's examples have 0.91 and 0.24. How they are put together is ours.
    """
    return (gradient_symmetricity + 1 - distance_irrelevance) / 2


def mechanism(gradient_symmetricity: float, distance_irrelevance: float) -> Mechanism | None:
    """Clock, pizza, or between, by `pizza_score`; None where one of the measures is NaN."""
    score = pizza_score(gradient_symmetricity, distance_irrelevance)
    if math.isnan(score):
        return None
    return "clock" if score <= CLOCK else "pizza" if score >= PIZZA else "between"


def random_triples(n: int, count: int, *, generator: torch.Generator | None = None) -> Int[Tensor, "batch 3"]:
    """Different triples (a, b, c) of residues mod n, at most n^3 of them."""
    chosen = torch.randperm(n**3, generator=generator)[:count]
    return torch.stack([chosen // n**2, chosen // n % n, chosen % n], dim=1)


def distance_irrelevance(logits: Float[Tensor, "n n n"]) -> float:
    """Independence of the correct logit from d = a - b: its deviation at fixed d, averaged over d, as a fraction.

    1 if the logit does not depend on d (clock), 0 if it depends on d only (pizza): 0.85 and 0.17 in the paper's
    examples. Standard deviations are those of a population, at fixed d over a: for odd n the same as over s = a + b,
    and for even n, where two pairs share s and d, defined all the same. NaN for a constant.
    Source: Zhong et al. (2023), definition 4.2.
    """
    n = logits.shape[0]
    a = torch.arange(n, device=logits.device)
    d = a[:, None]
    b = (a - d) % n
    correct = logits[a, b, (a + b) % n].double()  # [d, a]; for odd n, each s once in a row
    return (correct.std(dim=1, correction=0).mean() / correct.std(correction=0)).item()


def circularity(W_E: Float[Tensor, "n d"], *, n_components: int = 4) -> float:
    """Mean over the first principal components of the embedding of the energy share of their strongest frequency.

    1 when each of them is one wave of the residue. Float64; one singular value decomposition.
    Source: Zhong et al. (2023), section 4, over the first four components.
    """
    n = W_E.shape[0]
    if min(n - 1, W_E.shape[1]) < n_components:
        raise BadShape(
            f"{n_components} principal components of an embedding of shape {tuple(W_E.shape)} were asked for."
        )
    centred = W_E.double() - W_E.double().mean(dim=0)
    components = torch.linalg.svd(centred, full_matrices=False).U[:, :n_components]  # columns of norm 1
    energy = (fourier_basis(n).to(W_E.device) @ components).square()
    by_frequency = [energy[frequency_rows(k, n)].sum(dim=0) for k in range(1, n_frequencies(n) + 1)]
    return torch.stack(by_frequency).amax(dim=0).mean().item()
