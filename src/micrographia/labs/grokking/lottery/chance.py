"""The lottery's statistics: how well scores tell the winners at each t0, and what decides about the winners.

Axes: S score, T look, N network, K frequency. Every interval and every null respects that networks of one
initialisation, or of one split, are no independent witnesses.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from torch import Generator

from micrographia.core import intervals
from micrographia.methods import crossed, ranking

COMBINED = "combined"
"""All scores put together by logistic regression, fitted on the networks of other initialisations."""


class Contest(NamedTuple):
    """The networks that take part."""

    init: ndarray
    """(N,) place of the initial seed."""
    split: ndarray
    """(N,) place of the split seed."""
    won: ndarray
    """(N, K) whether a frequency is key in the end."""
    looks: list[int]
    names: list[str]
    scores: ndarray
    """(S, T, N, K)."""


class Curves(NamedTuple):
    """Areas under the ROC curve over t0, for every score and for the combined one; (S + 1, T) each."""

    names: list[str]
    area: ndarray
    low: ndarray
    high: ndarray
    null_low: ndarray
    null_high: ndarray
    p_value: ndarray
    p_best: ndarray
    """(T,): of the best score at each look, against the best score under the null."""


def decided(contest: Contest) -> bool:
    """Whether there are two initialisations and two splits at least to tell apart."""
    return len(set(contest.init.tolist())) > 1 and len(set(contest.split.tolist())) > 1


def curves(contest: Contest, *, generator: Generator, permutations: int, resamples: int) -> Curves:
    """Mean area over networks, its interval (initialisations resampled), and its null (winners dealt anew).

    A deal moves whole initialisations and whole splits, so the marginal preference for some frequencies and what
    networks of one row or column have in common stay as they are. p-values are one-sided, the identity deal counted.
    """
    scores = np.concatenate([contest.scores, _combined(contest)[None]])
    pairwise = ranking.areas(scores, contest.won)
    own = pairwise[..., np.arange(len(contest.won)), np.arange(len(contest.won))]
    area, low, high = intervals.clustered_mean(own, contest.init, generator=generator, draws=resamples)
    dealt = crossed.partners(contest.init, contest.split, generator=generator, draws=permutations)
    null = crossed.permuted_means(pairwise, dealt[(dealt >= 0).any(1)])
    ends = np.quantile(null, [0.025, 0.975], axis=-1)
    return Curves(
        names=[*contest.names, COMBINED],
        area=area,
        low=low,
        high=high,
        null_low=ends[0],
        null_high=ends[1],
        p_value=_p_value(null, area),
        p_best=_p_value(null.max(0), area.max(0)),
    )


def causes(contest: Contest, *, generator: Generator, permutations: int, resamples: int) -> dict[str, Any]:
    """How many winners two networks share, and the shares of initialisation and split in deciding who wins."""
    table = contest.won, contest.init, contest.split
    found = crossed.shares(*table)
    low, high = crossed.share_intervals(*table, generator=generator, draws=resamples)
    null = crossed.share_null(*table, generator=generator, draws=permutations)
    nothing = np.quantile(null, [0.025, 0.975], axis=0)
    size = contest.won.sum(1)
    by_chance = np.outer(size, size)[~np.eye(len(size), dtype=bool)].mean() / contest.won.shape[1]
    parts = {
        name: {"value": getattr(found, name), "low": getattr(low, name), "high": getattr(high, name)}
        for name in found._fields
    }
    for i, name in enumerate(("row", "column")):
        p_value = float(_p_value(null[:, i], np.array(getattr(found, name))))
        parts[name] |= {"null_low": nothing[0, i], "null_high": nothing[1, i], "p_value": p_value}
    return {"shared_by_chance": float(by_chance), **{PLAIN[name]: part for name, part in parts.items()}}


PLAIN = {
    "same_row": "shared_same_init", "same_column": "shared_same_split", "neither": "shared_neither",
    "size": "winners", "row": "init", "column": "split", "rest": "rest",
}  # fmt: skip


def _combined(contest: Contest) -> ndarray:
    """(T, N, K): log-odds from all scores at once. Never is a network's own initialisation among those fitted on."""
    features = np.moveaxis(ranking.standardised(contest.scores), 0, -1)  # T N K S
    half = np.unique(contest.init, return_inverse=True)[1] % 2 == 0
    found = np.zeros(features.shape[:3])
    for fitted in (half, ~half):
        for t, at in enumerate(features):
            weights = ranking.logistic_weights(at[fitted].reshape(-1, at.shape[-1]), contest.won[fitted].ravel())
            found[t, ~fitted] = at[~fitted] @ weights
    return found


def _p_value(null: ndarray, found: ndarray) -> ndarray:
    return (1 + (null >= found[..., None]).sum(-1)) / (1 + null.shape[-1])
