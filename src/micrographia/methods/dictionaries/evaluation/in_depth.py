"""What else Gemma Scope's report asks of a dictionary: where in a row, on which text and on which of its sources it
costs loss, what fewer bits cost, and how evenly its active latents matter.

Source: Lieberum et al. (2408.05147), "Gemma Scope". The parts are in `by_group`, `precision` and `importance`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core import figures
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.model import Model
from micrographia.core.tokens import ids_of
from micrographia.methods.dictionaries.evaluation.by_group import ByGroup, by_position
from micrographia.methods.dictionaries.evaluation.importance import Uniformity, uniformity
from micrographia.methods.dictionaries.evaluation.moments import Variance
from micrographia.methods.dictionaries.evaluation.precision import PRECISIONS, in_precision
from micrographia.methods.dictionaries.evaluation.reading import (
    Counted,
    ReadWrite,
    activity_of_rows,
    n_rows,
    rows_between,
)
from micrographia.methods.dictionaries.evaluation.spliced import MEAN, Spliced, splice_losses

OWN = PRECISIONS[0]
FEWEST = 500
"""Tokens of a source below which its loss is not spoken of. Our choice."""
PRECISION_COLUMNS = {
    "name": "precision", "fvu": "FVU", "delta_loss": "delta loss", "delta_loss_error": "its error", "kl": "KL",
    "recovered_mean": "loss recovered (mean)",
}  # fmt: skip
TEXT_COLUMNS = {
    "name": "text", "clean_loss": "clean loss", "delta_loss": "delta loss", "delta_loss_error": "its error",
    "fvu": "FVU", "recovered_mean": "loss recovered (mean)",
}  # fmt: skip


class InDepth(NamedTuple):
    """Of one dictionary, on the rows that were given."""

    positions: ByGroup
    texts: Mapping[str, Spliced]
    """The losses on each text: on the first, that of all else, in each of `PRECISIONS`; on the others in the first."""
    evenness: Uniformity
    sources: ByGroup | None = None
    """Of the first text, where it has several."""

    def by_precision(self) -> list[dict[str, Any]]:
        """A row for each precision. `fvu`: on these rows, beside the mean that was given."""
        spliced = next(iter(self.texts.values()))
        return [_row(spliced, name) for name in PRECISIONS]

    def by_text(self) -> list[dict[str, Any]]:
        """A row for each text; `fvu` is beside the same mean on all."""
        return [
            _row(each, OWN) | {"name": name, "clean_loss": each.clean_loss, "predictions": each.n_tokens}
            for name, each in self.texts.items()
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "by_position": self.positions.rows(OWN),
            "by_source": [] if self.sources is None else self.sources.rows(OWN),
            "by_text": self.by_text(),
            "by_precision": self.by_precision(),
            "evenness": self.evenness.mean,
        }

    def figures(self, group: str = "In depth") -> list[Figure]:
        """Delta loss by position and text, the table of precisions, and how evenly latents matter."""
        shown = {OWN: "dictionary", MEAN: MEAN}
        about: dict[str, Any] = {"group": group}
        texts = figures.table("by-text", "By text", self.by_text(), columns=TEXT_COLUMNS, **about)
        return [
            self.positions.figure("by-position", "By position in the row", shown, **about),
            *([] if self.sources is None else [self._by_source(self.sources, shown, about)]),
            *([texts] if len(self.texts) > 1 else []),
            figures.table(
                "by-precision", "In fewer bits", self.by_precision(), columns=PRECISION_COLUMNS, **about,
                caption="bfloat16: weights and arithmetic. int8: weights, rounded for each latent.",
            ),
            *([self._histogram(about)] if len(self.evenness.ratio) else []),
        ]  # fmt: skip

    def _by_source(self, sources: ByGroup, shown: Mapping[str, str], about: Mapping[str, str]) -> Figure:
        caption = "The sources of the most tokens, the largest first, with how many tokens they have here."
        return sources.figure("by-source", "By source of the text", shown, sizes=True, caption=caption, **about)

    def _histogram(self, about: Mapping[str, str]) -> Figure:
        return figures.histogram(
            "evenness", "How evenly active latents matter", self.evenness.ratio.numpy(), bins=40,
            x_label="exp(entropy of importance) / active latents", y_label="tokens", **about,
            caption=f"1: all that are active at a token matter equally to the loss. Mean {self.evenness.mean:.2f}.",
        )  # fmt: skip

    def _costly_source(self) -> str:
        rows = [] if self.sources is None else self.sources.rows(OWN)
        rows = [row for row in rows if row["tokens"] >= FEWEST]
        if len(rows) < 2:
            return ""
        least, most = min(rows, key=_cost), max(rows, key=_cost)
        return (
            f" Of the text's sources it costs most on {most['name']} ({_cost(most):.3g}), least on {least['name']} "
            f"({_cost(least):.3g})."
        )

    def _evenness(self) -> str:
        if not len(self.evenness.ratio):
            return "No token has two active latents, whose importance could be compared."
        return (
            f"The importance of its active latents is spread as if {self.evenness.mean:.0%} of them mattered equally "
            "and the others not at all."
        )

    def sentence(self) -> str:
        """The findings in words."""
        rows = {row["name"]: row for row in self.by_precision()}
        said = [f"{name} {rows[name]['delta_loss'] - rows[OWN]['delta_loss']:+.2g}" for name in PRECISIONS[1:]]
        worst = max(self.positions.rows(OWN), key=lambda row: row["delta_loss"])
        costly = max(self.by_text(), key=lambda row: row["delta_loss"])
        text = f" Of the texts it costs most on {costly['name']} ({costly['delta_loss']:.3g})." * (len(self.texts) > 1)
        return (
            f"Spliced in, it costs most at positions {worst['name']} of a row ({worst['delta_loss']:.3g} nats).{text}"
            f"{self._costly_source()} "
            f"Fewer bits change its loss: {', '.join(said)} nats. {self._evenness()}"
        )


def _cost(row: Mapping[str, Any]) -> float:
    return row["delta_loss"]


def _row(spliced: Spliced, name: str) -> dict[str, Any]:
    effects = spliced.effects
    return spliced.of(name)._asdict() | {"fvu": effects[name].squares.value / effects[MEAN].squares.value}


def in_depth(
    dictionary: Dictionary,
    model: Model,
    place: ReadWrite,
    rows: Any,
    counted: Counted,
    mean: Float[Tensor, "d_out"] | None = None,
    *,
    text: str = "text",
    others: Mapping[str, Any] = MappingProxyType({}),
    sources: ByGroup | None = None,
    watch: Watch = silent,
) -> InDepth:
    """One dictionary on rows of tokens, called `text`; `others` are rows of further texts, of which the loss is told.

    `sources`: groups of the rows' tokens by where they are from (`by_group.by_source`).

    `mean` is what mean ablation writes, by default that of the rows. Cost: two runs of the rows, one with its backward
    pass, and one of the layers from the written Site on for each of three precisions and two ablations; of other rows
    one and these three. Raises what `splice_losses` raises.
    """
    positions = by_position(n_rows(rows), ids_of(rows_between(rows, 0, 1)).shape[1])

    def see(*told: Any) -> None:
        for each in (positions, sources):
            if each is not None:
                each.see(*told)

    if mean is None:
        variance = Variance()
        for each in activity_of_rows(model, place, rows, counted, watch=watch):
            variance.add(each.y.flatten(1))
        mean = variance.mean
    with torch.no_grad():
        written = {name: in_precision(dictionary, name) for name in PRECISIONS}
        spliced = splice_losses(model, place, rows, written, mean, counted, see=see, watch=watch)
        own = {OWN: written[OWN]}
        there = {
            name: splice_losses(model, place, each, own, mean, counted, watch=watch) for name, each in others.items()
        }
    evenness = uniformity(dictionary, model, place, rows, counted, watch=watch)
    return InDepth(positions, {text: spliced, **there}, evenness, sources)
