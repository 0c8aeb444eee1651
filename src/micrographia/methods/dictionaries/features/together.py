"""Which latents fire with which: correlation of activations over tokens, exact on evenly spaced rows.

Only pairs that fire at one token cost: the products are of sparse matrices, FIRINGS^2 a token. So many rows are read
that they hold at most `PAIRS` pairs and `FIRINGS` firings. Where more than a part in `DENSE` of all latents fires the
products are dense. Axes: token latent.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from micrographia.methods.dictionaries.features.firings import FiringStore

PAIRS = 2**30
"""10 to 20 seconds on one core."""
FIRINGS = 2**24
"""0.4 GB."""
FEWEST = 10
"""Firings below which a latent correlates with none: two that fire once, together, say nothing."""
DENSE = 32
AT_ONCE = 256


class Correlated(NamedTuple):
    """The latents that each correlates with most, largest first; -1 and 0 where there are fewer."""

    latents: Int[Tensor, "latent n"]
    correlations: Float[Tensor, "latent n"]


class FiringTogether:
    """The firings in some rows of a store, and their correlations."""

    def __init__(self, store: FiringStore) -> None:
        self.rows = _rows_within(store)
        """Which rows were read."""
        latents, places, values = (torch.cat(each).numpy() for each in zip(*store.some_rows(self.rows)))
        token = np.full(len(self.rows) * store.n_ctx, -1)
        within = self.rows.repeat_interleave(store.n_ctx) & (store.signed_ids >= 0)
        self.n_tokens = int(within.sum())
        token[within.numpy()] = np.arange(self.n_tokens)
        shape = (self.n_tokens, store.n_latents)
        self._tokens = sparse.csr_array((values, (token[places], latents)), shape=shape)
        self._latents = sparse.csr_array(self._tokens.T)
        self._dense = torch.from_numpy(self._tokens.toarray()) if len(values) * DENSE > shape[0] * shape[1] else None
        square = np.bincount(latents, values.astype(np.float64) ** 2, store.n_latents)
        mean = np.bincount(latents, values, store.n_latents) / max(self.n_tokens, 1)
        self._mean = torch.from_numpy(mean).float()
        self._std = torch.from_numpy(square / max(self.n_tokens, 1) - mean**2).clamp(min=0).sqrt().float()
        self._std[torch.from_numpy(np.bincount(latents, minlength=store.n_latents) < FEWEST)] = torch.inf

    def most(self, start: int, stop: int, n: int) -> Correlated:
        """For latents from `start` to before `stop`, the n others whose correlation is largest and above 0."""
        found = [self._most(at, min(at + AT_ONCE, stop), n) for at in range(start, stop, AT_ONCE)]
        return Correlated(*(torch.cat(each) for each in zip(*found)))

    def _most(self, start: int, stop: int, n: int) -> Correlated:
        here = slice(start, stop)
        r = self._product(start, stop).div_(max(self.n_tokens, 1)).addr_(self._mean[here], self._mean, alpha=-1)
        r.div_(self._std[here, None]).div_(self._std).nan_to_num_(0.0, 0.0, 0.0)
        r[torch.arange(stop - start), torch.arange(start, stop)] = 0.0
        top = r.topk(min(n, r.shape[1]), dim=1)
        kept = top.values > 0
        return Correlated(torch.where(kept, top.indices, -1), torch.where(kept, top.values, 0.0).clamp(max=1.0))

    def _product(self, start: int, stop: int) -> Tensor:
        if self._dense is not None:
            return self._dense[:, start:stop].T @ self._dense
        return torch.from_numpy((self._latents[start:stop] @ self._tokens).toarray())


def _rows_within(store: FiringStore) -> Tensor:
    """As many evenly spaced rows as the bounds allow, for the mean number of latents that fire at a token."""
    firings = int(store.counts.sum())
    a_token = max(firings / max(store.n_tokens, 1), 1.0)
    pairs_a_row = firings * a_token / store.n_rows
    share = min(FIRINGS / max(firings, 1), PAIRS / max(pairs_a_row * store.n_rows, 1), 1.0)
    n = max(1, min(store.n_rows, int(store.n_rows * share)))
    chosen = torch.zeros(store.n_rows, dtype=torch.bool)
    chosen[torch.linspace(0, store.n_rows - 1, n, dtype=torch.float64).round().long()] = True
    return chosen
