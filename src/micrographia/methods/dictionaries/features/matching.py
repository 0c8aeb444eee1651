"""What two bundles are compared by: decoder rows, and activations on the same tokens.

A bundle keeps its decoder rows as directions, in half precision, and the firings of its first tokens, 4 bytes each. Two
dictionaries are compared by cosine where they write as wide, by correlation where these tokens are the same. Each
latent is given its best match, which several may share.
Axes: latent d_out; other (a latent of the other bundle); token.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from micrographia.core.store.formats import plain, read_tensors
from micrographia.methods.dictionaries.features.firings import FiringStore

MATCHING = "matching.safetensors"
TOKENS = 2**15
"""How many tokens at most: their places have two bytes."""
FEWEST = 10
"""Firings on these tokens below which a latent correlates with none: two that fire once, together, say nothing."""
AT_ONCE = 512


class BestMatches(NamedTuple):
    """The best match of each latent; NaN where there is nothing to match."""

    others: Int[Tensor, "latent"]
    values: Float[Tensor, "latent"]


def matching_tensors(unit: Float[Tensor, "latent d_out"], store: FiringStore) -> dict[str, Tensor]:
    """What a bundle keeps: `decoder` (unit rows), `ids` of the tokens (~id where one does not count), and the firings
    on them sorted by latent: `starts`, `places`, `values`, as parts of the latent's largest (no correlation changes).
    """
    n_rows = min(store.n_rows, max(1, TOKENS // store.n_ctx))
    n_tokens = min(n_rows * store.n_ctx, TOKENS)
    chosen = torch.arange(store.n_rows) < n_rows
    latents, places, values = (torch.cat(each) for each in zip(*store.some_rows(chosen)))
    within = places < n_tokens
    latents, places, values = latents[within], places[within], values[within]
    order = latents.sort(stable=True).indices
    counts = latents.long().bincount(minlength=store.n_latents)
    largest = values.new_zeros(store.n_latents).scatter_reduce_(0, latents.long(), values.abs(), "amax")
    return {
        "decoder": unit.half(),
        "ids": store.signed_ids[:n_tokens].int(),
        "starts": torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int(),
        "places": places[order].to(torch.int16),
        "values": (values / largest[latents.long()])[order].half(),
    }


def compare_folders(one: Path, other: Path) -> dict[str, Any]:
    """For each latent of the bundle in `one` its best match in `other`: by "cosine", by "correlation".

    Pairs [latent of other, value], the value None where a latent fires too seldom; None for all where the two cannot be
    compared so. Cost: 2 latents others d_out FLOPs, and a sparse product of the firings. Raises Corrupt.
    """
    if not all((folder / MATCHING).is_file() for folder in (one, other)):
        return {"cosine": None, "correlation": None}
    a, b = (read_tensors(folder / MATCHING) for folder in (one, other))
    return {"cosine": _pairs(best_cosines(a, b)), "correlation": _pairs(best_correlations(a, b))}


def best_cosines(a: dict[str, Tensor], b: dict[str, Tensor]) -> BestMatches | None:
    """By decoder rows; None for other widths."""
    if a["decoder"].shape[1] != b["decoder"].shape[1]:
        return None
    columns = b["decoder"].float().T
    found = [(rows.float() @ columns).max(1) for rows in a["decoder"].split(AT_ONCE)]
    return BestMatches(
        torch.cat([each.indices for each in found]), torch.cat([each.values for each in found]).clamp(max=1)
    )


def best_correlations(a: dict[str, Tensor], b: dict[str, Tensor]) -> BestMatches | None:
    """By activations on the tokens that both begin with; None where these differ."""
    n = min(len(a["ids"]), len(b["ids"]))
    if not n or not torch.equal(a["ids"][:n], b["ids"][:n]):
        return None
    counted = int((a["ids"][:n] >= 0).sum())
    left, right = (_sparse(each, n) for each in (a, b))
    (mean_a, std_a), (mean_b, std_b) = (_moments(each, counted) for each in (left, right))
    rows, found = sparse.csr_array(left.T), []
    for start in range(0, len(mean_a), AT_ONCE):
        here = slice(start, min(start + AT_ONCE, len(mean_a)))
        product = (rows[here] @ right).toarray() / max(counted, 1)
        r = torch.from_numpy((product - mean_a[here, None] * mean_b) / (std_a[here, None] * std_b))
        found.append(r.nan_to_num(-torch.inf).max(1))
    values = torch.cat([each.values for each in found]).float().clamp(max=1)
    values[torch.from_numpy(~np.isfinite(std_a))] = torch.nan
    return BestMatches(torch.cat([each.indices for each in found]), values)


def _sparse(kept: dict[str, Tensor], n: int) -> Any:
    """The activations on the first n tokens, (token, latent)."""
    counts = kept["starts"].diff().numpy()
    latents = np.repeat(np.arange(len(counts)), counts)
    places, values = kept["places"].numpy(), kept["values"].double().numpy()
    within = places < n
    return sparse.csr_array((values[within], (places[within], latents[within])), shape=(n, len(counts)))


def _moments(activations: Any, counted: int) -> tuple[Any, Any]:
    """Mean and standard deviation of each latent over the tokens that count; infinite where it fires too seldom."""
    mean = np.asarray(activations.sum(0)).ravel() / max(counted, 1)
    square = np.asarray(activations.power(2).sum(0)).ravel() / max(counted, 1)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    fires = np.bincount(activations.indices, minlength=activations.shape[1])
    std[fires < FEWEST] = np.inf
    return mean, std


def _pairs(found: BestMatches | None) -> list[list[Any]] | None:
    if found is None:
        return None
    return [[other, plain(round(value, 4))] for other, value in zip(found.others.tolist(), found.values.tolist())]
