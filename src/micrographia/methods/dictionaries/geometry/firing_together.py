"""What latents do on text: how often they fire, how many of some at once, what they are worth, where they fire most.

Of the rows of tokens the first positions and special tokens do not count. Axes: row pos token latent.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Watch, silent
from micrographia.core.model import Model
from micrographia.core.tokens import to_str_tokens
from micrographia.methods.dictionaries.evaluation.reading import (
    Counted,
    ReadWrite,
    activity_of_rows,
    on_device,
    rows_between,
)
from micrographia.methods.dictionaries.evaluation.spliced import Replacement, splice_losses

AT_ONCE = 4096
"""Tokens whose latents are in memory at once."""


class Fired(NamedTuple):
    """How often each latent fired on so many tokens."""

    counts: Int[Tensor, "latent"]
    n_tokens: int

    @property
    def frequencies(self) -> Float[Tensor, "latent"]:
        """Firings a token; the finest that can be told from none is 1 / n_tokens."""
        return self.counts.double() / self.n_tokens


def count_firings(
    dictionaries: Sequence[Dictionary],
    model: Model,
    place: ReadWrite,
    rows: Any,
    counted: Counted,
    *,
    watch: Watch = silent,
) -> list[Fired]:
    """Of each of several dictionaries of one place. One pass of the model for all, and an encoding each."""
    counts = [torch.zeros(each.n_latents, dtype=torch.int64) for each in dictionaries]
    n_tokens = 0
    for x in _activations(model, place, rows, counted, watch):
        n_tokens += len(x)
        for dictionary, own in zip(dictionaries, counts):
            own += (dictionary.encode(x) != 0).sum(0).cpu()
    return [Fired(own, n_tokens) for own in counts]


def fired_together(
    dictionaries: Sequence[Dictionary],
    chosen: Sequence[Bool[Tensor, "_"]],
    model: Model,
    place: ReadWrite,
    rows: Any,
    counted: Counted,
    *,
    watch: Watch = silent,
) -> list[Float[Tensor, "token"]]:
    """What share of each dictionary's chosen latents fires at each token that counts; NaN where none is chosen.

    Costs what `count_firings` does.
    """
    found: list[list[Tensor]] = [[] for _ in dictionaries]
    for x in _activations(model, place, rows, counted, watch):
        for dictionary, some, own in zip(dictionaries, chosen, found):
            own.append((dictionary.encode(x)[:, some] != 0).float().mean(1).cpu())
    return [torch.cat(own) for own in found]


def _activations(model: Model, place: ReadWrite, rows: Any, counted: Counted, watch: Watch) -> Iterator[Tensor]:
    """What is read at the tokens that count, in pieces."""
    for each in activity_of_rows(model, place, rows, counted, watch=watch):
        yield from each.x.split(AT_ONCE)


class Worth(NamedTuple):
    """Loss recovered when only latents of at least some frequency are left."""

    zero: dict[float, float]
    """Frequency -> share of what zero ablation costs."""
    mean: dict[float, float]
    """The same of mean ablation."""
    clean_loss: float


def worth_by_frequency(
    dictionary: Dictionary,
    frequency: Float[Tensor, "latent"],
    cuts: Sequence[float],
    model: Model,
    place: ReadWrite,
    rows: Any,
    mean: Float[Tensor, "d_out"],
    counted: Counted,
    *,
    watch: Watch = silent,
) -> Worth:
    """The model's loss with the dictionary spliced in, less its latents below each frequency; `mean` is ablated to.

    Cost: a run of the rows, and one of the layers from the Site on for each cut and two ablations.
    """

    def keeping(cut: float) -> Replacement:
        kept = (frequency >= cut).to(dictionary.weights.W_dec)
        return lambda x, y: dictionary.decode(dictionary.encode(x) * kept, x).to(y)

    replacements = {str(cut): keeping(cut) for cut in cuts}
    found = splice_losses(model, place, rows, replacements, mean, counted, watch=watch)
    each = {cut: found.of(str(cut)) for cut in cuts}
    zero, ablated = ({cut: getattr(one, f"recovered_{name}") for cut, one in each.items()} for name in ("zero", "mean"))
    return Worth(zero, ablated, found.clean_loss)


class Context(NamedTuple):
    """Where a latent fires most: the tokens around, and its value at each."""

    tokens: list[str]
    values: list[float]

    @property
    def peak(self) -> str:
        """The token on which it fires most."""
        return self.tokens[max(range(len(self.values)), key=self.values.__getitem__)]


def top_contexts(
    dictionary: Dictionary,
    latents: Sequence[int],
    model: Model,
    place: ReadWrite,
    rows: Any,
    counted: Counted,
    *,
    n: int = 3,
    around: int = 8,
    at_once: int = 32,
) -> dict[int, list[Context]]:
    """For each of a few latents the n rows in which it fires most, `around` tokens to each side of its largest value.

    A row gives one context; of a latent that fires in none there is none. One pass; memory: rows x pos x latents.
    """
    chosen, parts = torch.tensor(latents), []
    for start in range(0, len(rows), at_once):
        some = rows_between(rows, start, start + at_once)
        read = model.run(on_device(model, some), keep=place.read, stop=place.read).cache[place.read]
        parts.append(dictionary.encode(read)[..., chosen].cpu() * counted.mask(some)[..., None].cpu())
    values = torch.cat(parts)
    return {latent: _contexts(values[..., i], model, rows, n, around) for i, latent in enumerate(latents)}


def _contexts(values: Float[Tensor, "row pos"], model: Model, rows: Any, n: int, around: int) -> list[Context]:
    top, at = values.max(1)
    best = [row for row in top.topk(min(n, len(top))).indices.tolist() if top[row] > 0]
    width = values.shape[1]
    found = []
    for row in best:  # windows of one length, moved inward at the ends of a row
        start = min(max(0, int(at[row]) - around), max(0, width - 2 * around - 1))
        here = slice(start, start + 2 * around + 1)
        found.append(Context(to_str_tokens(model.tokenizer, rows[row][here]), values[row, here].tolist()))
    return found
