"""The training loop (AdamW), for one model or many at once.

A `State` is everything that a step reads and writes: weights and AdamW's two moments, each (member, parameter), and the
step. An `Objective` gives every member's loss and gradient; `train` takes the steps. The caller records and saves
between two steps, so a run stopped anywhere and resumed from a State takes exactly the same steps.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.errors import BadConfig, NonFiniteLoss

Flat = Float[Tensor, "member parameter"]


class Layout:
    """The layout of named weights in one flat row per member, in the order of `shapes`."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.sizes = [prod(shape) for shape in self.shapes.values()]

    def pack(self, members: Sequence[Mapping[str, Tensor]]) -> Flat:
        """Copy the weights of each member into a row."""
        return torch.stack([torch.cat([weights[name].reshape(-1) for name in self.shapes]) for weights in members])

    def views(self, flat: Flat) -> dict[str, Tensor]:
        """Name -> (member, *shape), as views of `flat`."""
        parts = flat.split(self.sizes, dim=1)
        return {name: part.unflatten(1, shape) for part, (name, shape) in zip(parts, self.shapes.items())}

    def member(self, flat: Flat, k: int) -> dict[str, Tensor]:
        """Name -> weight of member k, as views."""
        return {name: view[k] for name, view in self.views(flat).items()}

    def join(self, views: Mapping[str, Tensor]) -> Flat:
        """The inverse of `views`, as one new tensor."""
        return torch.cat([views[name].flatten(1) for name in self.shapes], 1)


class State(NamedTuple):
    """Everything that a step reads and writes."""

    step: int
    weights: Flat
    mean: Flat
    square: Flat

    def tensors(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "mean": self.mean, "square": self.square}


def fresh_state(weights: Flat) -> State:
    return State(0, weights.clone(), torch.zeros_like(weights), torch.zeros_like(weights))


class LossAndGradient(NamedTuple):
    loss: Float[Tensor, "member"]
    gradient: Flat


Objective = Callable[[Flat, int], LossAndGradient]
"""(weights, step) -> loss and gradient of every member. The batch may depend on the step only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), on all parameters.

    Each setting is one number, or one per member. `warmup`: the rate rises linearly from 0 at the first step. `end`:
    the step at which it has fallen linearly to 0; None: it stays.
    """

    lr: float | Sequence[float] = 1e-3
    weight_decay: float | Sequence[float] = 1.0
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    warmup: int = 10
    end: int | None = None

    def share_of_rate(self, step: int) -> float:
        """The rate of a step as a share of `lr`."""
        warm = min(step / self.warmup, 1.0) if self.warmup else 1.0
        return warm if self.end is None else min(warm, max(0.0, 1 - step / max(self.end, 1)))

    def update(self, state: State, gradient: Flat) -> State:
        """Take one step, in place. About seven passes over the parameters."""
        weights, mean, square = state.weights, state.mean, state.square
        warm = self.share_of_rate(state.step)
        lr, decay = (self._column(value, weights) for value in (self.lr, self.weight_decay))
        count = state.step + 1
        mean.lerp_(gradient, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        move = (square.sqrt() / (1 - self.beta2**count) ** 0.5).add_(self.eps).reciprocal_().mul_(mean)
        weights.mul_(1 - warm * lr * decay).sub_(move.mul_(warm * lr / (1 - self.beta1**count)))
        return state._replace(step=count)

    @staticmethod
    def _column(value: float | Sequence[float], like: Flat) -> Tensor:
        column = torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1)
        if len(column) not in (1, len(like)):
            raise BadConfig(f"{len(column)} hyper-parameters were given for {len(like)} members. Give one or as many.")
        return column.to(like)


@runtime_checkable
class UpdateRule(Protocol):
    """How weights move along a gradient: `AdamW`, or `muon.Muon`."""

    def update(self, state: State, gradient: Flat) -> State:
        """Take one step, in place."""
        ...


def train(state: State, objective: Objective, optimiser: UpdateRule, *, steps: int) -> Iterator[tuple[State, Tensor]]:
    """Take steps until `steps` are done, yielding after each the State and the loss (member,) before the step.

    The tensors of a State are updated in place: copy what you keep. Raises NonFiniteLoss, before the update, when a
    member's loss or gradient is NaN or infinite.
    """
    while state.step < steps:
        loss, gradient = objective(state.weights, state.step)
        if not bool(torch.isfinite(loss).all() & torch.isfinite(gradient.sum())):
            bad = (~torch.isfinite(loss)).nonzero()[:, 0].tolist()
            raise NonFiniteLoss(
                f"At step {state.step} the loss of member {bad or 'none'} or a gradient was NaN or infinite."
            )
        state = optimiser.update(state, gradient)
        yield state, loss
