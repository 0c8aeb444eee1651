"""What decides, and what predicts, a network's choices: networks crossed by two factors (initialisation and split).

Networks form a table of rows (initialisations) and columns (splits), some cells of which may be empty; each chose some
of the candidates. Two networks of one row share one factor, two of one column the other, all others neither: the
numbers of shared choices give each factor's fraction of the variance; `prediction` tests scores of the candidates.
Permutations respect the table, because networks of one row are not independent.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Generator

from micrographia.core.intervals import clustered_mean
from micrographia.core.ranking import areas, logistic_weights, standardised


class Shares(NamedTuple):
    """Mean number of choices that two networks share, by kind of pair, and the resulting fractions of variance.

    `row` and `column` are fractions of the variance of being chosen, within candidates; `rest` is the remainder:
    interaction and chance. They are unbiased, so they may be slightly below 0.
    """

    same_row: float
    same_column: float
    neither: float
    size: float
    """Mean number of choices of a network, which two identical networks would share."""
    row: float
    column: float
    rest: float


def shares(
    chosen: Bool[ndarray, "n candidates"],
    row: Int[ndarray, "n"],
    column: Int[ndarray, "n"],
    weight: tuple[ndarray, ndarray] | None = None,
) -> Shares:
    """Fractions of variance by the method of moments; NaN where there is no such pair.

    With Y the indicator of being chosen, E[Y Y'] over pairs of networks is the mean number of shared choices, and
    share(row) = (same row - neither) / (own size - neither). `weight`: the multiplicity of each row and each column.
    Source: the variance components of a two-way random design (Searle, Casella and McCulloch 1992, section 4.3), with
    pairs in place of mean squares so that empty cells do no harm.
    """
    of_row, of_column = weight if weight is not None else (np.ones(row.max() + 1), np.ones(column.max() + 1))
    shared = chosen.astype(np.float64) @ chosen.T.astype(np.float64)
    r, c = of_row[row], of_column[column]
    same_row, same_column = row[:, None] == row, column[:, None] == column
    both_rows, both_columns = np.where(same_row, r, r[:, None] * r), np.where(same_column, c, c[:, None] * c)
    pairs = both_rows * both_columns  # a row drawn twice is one row, so that no network is paired with itself
    in_row = _mean(shared, pairs * (same_row & ~same_column))
    in_column = _mean(shared, pairs * (same_column & ~same_row))
    neither = _mean(shared, pairs * ~(same_row | same_column))
    size = _mean(shared, pairs * (same_row & same_column))
    own = size - neither or math.nan  # NaN where all networks chose the same
    of_rows, of_columns = (in_row - neither) / own, (in_column - neither) / own
    return Shares(in_row, in_column, neither, size, of_rows, of_columns, 1 - of_rows - of_columns)


def share_intervals(
    chosen: Bool[ndarray, "n candidates"],
    row: Int[ndarray, "n"],
    column: Int[ndarray, "n"],
    *,
    generator: Generator,
    draws: int = 1000,
) -> tuple[Shares, Shares]:
    """95 % bootstrap intervals of every entry, with rows and columns drawn independently with replacement.

    Source: Owen, "The pigeonhole bootstrap" (2007).
    """
    n_rows, n_columns = int(row.max()) + 1, int(column.max()) + 1
    found = []
    for _ in range(draws):
        drawn = [torch.randint(k, (k,), generator=generator).numpy() for k in (n_rows, n_columns)]
        weight = np.bincount(drawn[0], minlength=n_rows) * 1.0, np.bincount(drawn[1], minlength=n_columns) * 1.0
        found.append(shares(chosen, row, column, weight))
    low, high = zip(*(_ends(entry) for entry in np.array(found).T))
    return Shares(*low), Shares(*high)


def share_null(
    chosen: Bool[ndarray, "n candidates"],
    row: Int[ndarray, "n"],
    column: Int[ndarray, "n"],
    *,
    generator: Generator,
    draws: int = 1000,
) -> Float[ndarray, "draws 2"]:
    """The null of each factor's fraction: choices permuted within each column (for rows) or row (for columns).

    So each factor is tested with the other one kept.
    """
    of_rows = [shares(chosen[_shuffled(column, generator)], row, column).row for _ in range(draws)]
    of_columns = [shares(chosen[_shuffled(row, generator)], row, column).column for _ in range(draws)]
    return np.array([of_rows, of_columns]).T


def share_table(
    chosen: Bool[ndarray, "n candidates"],
    row: Int[ndarray, "n"],
    column: Int[ndarray, "n"],
    *,
    generator: Generator,
    permutations: int,
    resamples: int,
) -> dict[str, dict[str, float]]:
    """Every entry of `shares` with its interval, those of row and column with their null and p-value too."""
    table = chosen, row, column
    found = shares(*table)._asdict()
    low, high = (each._asdict() for each in share_intervals(*table, generator=generator, draws=resamples))
    null = share_null(*table, generator=generator, draws=permutations)
    parts = {name: {"value": x, "low": low[name], "high": high[name]} for name, x in found.items()}
    for name, drawn in zip(("row", "column"), null.T):
        null_low, null_high = np.quantile(drawn, [0.025, 0.975])
        p = float(p_value(drawn, np.array(found[name])))
        parts[name] |= {"null_low": null_low, "null_high": null_high, "p_value": p}
    return parts


def shared_by_chance(chosen: Bool[ndarray, "n candidates"]) -> float:
    """How many choices two networks would share, on average, if each chose as many at random."""
    size = chosen.sum(1)
    return float(np.outer(size, size)[~np.eye(len(size), dtype=bool)].mean() / chosen.shape[1])


def prediction(
    scores: Float[ndarray, "*curves n candidates"],
    chosen: Bool[ndarray, "n candidates"],
    row: Int[ndarray, "n"],
    column: Int[ndarray, "n"],
    *,
    generator: Generator,
    permutations: int,
    resamples: int,
) -> dict[str, Float[ndarray, "*curves"]]:
    """How well each score ranks what a network chose: area under the ROC curve, the mean over networks.

    With its interval (rows resampled) and its null (label permutations). A permutation moves whole rows and whole
    columns, so the marginal preference for some candidates and what networks of one row or column have in common stay
    as they are. p-values are one-sided, the identity counted; `p_best` is that of the best score (along the first axis)
    against the best score under the null.
    """
    pairwise, own = areas(scores, chosen), np.arange(len(chosen))
    area, low, high = clustered_mean(pairwise[..., own, own], row, generator=generator, draws=resamples)
    dealt = partners(row, column, generator=generator, draws=permutations)
    null = permuted_means(pairwise, dealt[(dealt >= 0).any(1)])
    null_low, null_high = np.quantile(null, [0.025, 0.975], axis=-1)
    best = np.broadcast_to(p_value(null.max(0), area.max(0)), area.shape)
    found = {"area": area, "low": low, "high": high, "null_low": null_low, "null_high": null_high}
    return {**found, "p_value": p_value(null, area), "p_best": best}


def combined(
    scores: Float[ndarray, "S T n candidates"], chosen: Bool[ndarray, "n candidates"], row: Int[ndarray, "n"]
) -> Float[ndarray, "T n candidates"]:
    """Log-odds from all scores together. A network's own row is never among those fitted on."""
    features = np.moveaxis(standardised(scores), 0, -1)  # T n candidates S
    half = np.unique(row, return_inverse=True)[1] % 2 == 0
    found = np.zeros(features.shape[:3])
    for fitted in (half, ~half):
        for t, at in enumerate(features):
            weights = logistic_weights(at[fitted].reshape(-1, at.shape[-1]), chosen[fitted].ravel())
            found[t, ~fitted] = at[~fitted] @ weights
    return found


def p_value(null: Float[ndarray, "*curves draws"], found: Float[ndarray, "*curves"]) -> Float[ndarray, "*curves"]:
    """The fraction of the null that is at least as large, the identity counted."""
    return np.asarray((1 + (null >= found[..., None]).sum(-1)) / (1 + null.shape[-1]))


def partners(
    row: Int[ndarray, "n"], column: Int[ndarray, "n"], *, generator: Generator, draws: int = 2000
) -> Int[ndarray, "draws n"]:
    """For each network the one whose choices it gets when rows and columns are permuted; -1 for an empty cell.

    Whole rows and whole columns are permuted, so networks of one row or column stay together.
    """
    n_rows, n_columns = int(row.max()) + 1, int(column.max()) + 1
    table = np.full((n_rows, n_columns), -1)
    table[row, column] = np.arange(len(row))
    dealt = []
    for _ in range(draws):
        of_row, of_column = (torch.randperm(k, generator=generator).numpy() for k in (n_rows, n_columns))
        dealt.append(table[of_row[row], of_column[column]])
    return np.array(dealt)


def permuted_means(
    pairwise: Float[ndarray, "*curves n n"], partner: Int[ndarray, "draws n"]
) -> Float[ndarray, "*curves draws"]:
    """Mean over networks of `pairwise[i, partner of i]`, for each draw of `partners`; NaN where no partner exists."""
    return np.stack([_mean_over(pairwise, each) for each in partner], axis=-1)


def _mean_over(pairwise: Float[ndarray, "*curves n n"], partner: Int[ndarray, "n"]) -> Float[ndarray, "*curves"]:
    there = np.flatnonzero(partner >= 0)
    if not len(there):
        return np.full(pairwise.shape[:-2], np.nan)
    return np.asarray(pairwise[..., there, partner[there]].mean(-1))


def _shuffled(within: ndarray, generator: Generator) -> ndarray:
    """A random permutation of the networks within the classes of `within`."""
    order = np.arange(len(within))
    for name in np.unique(within):
        members = np.flatnonzero(within == name)
        order[members] = members[torch.randperm(len(members), generator=generator).numpy()]
    return order


def _mean(values: ndarray, weight: ndarray) -> float:
    total = weight.sum()
    return float((values * weight).sum() / total) if total else math.nan


def _ends(values: ndarray) -> tuple[float, float]:
    """The middle 95 % of the finite values: a draw of a single row has no pairs to compare."""
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
