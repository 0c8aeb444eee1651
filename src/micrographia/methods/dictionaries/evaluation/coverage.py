"""Coverage and reconstruction of known binary properties, such as the squares of a board, by single latents.

Coverage: for each property the best F1 of any latent as its detector, over thresholds at shares of the latent's largest
activation; the mean over properties. Reconstruction: latents that detect a property with at least 95 % precision on
training data, joined by "or", predict it on held-out data; the mean F1. Both are a maximum over many latents and
thresholds, so permuted labels and random directions score above 0 too: these are the nulls.
Source: Karvonen et al., "Measuring progress in dictionary learning for language model interpretability with board game
models" (2408.00113), sections 3.1 and 3.2. Axes: token latent property threshold.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core import figures
from micrographia.core.errors import BadShape, UserError
from micrographia.core.figures import Figure

THRESHOLDS = tuple(i / 10 for i in range(10))
"""Shares of a latent's largest activation (2408.00113, section 3.1)."""
PRECISION = 0.95
FEWEST = 10
"""Tokens at which a high-precision detector must fire on training data: of fewer, 95 % is no finding. Our choice."""
Encode = Callable[[Tensor], Tensor]
"""Activations (token, *d_in) -> latents (token, latent)."""
Labelled = Iterable[tuple[Tensor, Tensor]]
"""Chunks of activations (token, *d_in) and labels (token, property); read more than once, so no iterator."""


class Counts(NamedTuple):
    """How often each latent is above each threshold, by itself and with each property."""

    both: Float[Tensor, "threshold latent property"]
    above: Float[Tensor, "threshold latent"]
    true: Float[Tensor, "property"]
    levels: Float[Tensor, "threshold latent"]
    """The thresholds as activations."""

    def f1(self) -> Float[Tensor, "threshold latent property"]:
        return 2 * self.both / (self.above[..., None] + self.true).clamp(min=1)

    def precision(self) -> Float[Tensor, "threshold latent property"]:
        return self.both / self.above[..., None].clamp(min=1)


class Detector(NamedTuple):
    """A latent as a detector of a property: it fires above `level`."""

    property: int
    latent: int
    level: float
    f1: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of each property, the best detector on training data, and what high-precision detectors together reconstruct."""

    names: tuple[str, ...]
    best: tuple[Detector, ...]
    reconstruction: Float[Tensor, "property"]
    """F1 on held-out data; 0 where there is no high-precision detector, NaN where the property is never true there."""
    n_detectors: Int[Tensor, "property"]
    """High-precision latents of each property."""
    nulls: dict[str, tuple[float, float]]
    """Null -> its coverage and reconstruction."""

    @property
    def coverage(self) -> float:
        return sum(each.f1 for each in self.best) / len(self.best)

    @property
    def mean_reconstruction(self) -> float:
        return float(self.reconstruction.nanmean())

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "property": name,
                "best_latent": best.latent,
                "f1": best.f1,
                "high_precision_latents": int(n),
                "reconstruction_f1": float(f1),
            }
            for name, best, n, f1 in zip(self.names, self.best, self.n_detectors, self.reconstruction)
        ]

    def figures(self) -> list[Figure]:
        summary = [["dictionary", self.coverage, self.mean_reconstruction]]
        summary += [[name, *values] for name, values in self.nulls.items()]
        return [
            figures.table(
                "coverage", "Properties found by single latents", summary, group="Dictionary",
                columns=["", "coverage", "reconstruction F1, held out"],
                caption="Mean over properties of the best latent's F1; below it what is found by chance.",
            ),
            figures.table("coverage-by-property", "By property", self.rows(), group="Dictionary", essential=False),
        ]  # fmt: skip

    def __str__(self) -> str:
        lines = [f"Coverage {self.coverage:.3f}, reconstruction F1 {self.mean_reconstruction:.3f} (held out)"]
        return "\n".join([*lines, *(f"  {name}: {a:.3f}, {b:.3f}" for name, (a, b) in self.nulls.items())])


def coverage(
    encode: Encode,
    train: Labelled,
    held_out: Labelled,
    names: Sequence[str] = (),
    *,
    generator: Generator | None = None,
    random: Encode | None = None,
    fewest: int = FEWEST,
) -> Coverage:
    """Coverage of labelled properties by latents, with a null of permuted labels (with a `generator`) and one of
    `random`, an encoder with random directions.

    Cost: training data is read twice for each of encoder and nulls, held-out data once; 2 x 10 latents properties FLOPs
    a token. Memory: 10 latents x properties numbers. Errors: BadShape; UserError for iterators, no data, one class.
    """
    for what, data in (("training", train), ("held-out", held_out)):
        if iter(data) is data:
            raise UserError(f"The {what} data is an iterator, and is read more than once. Give a list of chunks.")
    best, reconstruction, n_detectors, _ = _scored(encode, train, held_out, fewest)
    named = tuple(names) or tuple(map(str, range(len(best))))
    if len(named) != len(best):
        raise BadShape(f"{len(named)} names were given for {len(best)} properties. Give one to each.")
    nulls = {}
    if generator is not None:
        shuffled = [(x, y[torch.randperm(len(y), generator=generator)]) for x, y in train]
        nulls["permuted labels"] = _scored(encode, shuffled, held_out, fewest)[3]
    if random is not None:
        nulls["random directions"] = _scored(random, train, held_out, fewest)[3]
    return Coverage(named, best, reconstruction, n_detectors, nulls)


def _scored(
    encode: Encode, train: Labelled, held_out: Labelled, fewest: int
) -> tuple[tuple[Detector, ...], Tensor, Tensor, tuple[float, float]]:
    counts = count(encode, train)
    f1, properties = counts.f1(), range(len(counts.true))
    top = f1.flatten(0, 1).max(0)
    n_latents = counts.above.shape[1]
    best = tuple(
        Detector(i, int(at) % n_latents, float(counts.levels.flatten()[at]), float(value))
        for i, (value, at) in enumerate(zip(top.values, top.indices))
    )
    levels = _precise(counts, fewest)
    reconstruction = _reconstructed(encode, held_out, levels)
    mean = (float(top.values.mean()), float(reconstruction.nanmean()))
    return best, reconstruction, torch.tensor([int(levels[i].isfinite().sum()) for i in properties]), mean


def count(encode: Encode, data: Labelled) -> Counts:
    """Two passes over the data: the largest activation of each latent, then the counts."""
    largest = None
    for x, _ in data:
        found = encode(x).amax(0)
        largest = found if largest is None else torch.maximum(largest, found)
    if largest is None:
        raise UserError("Asked for the coverage of properties on no data. Give chunks of activations and labels.")
    levels = torch.tensor(THRESHOLDS, device=largest.device, dtype=largest.dtype)[:, None] * largest.clamp(min=0)
    both: Tensor | None = None
    above, true = torch.zeros_like(levels), None
    n = 0
    for x, labels in data:
        latents, truth = encode(x), labels.to(largest)
        if truth.ndim != 2 or len(truth) != len(latents):
            raise BadShape(
                f"Labels (token, property) of {len(latents)} tokens were expected. Found {tuple(labels.shape)}."
            )
        on = [(latents > level).to(truth) for level in levels]
        products = torch.stack([each.T @ truth for each in on])
        both = products if both is None else both + products
        true = truth.sum(0) if true is None else true + truth.sum(0)
        above += torch.stack([each.sum(0) for each in on])
        n += len(truth)
    assert both is not None
    assert true is not None
    if alike := [i for i, each in enumerate(true.tolist()) if each in (0, n)]:
        raise UserError(
            f"The properties {alike} are the same at all {n} training tokens. Leave them out, or give more."
        )
    return Counts(both, above, true, levels)


def _precise(counts: Counts, fewest: int) -> Float[Tensor, "property latent"]:
    """The lowest level at which a latent detects the property with high precision; infinite where there is none."""
    good = (counts.precision() >= PRECISION) & (counts.above[..., None] >= fewest)
    levels = torch.where(good, counts.levels[..., None], torch.inf)
    return levels.amin(0).T


def _reconstructed(encode: Encode, data: Labelled, levels: Float[Tensor, "property latent"]) -> Tensor:
    """F1 on this data of each property, predicted where any of its detectors fires."""
    chosen = [row.isfinite().nonzero()[:, 0] for row in levels]
    sums = torch.zeros(3, len(levels), dtype=torch.float64)
    for x, labels in data:
        latents, truth = encode(x), labels.bool().cpu()
        said = torch.stack([(latents[:, i] > row[i]).any(1).cpu() for i, row in zip(chosen, levels)], 1)
        sums += torch.stack([(said & truth).sum(0), said.sum(0), truth.sum(0)])
    both, predicted, true = sums
    if not bool(true.any()):
        raise UserError("No property is ever true in the held-out data. Give more of it.")
    return torch.where(true > 0, 2 * both / (predicted + true).clamp(min=1), torch.nan).float()


def random_encoder(d: int, n_latents: int, generator: Generator) -> Encode:
    """ReLU of random unit directions: as many detectors as a dictionary has, with nothing learned."""
    directions = torch.randn(d, n_latents, generator=generator)
    directions = directions / directions.norm(dim=0)
    return lambda x: (x.flatten(1).to(directions) @ directions).relu()
