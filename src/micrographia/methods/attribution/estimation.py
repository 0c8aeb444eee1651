"""One attribution: the two runs, the Sites to score, and the hooks that compute a Site's score during the passes.

A `ScoreHook` is a pair of lists of observing edits. In the donor run it stores the Site's activation; in the base run
it replaces it by the difference donor - base; in the backward pass it multiplies this by the gradient and reduces the
product to a score. One tensor per Site is stored (two of one Site during the subtraction), never two caches. The passes
themselves are in `passes`. Source: Nanda, "Attribution patching: activation patching at industrial scale" (2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.edits import Edit, observe
from micrographia.core.effects import axes_of_scores
from micrographia.core.errors import UserError
from micrographia.core.metrics import Metric, prompts
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.sweep import Place
from micrographia.core.titles import Mode
from micrographia.core.tokens import Inputs, ids_of, mask_of

Positions = Literal["each", "sum"]
OnScore = Callable[[Site, Tensor], None]
"""Called with the score of a Site, (prompt, ...), during the backward pass."""

FEATURES = frozenset({"d_model", "d_head", "one"})  # a place includes all of these axes: its score sums over them
PLACES = frozenset({"pos", "query", "key"})


class Passes(NamedTuple):
    """The cost of a method, in passes over the model and its inputs."""

    forward: int
    backward: int

    def __str__(self) -> str:
        return f"{self.forward} forward, {self.backward} backward"


class RunMetrics(NamedTuple):
    """The metric in the two runs (the baselines)."""

    donor: Float[Tensor, "prompt"]
    base: Float[Tensor, "prompt"]


class Scored(NamedTuple):
    """The result of a method. Scores of residual kinds are (prompt, pos); of q, k, v, z, result (prompt, pos, head); of
    neurons and latents (prompt, pos, unit); of scores and pattern (prompt, head, query, key).
    """

    scores: dict[Site, Tensor]
    metrics: RunMetrics
    n_passes: Passes
    notes: tuple[str, ...] = ()
    gives: Literal["effect", "size"] = "effect"


@dataclass(frozen=True, slots=True)
class Estimation:
    """What every method is given. A score estimates the change of the metric in the base run if the donor run's value
    were patched in at that place alone.
    """

    model: Model
    pairs: Pairs
    metric: Metric
    sites: tuple[Site, ...]
    mode: Mode = "denoise"
    positions: Positions = "each"
    """`sum`: scores are summed over positions, whose axes are dropped."""
    edits: Sequence[Edit] = ()
    """Edits of both runs (a `splice`, to score a dictionary's latents)."""

    @property
    def donor(self) -> Inputs:
        return self.pairs.donor(self.mode)

    @property
    def base(self) -> Inputs:
        return self.pairs.base(self.mode)

    def measure(self, inputs: Inputs, edits: Sequence[Edit], **how: Any) -> Float[Tensor, "prompt"]:
        """The metric in one forward pass, of which only the metric's logits are computed."""
        rows = prompts(len(self.pairs), ids_of(self.base).device)
        logits = self.model.run(inputs, edits=edits, logits=self.metric.readout(rows), **how).logits
        return self.metric(logits, rows.to(logits.device))

    def score(self, site: Site, product: Float[Tensor, "prompt ..."]) -> Float[Tensor, "prompt ..."]:
        """Sum a product with this Site's axes over the axes within one place. Sums are float32 at least."""
        summed = FEATURES | PLACES if self.positions == "sum" else FEATURES
        over = [i for i, axis in enumerate(site.axes) if axis in summed]
        wide = torch.promote_types(product.dtype, torch.float32)
        return product.sum(over, dtype=wide) if over else product

    def placed(self, effect: Float[Tensor, "prompt pos head"]) -> Float[Tensor, "prompt ..."]:
        """A score computed elsewhere, with padding and positions treated as in every other."""
        mask = mask_of(self.pairs.clean)
        here = effect if mask is None else effect.masked_fill(~mask[:, :, None].to(effect.device), 0)
        return here.sum(1) if self.positions == "sum" else here

    def difference(self, site: Site, donor: Tensor, base: Tensor) -> Tensor:
        """donor - base; 0 at padding, and for a masked pair, whose score is minus infinity in both."""
        delta, mask = donor - base, mask_of(self.pairs.clean)
        if site.kind == "scores":
            delta = delta.masked_fill_(donor == base, 0)
        for i, axis in enumerate(site.axes):
            if mask is not None and axis in PLACES:
                shape = [len(mask), *(mask.shape[1] if j == i else 1 for j in range(1, len(site.axes)))]
                delta.masked_fill_(~mask.reshape(shape).to(delta.device), 0)
        return delta


class ScoreHook(NamedTuple):
    """The observing edits of one or more Sites in the two runs; they change nothing.

    `finish` is called after the last backward pass: it gives zeros where there was no gradient, because the metric does
    not depend on the Site.
    """

    sites: tuple[Site, ...]
    in_donor: list[Edit]
    in_base: list[Edit]
    finish: Callable[[], None]


def product_reader(site: Site, estimation: Estimation, on_score: OnScore, *, again: bool = False) -> ScoreHook:
    """A reader for the score (donor - base) * gradient of one Site.

    `again`: there are several backward passes, so the difference is kept after the first. `result` is read at z, of
    which it is a linear function head by head: (z W_O) . g = z . (W_O g), so that no tensor of d_model per head is
    made.
    """
    tapped = tapped_at(site)
    held: list[Tensor] = []  # the donor's value, then the difference, then nothing

    def on_base(value: Tensor) -> None:
        held.append(estimation.difference(tapped, held.pop(), value.detach()))
        hook(site, value, score)

    def score(gradient: Tensor) -> None:
        product = held[0] * gradient if again else held.pop().mul_(gradient)
        on_score(site, estimation.score(tapped, product))

    def finish() -> None:
        if held:
            on_score(site, estimation.score(tapped, held.pop().zero_()))

    look = [observe(tapped, lambda value: held.append(detached_copy(value)))]
    return ScoreHook((site,), look, [observe(tapped, on_base)], finish)


def product_readers(estimation: Estimation, on_score: OnScore) -> list[ScoreHook]:
    """A reader for each Site."""
    return [product_reader(site, estimation, on_score) for site in estimation.sites]


def tapped_at(site: Site) -> Site:
    """The Site that is read for a Site: z for a head's `result`."""
    return Site("z", site.layer) if site.kind == "result" and not site.part else site


def detached_copy(value: Tensor) -> Tensor:
    """The value for storage: a view of a larger tensor (part of a fused projection) is copied."""
    value = value.detach()
    return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value


def hook(site: Site, value: Tensor, callback: Callable[[Tensor], None]) -> None:
    """Call `callback` with the gradient of the metric at this activation. Raises UserError where there is none."""
    if not value.requires_grad:
        raise UserError(
            f"A score of {site} was asked for, but with these rules no gradient reaches it (a pattern or a "
            "norm's scale that is frozen). Leave it out, or use another method."
        )
    value.register_hook(callback)


def place(site: Site, score: Tensor, cell: Sequence[int]) -> Place:
    """The Place to patch for the change that this cell of the score estimates."""
    return Place(site, dict(zip(cell_axes(site, score), cell)))


def cell_axes(site: Site, score: Tensor) -> tuple[str, ...]:
    """The axes of a score behind the prompt's; without those of positions where it is summed over them."""
    axes = axes_of_scores(site)
    return axes if len(axes) == score.ndim - 1 else axes_of_scores(site, summed=True)
