"""For every token of the vocabulary the latents that fire most on it: mean activation over the token's occurrences.

Of latents of both signs the size of the mean counts. Latents come range by range; of each token the best `n` so far
are kept. Axes: vocab n.
"""

import torch
from torch import Tensor

from micrographia.methods.dictionaries.features.firings import FiringStore, LatentFirings


class ByToken:
    """The best latents of each token: (vocab, n) latents, -1 where there are fewer, and means. 12 bytes an entry."""

    def __init__(self, store: FiringStore, n_vocab: int, n: int) -> None:
        self._ids = store.ids
        counted = store.signed_ids[store.signed_ids >= 0].long()
        self.seen: Tensor = counted.bincount(minlength=n_vocab)
        """How often each token occurs where it counts."""
        self.latents: Tensor = torch.full((n_vocab, n), -1, dtype=torch.int32)
        self.means: Tensor = torch.zeros(n_vocab, n)

    def add(self, firings: LatentFirings, first: int, n_latents: int) -> None:
        """The firings of the latents from `first` on, which were not added before. A sort of them."""
        token = self._ids[firings.place].long()
        pairs, at = (token * n_latents + firings.latent).unique(return_inverse=True)
        sums = torch.zeros(len(pairs), dtype=torch.float64).index_add_(0, at, firings.value.double())
        token = pairs // n_latents
        means = (sums / self.seen[token]).float()
        kept = means.abs() > self.means[token, -1].abs()
        self._merge(token[kept], (pairs % n_latents + first)[kept].int(), means[kept])

    def _merge(self, token: Tensor, latent: Tensor, mean: Tensor) -> None:
        touched = token.unique()
        old = self.latents[touched] >= 0
        token = torch.cat([touched[:, None].expand_as(old)[old], token])
        latent = torch.cat([self.latents[touched][old], latent])
        mean = torch.cat([self.means[touched][old], mean])
        bits = mean.abs().view(torch.int32).long()  # positive floats are ordered as their bits are
        order = ((token << 32) + (2**31 - 1 - bits)).sort(stable=True).indices
        token, latent, mean = token[order], latent[order], mean[order]
        counts = token.bincount(minlength=len(self.latents))
        rank = torch.arange(len(token)) - (counts.cumsum(0) - counts)[token]
        best = rank < self.latents.shape[1]
        self.latents[token[best], rank[best]] = latent[best]
        self.means[token[best], rank[best]] = mean[best]
