"""PLANS: which function gives loss and gradient of a kind. A faster one of the same results may take a row's place."""

from collections.abc import Callable, Mapping

from torch import Tensor

from micrographia.methods.dictionaries.sparse.find import FINDERS
from micrographia.methods.dictionaries.sparse.plan import sparse_on_cpu
from micrographia.methods.dictionaries.training.activations import ACTIVATIONS, Latents
from micrographia.methods.dictionaries.training.dense import dense, encode
from micrographia.methods.dictionaries.training.gated import encode_gated, gated
from micrographia.methods.dictionaries.training.stack import Now, Outcome, ScaledBatch, Stack

Plan = Callable[[Stack, Mapping[str, Tensor], ScaledBatch, Now, Mapping[str, Tensor]], Outcome]
"""(stack, weights, batch, now, into) -> Outcome. Writes this rank's share of the gradient of every weight to `into`."""

PLANS: Mapping[str, Plan] = {
    **dict.fromkeys(ACTIVATIONS, dense),
    "gated": gated,
    **dict.fromkeys(FINDERS, sparse_on_cpu),
}


def latents_of(stack: Stack, weights: Mapping[str, Tensor], batch: ScaledBatch, now: Now) -> Latents:
    """The latents of a batch as training computes them: of batchtopk, by the batch."""
    return (encode_gated if stack.recipe.kind == "gated" else encode)(stack, weights, batch, now)
