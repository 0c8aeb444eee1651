"""What probes of a model found: accuracy by Site beside its nulls, the confusions of the best, and directions.

Nulls: the commonest class of the test rows; the same probe fitted to shuffled labels (the difference is its
selectivity, Hewitt and Liang 2019, arXiv 1909.03368, whose labels are shuffled by word type); and, where asked for, the
same probe on a model without training. A probe says what can be read off a Site, not what the model uses of it.
Axes: item true said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core import figures
from micrographia.core.errors import BadShape, UnknownSite
from micrographia.core.figures import Figure
from micrographia.core.intervals import share
from micrographia.core.sites import Site, SiteLike, as_site
from micrographia.core.titles import kind_title
from micrographia.methods.probes.probe import SiteProbes

MOST_CLASSES = 30
"""Of a picture of confusions."""
TITLE = "What probes read"


class SiteScore(NamedTuple):
    """How the probe of one Site did on the test rows; `train`: on those that it was fitted to."""

    site: Site
    counts: Int[Tensor, "item true said"]
    train: float
    shuffled: float
    """Accuracy of the same probe fitted to, and judged by, shuffled labels."""
    shuffled_train: float
    untrained: float | None = None
    """Accuracy of the same probe on the model without training."""

    @property
    def accuracy(self) -> float:
        """Over all items."""
        return float(self.counts.diagonal(dim1=-2, dim2=-1).sum() / self.counts.sum().clamp(min=1))

    @property
    def majority(self) -> float:
        """Accuracy of saying the commonest class of each item, as the test rows have it."""
        return float(self.counts.sum(-1).amax(-1).sum() / self.counts.sum().clamp(min=1))

    @property
    def balanced(self) -> float:
        """The mean over classes of the share of their own that was said."""
        true = self.counts.sum((0, 2)).double()
        right = self.counts.diagonal(dim1=-2, dim2=-1).sum(0).double()
        return float((right / true.clamp(min=1))[true > 0].mean())

    @property
    def selectivity(self) -> float:
        return self.accuracy - self.shuffled


class SplitSizes(NamedTuple):
    """How much probes were fitted to and judged on. `groups`: texts, or the groups of texts that stay together."""

    train_groups: int
    test_groups: int
    train_rows: int
    test_rows: int
    grouped: bool = False

    def __str__(self) -> str:
        what = "groups of texts" if self.grouped else "texts"
        return (
            f"fitted to {self.train_rows} labels of {self.train_groups} {what}, "
            f"judged on {self.test_rows} of {self.test_groups} others"
        )


@dataclass(frozen=True, eq=False, slots=True)
class Probed:
    """Probes of every Site. Print it, or show it in a notebook; `probed["L5.resid_post"]` is the score of one."""

    scores: tuple[SiteScore, ...]
    probes: Mapping[Site, SiteProbes] = field(repr=False)
    """By Site, with a site axis of one: `.logits(x)` for rows x of (1, row, d)."""
    classes: tuple[str, ...]
    sizes: SplitSizes
    shapes: Mapping[Site, tuple[int, ...]] = field(repr=False)
    """The axes of a row: (d_model,), or (head, d_head)."""
    hidden: int | None = None
    dtype: torch.dtype = torch.float32
    """Of the model, and so of directions."""

    def __repr__(self) -> str:
        return f"Probed({len(self.scores)} sites, {len(self.classes)} classes, {self.sizes})"

    def __str__(self) -> str:
        lines = [repr(self), f"  {'site':<20} accuracy  shuffled  commonest" + "  untrained" * self._has_null]
        for each in sorted(self.scores, key=lambda score: -score.accuracy)[:10]:
            null = "" if each.untrained is None else f"  {each.untrained:9.3f}"
            lines.append(f"  {each.site!s:<20} {each.accuracy:8.3f}  {each.shuffled:8.3f}  {each.majority:9.3f}{null}")
        return "\n".join(lines)

    def __getitem__(self, site: SiteLike) -> SiteScore:
        found = next((each for each in self.scores if each.site == as_site(site)), None)
        if found is None:
            known = ", ".join(str(each.site) for each in self.scores)
            raise UnknownSite(f"No probe was fitted at {site}. There are {known}.")
        return found

    @property
    def best(self) -> SiteScore:
        """That of the largest accuracy on the test rows, the first of equals. Chosen on what judges it."""
        return max(self.scores, key=lambda each: each.accuracy)

    @property
    def _has_null(self) -> bool:
        return self.scores[0].untrained is not None

    def interval(self, score: SiteScore) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy, as of so many trials as there are test texts or groups."""
        n = self.sizes.test_groups
        found = share(round(score.accuracy * n), n)
        return min(found.low, score.accuracy), max(found.high, score.accuracy)

    def directions(self, site: SiteLike) -> dict[str, Float[Tensor, "*item_and_axes"]]:
        """For each class a direction of length 1: towards the class, from the mean of all.

        In the Site's axes and the model's dtype; of several items (item, ...). Add a multiple of one:
        `mg.add(site, 8 * probed.directions(site)["sad"])`.
        Raises BadShape for probes with a hidden layer, UnknownSite.
        """
        own = self[site].site
        if self.hidden is not None:
            raise BadShape(f"Directions at {own} were asked for; its probe has a hidden layer. Fit it without one.")
        weight = self.probes[own].directions[0].permute(2, 1, 0)  # class item d
        away = weight - weight.mean(0)
        unit = away / away.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        unit = unit[:, 0] if unit.shape[1] == 1 else unit
        return dict(zip(self.classes, unit.unflatten(-1, self.shapes[own]).to(self.dtype).unbind(0), strict=True))

    def rows(self) -> list[dict[str, Any]]:
        """A row a Site, in the order in which they were asked for."""
        return [self._row(each) for each in self.scores]

    def _row(self, each: SiteScore) -> dict[str, Any]:
        low, high = self.interval(each)
        row: dict[str, Any] = {"site": str(each.site), "accuracy": each.accuracy, "low": low, "high": high}
        row |= {name: getattr(each, name) for name in ("balanced", "majority", "shuffled", "selectivity", "train")}
        row["shuffled_train"] = each.shuffled_train
        return row if each.untrained is None else {**row, "untrained": each.untrained}

    def figures(self) -> list[Figure]:
        """Accuracy by layer for each kind of Site, the table, and the confusions of the best Site."""
        kinds = dict.fromkeys((each.site.kind, each.site.dictionary, each.site.part) for each in self.scores)
        pictures = [self._by_layer(kind) for kind in kinds]
        return [*(each for each in pictures if each is not None), self._table(), *self._confusions()]

    def _by_layer(self, kind: tuple[str, str, str]) -> Figure | None:
        own = [each for each in self.scores if (each.site.kind, each.site.dictionary, each.site.part) == kind]
        own = sorted((each for each in own if each.site.layer is not None), key=lambda each: each.site.layer or 0)
        if len(own) < 2:
            return None
        series = {"accuracy": [each.accuracy for each in own], "shuffled labels": [each.shuffled for each in own]}
        series["commonest class"] = [each.majority for each in own]
        if self._has_null:
            series["without training"] = [each.untrained or 0.0 for each in own]
        bounds = np.full((2, len(series), len(own)), np.nan)
        bounds[:, 0] = np.array([self.interval(each) for each in own]).T
        name = "-".join(filter(None, kind))
        return figures.lines(
            f"accuracy-{name}",
            f"What probes read off {kind_title(kind[0])}" + f" ({kind[1]} {kind[2]})" * bool(kind[1]),
            [each.site.layer for each in own],
            np.array(list(series.values())),
            names=list(series),
            low=bounds[0],
            high=bounds[1],
            highlight=[0],
            x_label="layer",
            y_label="accuracy on test texts",
            caption=f"Probes {self.sizes}. What is read may be unused by the model.",
            group="In pictures",
        )

    def _table(self) -> Figure:
        cells = [
            {**row, "accuracy": {"low": row["low"], "high": row["high"], "value": row["accuracy"]}}
            for row in sorted(self.rows(), key=lambda row: -row["accuracy"])
        ]
        columns = {"site": "site", "accuracy": "accuracy", "shuffled": "shuffled labels"}
        columns |= {"selectivity": "selectivity", "majority": "commonest class"}
        columns |= {"untrained": "without training"} if self._has_null else {}
        columns |= {"train": "on its own texts"}
        return figures.table(
            "probes",
            TITLE,
            cells,
            columns=columns,
            caption=f"Accuracy with its 95 % interval, best first. Probes {self.sizes}. Selectivity: accuracy less "
            "that with shuffled labels.",
            group=TITLE,
            headline=True,
        )

    def _confusions(self) -> list[Figure]:
        if len(self.classes) > MOST_CLASSES:
            return []
        counts = self.best.counts.sum(0)
        shares = (counts.double() / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
        return [
            figures.heatmap(
                "confusions",
                f"What is taken for what at {self.best.site}",
                shares,
                x=list(self.classes),
                y=list(self.classes),
                texts=[[[str(n) for n in row] for row in counts.tolist()]],
                value="share of the true class",
                x_label="said",
                y_label="true",
                caption="Test rows by their class and what the probe said; each row of the picture adds to 1.",
                group="In pictures",
            )
        ]
