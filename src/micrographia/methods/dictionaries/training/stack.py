"""Stack: recipes of equal shape, which train in one program, and the tensors of that program.

Training keeps encoder and decoder by latent, so that what belongs to one latent is one row: encoder (latent, d_in),
decoder (latent, d_out). Every tensor has a leading member axis; all weights of a member are one row of a flat tensor.
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.distributed import ALONE, Ranks
from micrographia.core.training import Flat, Layout
from micrographia.methods.dictionaries.training.recipe import Recipe

OF_MEMBERS = frozenset({"k", "l0", "sparsity", "lr", "seed"})
"""The fields in which recipes of one stack may differ."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Recipes that differ in `OF_MEMBERS` only, and the sizes of what they read and write."""

    recipes: tuple[Recipe, ...]
    places: tuple[int, ...]
    """Where they stood among all recipes: the rows of a batch with a member axis that they read."""
    d_in: int
    d_out: int
    transcodes: bool = False
    """Whether the target is something else than the input."""

    @property
    def recipe(self) -> Recipe:
        """What they share."""
        return self.recipes[0]

    @property
    def subtracts(self) -> bool:
        """Whether b_dec is subtracted from the input."""
        chosen = self.recipe.subtract_b_dec
        return not (self.transcodes or self.recipe.skip) if chosen is None else chosen

    @property
    def layout(self) -> Layout:
        return Layout(self.shapes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every weight of a member."""
        n, kind = self.recipe.n_latents, self.recipe.kind
        biases = {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}.get(kind, ("b_enc",))
        skip = {"skip": (self.d_in, self.d_out)} if self.recipe.skip else {}
        return {
            "encoder": (n, self.d_in),
            "decoder": (n, self.d_out),
            **dict.fromkeys(biases, (n,)),
            "b_dec": (self.d_out,),
            **skip,
        }

    def per_member(self, name: str, like: Tensor) -> Tensor:
        """A property or field of every member's recipe, (member,), in the dtype and on the device of `like`."""
        return torch.tensor([float(getattr(each, name)) for each in self.recipes], dtype=torch.float64).to(like)


def stacks(
    recipes: Sequence[Recipe], d_in: int, d_out: int, transcodes: bool, autoencoders: Collection[int] = ()
) -> list[Stack]:
    """The recipes grouped by what they share, in the order of their first; those at `autoencoders` do not transcode."""
    groups: dict[tuple[Recipe, bool], list[int]] = {}
    for place, recipe in enumerate(recipes):
        shared = {name: field.default for name, field in _fields().items()}
        shared["k"] = recipe.k if recipe.k is None or recipe.kind == "groupmax" else 1
        shared["l0"] = None if recipe.l0 is None else 0.5
        shared["sparsity"] = None if recipe.sparsity is None else 1.0
        alike = dataclasses.replace(recipe, **shared), transcodes and place not in autoencoders
        groups.setdefault(alike, []).append(place)
    return [
        Stack(tuple(recipes[place] for place in places), tuple(places), d_in, d_out, own)
        for (_, own), places in groups.items()
    ]


def _fields() -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(Recipe) if field.name in OF_MEMBERS}


class StackState(NamedTuple):
    """Everything that a step of a stack reads and writes, each with a leading member axis."""

    step: int
    weights: Flat
    mean: Flat
    """Adam's first moment."""
    square: Flat
    """Adam's second moment."""
    scale_in: Tensor
    """(member, layers): what inputs are multiplied by."""
    scale_out: Tensor
    """(member, layers): what targets are multiplied by."""
    silent: Tensor
    """(member, latent): rows since the latent last fired."""
    fired: Tensor
    """(member, latent): firings since they were last counted afresh."""
    counted: Tensor
    """(member,): rows in which they were counted."""
    cutoff: Tensor
    """(member, 2): BatchTopK's decayed sum of the smallest kept pre-activation, and of the weights in it."""
    coefficient: Tensor
    """(member,): what the penalty's coefficient has become, where it is changed on the way."""
    multiplier: Tensor
    """(member,): of the penalty l0-target."""
    powers: Tensor
    """(member, 10, 2): p-annealing's last ten values of the penalty over its coefficient, at the present p and next."""

    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self._asdict().items() if name != "step"}


class ScaledBatch(NamedTuple):
    """This rank's rows of a batch, in the units of training."""

    x: Tensor
    """(member or 1, row, d_in)."""
    target: Tensor
    """(member or 1, row, d_out)."""
    rows: int
    """Rows over all ranks: what means over the batch divide by."""


class Now(NamedTuple):
    """What the loss of one step depends on beside weights and batch."""

    step: int
    sparsity: Tensor
    """(member,): the penalty's coefficient at this step."""
    target_l0: Tensor
    """(member,): the number of active latents asked for at this step."""
    multiplier: Tensor
    """(member,): of the penalty l0-target."""
    power: float
    """p of the penalty lp."""
    next_power: float
    """p after its next change."""
    dead: Tensor | None
    """(member, latent): which latents an auxiliary loss revives; None: there is no such loss."""
    group: Ranks = ALONE

    def of(self, member: int) -> "Now":
        """The same for one member alone, which keeps its axis."""
        one = slice(member, member + 1)
        own = {"sparsity": self.sparsity[one], "target_l0": self.target_l0[one], "multiplier": self.multiplier[one]}
        return self._replace(dead=None if self.dead is None else self.dead[one], **own)


class Outcome(NamedTuple):
    """What a plan gives: its gradients stand in the tensors that it was handed."""

    terms: dict[str, Tensor]
    """Name -> (member,): the terms of the loss; their sum is the loss."""
    fired: Tensor
    """(member, latent): in how many rows of this rank's batch each latent fired."""
    cutoff: Tensor | None = None
    """(member,): BatchTopK's smallest kept pre-activation."""
    powers: Tensor | None = None
    """(member, 2): this rank's share of the mean of sum f^p over the batch, at the present p and the next."""
