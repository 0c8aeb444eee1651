"""The next-token objective: training on sequences.

An objective for `training.train`, of one model or several; each member has its own batches, a pure function of the
step. The loss is a float32 cross-entropy in nats, enough while it is far above 1e-6.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.errors import BadShape
from micrographia.core.gradients import with_gradients
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.fused import fused_forward
from micrographia.core.small.transformer import forward
from micrographia.core.training import Flat, Layout, LossAndGradient

IGNORED = -100  # torch's mark of a target that is not scored


class Text(NamedTuple):
    """Rows of tokens, and the mask of those that are predicted; None: all. The first of a row never is.

    `likely`: where it is known, the tokens that were as likely to come as each other, for every position but the last.
    The loss is then the expectation of the cross-entropy over them: the same gradient on average, with less noise.
    """

    tokens: Int[Tensor, "batch pos"]
    scored: Bool[Tensor, "batch pos"] | None = None
    likely: Bool[Tensor, "batch before vocab"] | None = None


Batches = Callable[[int], Text]
"""step -> the rows of that step."""


class NextToken:
    """Mean cross-entropy of the scored tokens, by autograd, one member after the other.

    `batches` has one entry per member. Plan "fused" is `fused.fused_forward`, "plain" is `transformer.forward`.
    Cost per member: three passes over the batch, and its logits stored twice.
    """

    def __init__(
        self, arch: Architecture, batches: Sequence[Batches], *, plan: Literal["fused", "plain"] = "fused"
    ) -> None:
        self.arch = arch
        self.layout = Layout(arch.weight_shapes())
        self.batches = batches
        self._forward = fused_forward if plan == "fused" else forward

    @with_gradients
    def __call__(self, weights: Flat, step: int = 0) -> LossAndGradient:
        if len(weights) != len(self.batches):
            raise BadShape(f"Batches of {len(self.batches)} members do not fit {len(weights)} members' weights.")
        each = [self._of_one(weights[k], batch(step)) for k, batch in enumerate(self.batches)]
        loss, gradient = zip(*each)
        return LossAndGradient(torch.stack(loss), torch.stack(gradient))

    def _of_one(self, weights: Float[Tensor, "parameter"], text: Text) -> tuple[Tensor, Tensor]:
        leaf = weights.detach().requires_grad_()
        tokens = text.tokens.to(leaf.device)
        logits = self._forward(self.arch, self.layout.member(leaf[None], 0), tokens[:, :-1])
        targets = tokens[:, 1:]
        if text.scored is not None:
            targets = targets.where(text.scored[:, 1:].to(leaf.device), IGNORED)
        if text.likely is None:
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        else:
            loss = expected_cross_entropy(logits, text.likely.to(leaf.device), targets != IGNORED)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient


def expected_cross_entropy(
    logits: Float[Tensor, "batch pos vocab"], likely: Bool[Tensor, "batch pos vocab"], scored: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Mean over scored positions of the cross-entropy of a token drawn evenly from the likely ones."""
    each = logits.log_softmax(-1).masked_fill(~likely, 0.0).sum(-1) / likely.sum(-1).clamp(min=1)
    return -(each * scored).sum() / scored.sum().clamp(min=1)
