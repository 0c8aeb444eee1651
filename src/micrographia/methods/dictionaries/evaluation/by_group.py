"""What a dictionary costs a model by groups of tokens: by their position in the row, by the source of their text.

The rise of the loss when it is spliced in, and the FVU of each group against the mean over all tokens, so that groups
are held against one measure. Source: Lieberum et al. (2408.05147), "Gemma Scope". Axes: row pos.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core import figures
from micrographia.core.errors import BadShape
from micrographia.core.figures import Figure
from micrographia.core.spoken import number_of
from micrographia.core.stream.rows import TokenSources
from micrographia.methods.dictionaries.evaluation.spliced import MEAN


@dataclass(slots=True)
class ByGroup:
    """Sums over the tokens of each group; `see` is given to `splice_losses`, which then fills them."""

    groups: Int[Tensor, "row pos"]
    """The number of each token's group."""
    names: Sequence[str]
    _sums: dict[tuple[str, str], Float[Tensor, "2 group"]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.groups.ndim != 2 or int(self.groups.max()) >= len(self.names) or int(self.groups.min()) < 0:
            raise BadShape(
                f"Groups are numbers (row, pos) below {len(self.names)}, the number of names. Found those of shape "
                f"{tuple(self.groups.shape)} from {int(self.groups.min())} to {int(self.groups.max())}."
            )

    def see(self, name: str, what: str, at: Int[Tensor, "token 2"], values: Float[Tensor, "token"]) -> None:
        """Add what these tokens cost under a replacement, as `splice_losses` tells it. Raises BadShape for others."""
        if int(at[:, 0].max()) >= len(self.groups) or int(at[:, 1].max()) >= self.groups.shape[1]:
            raise BadShape(
                f"There are groups of {tuple(self.groups.shape)} tokens, and more are read. Give all theirs."
            )
        group = self.groups[at[:, 0].cpu(), at[:, 1].cpu()]
        values = values.double().cpu()
        sums = self._sums.setdefault((name, what), torch.zeros(2, len(self.names), dtype=torch.float64))
        sums[0].index_add_(0, group, values)
        sums[1].index_add_(0, group, torch.ones_like(values))

    def delta_loss(self, name: str) -> Float[Tensor, "group"]:
        """The mean rise of the loss in nats, NaN of a group without predictions."""
        total, count = self._sums[name, "rise"]
        return total / count

    def fvu(self, name: str) -> Float[Tensor, "group"]:
        """The mean squared error over that of the mean of all tokens, NaN of a group without tokens."""
        return self._sums[name, "squares"][0] / self._sums[MEAN, "squares"][0]

    def n_tokens(self, name: str = MEAN) -> Int[Tensor, "group"]:
        return self._sums[name, "rise"][1].long()

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A row for each group that has tokens."""
        columns = zip(self.names, self.delta_loss(name).tolist(), self.fvu(name).tolist(), self.n_tokens().tolist())
        return [{"name": g, "delta_loss": rise, "fvu": fvu, "tokens": n} for g, rise, fvu, n in columns if n]

    def figure(
        self, name: str, title: str, shown: Mapping[str, str], *, sizes: bool = False, caption: str = "", **about: Any
    ) -> Figure:
        """The rise of the loss of each group with tokens, a series for each of `shown` (name -> its title).

        `sizes`: say how many tokens each group has.
        """
        counts = self.n_tokens()
        there = counts.nonzero()[:, 0]
        values = torch.stack([self.delta_loss(each)[there] for each in shown]).numpy()
        names = [self.names[int(i)] + (f" ({int(counts[i]):,})" if sizes else "") for i in there]
        return figures.bars(
            name, title, values, names=names, series=list(shown.values()), y_label="delta loss, nats", caption=caption,
            source="Gemma Scope (2408.05147)", **about,
        )  # fmt: skip


MOST_SOURCES = 12
"""That are told apart; the tokens of all others are one group."""


def by_source(sources: TokenSources, n_rows: int) -> ByGroup:
    """The sources of the most tokens in the first `n_rows` rows, the largest first; the others together."""
    of = sources.of[:n_rows]
    counts = torch.bincount(of[of >= 0], minlength=len(sources.names))
    largest = counts.sort(descending=True, stable=True).indices[:MOST_SOURCES]
    largest = largest[counts[largest] > 0]
    group = torch.full((len(sources.names) + 1,), len(largest))  # the last for -1, no known source
    group[largest] = torch.arange(len(largest))
    others = int((counts > 0).sum()) - len(largest)
    rest = number_of(others, "other") if others else "not told"
    return ByGroup(group[of], [*(sources.names[i] for i in largest.tolist()), rest])


def by_position(n_rows: int, n_ctx: int) -> ByGroup:
    """Positions 0, 1, 2 to 3, 4 to 7, 8 to 15 ...: each group has as many as all before it."""
    last = (n_ctx - 1).bit_length()
    names = ["0", "1", *(f"{2**i} to {min(2 ** (i + 1), n_ctx) - 1}" for i in range(1, last))][: max(1, last + 1)]
    group = torch.tensor([pos.bit_length() for pos in range(n_ctx)])
    return ByGroup(group.expand(n_rows, n_ctx), names)
