"""Train models that answer several questions of each row at once: the plain objective with a block of outputs for each.

A model without attention reads its last token nowhere, so that a row's question cannot be told in it: its logits then
hold one block of answers for every question, side by side, and each block has a cross-entropy of its own. The leading
member axis is that of `ensemble`. Axes: member or 1 (data), row (batch), question (item).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import grad_and_value, vmap

from micrographia.core.errors import BadShape
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import forward
from micrographia.core.training import Flat, Layout, LossAndGradient

NOT_ASKED = -1
Rows = Callable[[int], Int[Tensor, "data chosen"]]


class SeveralAnswers:
    """Mean cross-entropy over the questions of every row that are asked, and its gradient, for every member.

    `labels` (member or 1, batch, item) count within the item's block of outputs, of `sizes[item]`; -1 is not asked.
    `rows`: the rows of the batch at a step; None: all. In nats, float64. Cost per member: three forwards of the batch.
    Raises BadShape for labels, or for blocks that do not make up the outputs.
    """

    def __init__(
        self,
        arch: Architecture,
        tokens: Int[Tensor, "data batch pos"],
        labels: Int[Tensor, "data batch item"],
        sizes: Sequence[int],
        *,
        rows: Rows | None = None,
    ) -> None:
        wanted = (*tokens.shape[:2], len(sizes))
        if tuple(labels.shape) != wanted or sum(sizes) != arch.d_vocab_out:
            raise BadShape(
                f"{len(sizes)} questions with {sum(sizes)} answers in all were asked of {arch.d_vocab_out} outputs, "
                f"with labels {tuple(labels.shape)}. Give labels {wanted}, and blocks that make up the outputs."
            )
        if bool((labels >= torch.tensor(sizes, device=labels.device)).any()):
            raise BadShape(f"Labels count within their question's block. Found more than {list(sizes)} allow.")
        self.arch, self.sizes, self.rows = arch, list(sizes), rows
        self.layout = Layout(arch.weight_shapes())
        self.tokens, self.labels = tokens, labels

    def __call__(self, weights: Flat, step: int = 0) -> LossAndGradient:
        tokens, labels = self._batch(step, len(weights))
        shared = len(tokens) == 1
        data = (None if shared else 0,) * 2
        step_all = vmap(grad_and_value(self._loss), in_dims=(0, *data))
        gradient, loss = step_all(self.layout.views(weights), *((x[0] if shared else x) for x in (tokens, labels)))
        return LossAndGradient(loss, self.layout.join(gradient))

    def _batch(self, step: int, members: int) -> tuple[Tensor, Tensor]:
        if len(self.tokens) not in (1, members):
            raise BadShape(
                f"Found data of {len(self.tokens)} members and weights of {members}. Give data for one or all."
            )
        if self.rows is None:
            return self.tokens, self.labels
        at = self.rows(step)
        of = torch.arange(len(self.tokens), device=self.tokens.device)[:, None]
        return self.tokens[of, at], self.labels[of, at]

    def _loss(self, weights: dict[str, Tensor], tokens: Tensor, labels: Tensor) -> Tensor:
        nats = self._nats(forward(self.arch, weights, tokens, last=True)[:, -1], labels)
        return nats.sum() / (labels >= 0).sum().clamp(min=1)

    def _nats(self, logits: Tensor, labels: Tensor) -> Float[Tensor, "batch item"]:
        """Loss of each question; 0 where it is not asked."""
        blocks = zip(logits.double().split(self.sizes, -1), labels.unbind(-1), strict=True)
        own = [block.log_softmax(-1).gather(-1, at.clamp(min=0)[:, None])[:, 0] for block, at in blocks]
        return -torch.stack(own, -1) * (labels >= 0)

    @torch.no_grad()
    def evaluate(self, weights: Flat) -> tuple[Float[Tensor, "member item"], Float[Tensor, "member item"]]:
        """Loss and accuracy of every member and question, on all rows; one forward each. NaN for what none asks."""
        found = [self._judged(weights, k) for k in range(len(weights))]
        return torch.stack([loss for loss, _ in found]), torch.stack([right for _, right in found])

    def _judged(self, weights: Flat, k: int) -> tuple[Tensor, Tensor]:
        tokens, labels = (x[k % len(x)] for x in (self.tokens, self.labels))
        logits = forward(self.arch, self.layout.member(weights, k), tokens, last=True)[:, -1]
        said = torch.stack([block.argmax(-1) for block in logits.split(self.sizes, -1)], -1)
        asked = (labels >= 0).sum(0)
        return self._nats(logits, labels).sum(0) / asked, ((said == labels) & (labels >= 0)).sum(0) / asked
