"""Labels without a judge: the tokens that tell where a latent fires, chosen on half of the rows, scored on the others.

See `evaluation.offline`, which explains; this hands it the firings that are known, and words what comes back.
Axes: row pos latent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from micrographia.methods.dictionaries.evaluation.offline import LOGITS, FiringBlock, explain_firings
from micrographia.methods.dictionaries.features.firings import FiringStore, LatentFirings

LABELLED = 2**20
"""Tokens from which labels are chosen and on which they are scored, at most: the first of all."""
LONGEST = 100
"""Letters of a label."""
SAID = {
    "token": "{}",
    "token before": "after {}",
    "token and the one before": "{}",
    "two tokens before": "after {}",
    LOGITS: "before {}",
}
"""Kind of explanation -> the label, from its tokens."""


@dataclass(frozen=True, slots=True)
class StoredFirings:
    """A source of firings for `explain_firings`: halves of the first rows of a store."""

    store: FiringStore
    found: LatentFirings

    @property
    def n_rows(self) -> int:
        """In a half."""
        return min(self.store.n_rows, max(2, LABELLED // self.store.n_ctx)) // 2

    def firings(self, half: int) -> Iterator[FiringBlock]:
        (ids, counted), n = next(self.tokens(half)), self.n_rows * self.store.n_ctx
        here = (self.found.place >= half * n) & (self.found.place < (half + 1) * n)
        yield FiringBlock(ids, counted, self.found.place[here] - half * n, self.found.latent[here])

    def tokens(self, half: int) -> Iterator[tuple[Tensor, Tensor]]:
        n = self.n_rows * self.store.n_ctx
        signed = self.store.signed_ids[half * n : (half + 1) * n].view(-1, self.store.n_ctx).long()
        yield torch.where(signed < 0, ~signed, signed), signed >= 0


def label_latents(
    store: FiringStore,
    found: LatentFirings,
    n: int,
    spelled: list[str],
    promoted: Tensor | None,
    generator: Generator,
) -> dict[str, Any]:
    """Columns label, label_kind, precision, recall, accuracy of the latents 0 to n - 1 of these firings.

    `spelled` are the tokens' texts, `promoted` (latent, n) those whose logits each raises most. A label whose latent
    never fires on the second half has no scores (NaN). There are none at all for fewer than two rows.
    """
    if store.n_rows < 2:
        return unlabelled(n)
    explained = explain_firings(
        StoredFirings(store, found), torch.arange(n), len(spelled), promoted, generator=generator,
        words=lambda token: repr(spelled[token]),
    ).explained  # fmt: skip
    told = [each.chosen_f1 > 0 for each in explained]
    scores = torch.tensor([(*each.detected[:2], each.detected.accuracy) for each in explained])
    known = torch.tensor([there and each.n_fires > 0 for there, each in zip(told, explained)])
    precision, recall, accuracy = torch.where(known[:, None], scores, torch.nan).T.contiguous().numpy()
    return {
        "label": [_short(SAID[each.kind].format(each.text)) if there else "" for there, each in zip(told, explained)],
        "label_kind": [each.kind if there else "" for there, each in zip(told, explained)],
        **{"precision": precision, "recall": recall, "accuracy": accuracy},
    }


def unlabelled(n: int) -> dict[str, Any]:
    """The same columns where no labels were asked for."""
    unknown = torch.full((n,), torch.nan).numpy()
    return {"label": [""] * n, "label_kind": [""] * n, **dict.fromkeys(("precision", "recall", "accuracy"), unknown)}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"
