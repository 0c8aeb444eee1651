"""Metrics of a dictionary on activations, all in one pass: fidelity, sparsity, shrinkage, directions.

Sums are float64 and updated block by block, so memory does not grow with tokens. A block that is handed over is a batch
where a definition of another tool is per batch. MSE and L1 are sums over dimensions or latents, means over tokens.
Source of the list: the core evaluations of SAELens and SAEBench (Karvonen et al., "SAEBench", 2025, section 3), and
Rajamanoharan et al. (2404.16014), section 4.2 on shrinkage. Axes: token d_in d_out latent.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import UserError
from micrographia.core.events import Watch, silent
from micrographia.methods.dictionaries.evaluation.directions import Directions, directions
from micrographia.methods.dictionaries.evaluation.explained import Residuals, explained_variance
from micrographia.methods.dictionaries.evaluation.firing import FREQUENT, Firing
from micrographia.methods.dictionaries.evaluation.linear import WIDEST, LinearMap, best_linear
from micrographia.methods.dictionaries.evaluation.moments import Covariance, Mean
from micrographia.methods.dictionaries.evaluation.reading import Activity, OnNaN, activity_of, coded, fitting

FEWEST = 2
"""Tokens without which there is no variance."""


@dataclass(slots=True)
class DictionaryMetrics:
    """What one pass has summed; every figure is read off it."""

    firing: Firing
    residuals: Residuals = field(default_factory=Residuals)
    cosine: Mean = field(default_factory=Mean)
    """Of each token's output with what should come out."""
    l2_ratio: Mean = field(default_factory=Mean)
    """||x̂|| / ||x||; tokens of zero norm are left out."""
    output_squares: Mean = field(default_factory=Mean)
    products: Mean = field(default_factory=Mean)
    """x . x̂ of each token."""
    covariance: Covariance | None = None
    directions: Directions | None = None
    d_in: int = 0

    @property
    def n_tokens(self) -> int:
        return self.firing.n

    @property
    def l0(self) -> float:
        return self.firing.l0

    @property
    def mse(self) -> float:
        """E||x - x̂||², summed over dimensions."""
        return self.residuals.errors.value

    @property
    def fvu(self) -> float:
        return self.residuals.fvu

    @property
    def relative_bias(self) -> float:
        """E||x̂||² / E[x . x̂]: below 1 the output is shrunk (2404.16014, eq. 10)."""
        return self.output_squares.value / self.products.value if self.products.value else float("nan")

    @property
    def explained(self) -> dict[str, float]:
        """Explained variance in every definition of `explained.DEFINITIONS`."""
        return explained_variance(self.residuals)

    @property
    def mean(self) -> Float[Tensor, "d_out"]:
        """The mean of what should come out, float64."""
        return self.residuals.target.mean

    def linear(self, rank: int) -> LinearMap | None:
        """The best linear map of this rank; None where the activations are too wide for their covariance."""
        return None if self.covariance is None else best_linear(self.covariance, self.d_in, rank)

    def values(self) -> dict[str, float]:
        """Every figure by name."""
        firing = self.firing
        found: dict[str, float] = {
            "tokens": self.n_tokens,
            "l0": self.l0,
            "l0_median": firing.l0_quantile(0.5),
            "l0_90th": firing.l0_quantile(0.9),
            "l1": firing.l1.value,
            "dead_share": firing.dead_share,
            "rare_share": firing.rare_share,
            **{f"frequent_share_{each:g}": firing.share_above(each) for each in FREQUENT},
            "tokens_per_firing_row": firing.tokens_per_row,
            "mse": self.mse,
            "fvu": self.fvu,
            "explained_variance": 1 - self.fvu,
            "cosine": self.cosine.value,
            "l2_ratio": self.l2_ratio.value,
            "relative_bias": self.relative_bias,
        }
        if self.directions is not None:
            found |= {name: float(value) for name, value in self.directions._asdict().items()}
        return found

    def add(self, y: Float[Tensor, "token d_out"], output: Float[Tensor, "token d_out"]) -> None:
        """One block's output against what should have come out."""
        self.residuals.add(y, output)
        y, output = y.double(), output.double()
        norm, out_norm, product = y.norm(dim=1), output.norm(dim=1), (y * output).sum(1)
        there = norm > 0
        self.cosine.add((product / (norm * out_norm).clamp(min=1e-300))[there])
        self.l2_ratio.add((out_norm / norm)[there])
        self.output_squares.add(out_norm.square())
        self.products.add(product)


def measure(
    dictionary: Dictionary,
    chunks: Iterable[Any],
    *,
    on_nan: OnNaN = "stop",
    linear: bool = True,
    generator: Generator | None = None,
    watch: Watch = silent,
) -> DictionaryMetrics:
    """Metrics over chunks of activations: tensors (token, *d_in), or pairs of input and target. One pass.

    Cost: encode and decode of each token, 2 (d_in + d_out) latents FLOPs; with `linear` also a covariance of 2 d² FLOPs
    a token. With a `generator` the directions are compared too. Memory: a chunk, its latents in pieces, d².
    Errors: BadShape for a width that does not fit; UserError for NaN (or `on_nan="skip"`) and for too few tokens.
    """
    found = DictionaryMetrics(Firing.of(dictionary.n_latents), d_in=dictionary.d_in)
    for each in fitting(dictionary, activity_of(chunks), on_nan, watch):
        _add(found, dictionary, each, linear)
    if found.n_tokens < FEWEST:
        raise UserError(
            f"Asked to measure a dictionary on {found.n_tokens} tokens; a variance needs {FEWEST}, and a frequency far "
            "more. Give longer text."
        )
    if generator is not None:
        found.directions = directions(dictionary, generator)
    return found


def _add(found: DictionaryMetrics, dictionary: Dictionary, each: Activity, linear: bool) -> None:
    outputs = []
    for piece in coded(dictionary, each.x):
        found.firing.add(piece.latents, None if each.row is None else each.row[piece.piece])
        outputs.append(piece.output)
    x, y = each.x.flatten(1), each.y.flatten(1)
    found.add(y, torch.cat(outputs).to(y.device))
    both = x if each.y is each.x else torch.cat([x, y.to(x)], 1)
    if linear and both.shape[1] <= WIDEST:
        found.covariance = found.covariance or Covariance()
        found.covariance.add(both)
