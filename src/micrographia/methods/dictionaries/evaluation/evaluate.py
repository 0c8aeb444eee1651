"""evaluate: a dictionary in its model on text, as one table: fidelity, sparsity, spliced loss, and baselines beside.

Two passes over the rows: the first reads activations and stops at the Site, the second runs to the logits with each
replacement. Neither holds more than a block. What each figure means stands beside it; explained variance is given in
every definition that has its name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from micrographia.core import figures
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import UserError
from micrographia.core.events import Note, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.model import Model
from micrographia.core.sites import SiteLike
from micrographia.methods.dictionaries.evaluation.baselines import random_dictionary
from micrographia.methods.dictionaries.evaluation.explained import DEFINITIONS
from micrographia.methods.dictionaries.evaluation.metrics import DictionaryMetrics, measure
from micrographia.methods.dictionaries.evaluation.reading import (
    Activity,
    Counted,
    OnNaN,
    ReadWrite,
    activity_of_rows,
    counted_by,
    n_rows,
    outputs_of,
    place_for,
    rows_between,
)
from micrographia.methods.dictionaries.evaluation.spliced import (
    MEAN,
    ZERO,
    Replacement,
    Spliced,
    splice_losses,
)

SAMPLE = 2048
"""Tokens on which the random dictionary's gain is fitted."""
LINEAR, RANDOM, OURS = "best linear map at equal L0", "random directions at equal L0", "dictionary"
FEW_PER_LATENT = 10
"""Tokens for each latent below which dead latents cannot be told from rare ones."""

MEANINGS: dict[str, tuple[str, str]] = {
    "tokens": ("tokens that count", ""),
    "l0": ("L0", "mean number of latents that fire at a token"),
    "l0_median": ("L0, median", ""),
    "l0_90th": ("L0, 90th percentile", ""),
    "l1": ("L1", "sum of the sizes of the latents, mean over tokens"),
    "dead_share": ("dead latents", "share that never fired on these tokens"),
    "rare_share": ("rare latents", "share that fired at fewer than 1 in 10,000 tokens"),
    "frequent_share_0.01": ("latents firing at > 1 %", "share of latents"),
    "frequent_share_0.1": ("latents firing at > 10 %", "share of latents"),
    "tokens_per_firing_row": (
        "tokens per firing row",
        "firing tokens in a row that a latent fires in, mean over latents",
    ),
    "mse": ("MSE", "E||x - x̂||², summed over dimensions"),
    "fvu": ("FVU", "E||x - x̂||² / E||x - E x||², over all tokens"),
    "explained_variance": ("explained variance", "1 - FVU"),
    "cosine": ("cosine", "of x and x̂, mean over tokens"),
    "l2_ratio": ("l2 ratio", "||x̂|| / ||x||, mean over tokens"),
    "relative_bias": ("relative reconstruction bias", "E||x̂||² / E[x . x̂]; below 1 is shrunk"),
    "encoder_decoder_cosine": ("encoder-decoder cosine", "mean over latents"),
    "max_decoder_cosine": ("max decoder cosine", "largest cosine with another decoder row, mean over rows"),
    "max_decoder_cosine_random": ("the same, random directions", "as many in as many dimensions"),
    "max_encoder_cosine": ("max encoder cosine", "as of decoder rows"),
    "decoder_norm": ("decoder norm", "mean over latents"),
    "encoder_norm": ("encoder norm", "mean over latents"),
    "encoder_bias": ("encoder bias", "mean over latents"),
    "n_compared": ("rows compared", "for the largest cosines"),
}


class MetricRow(NamedTuple):
    """A line of the table."""

    name: str
    value: float
    meaning: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a dictionary is worth. Prints as one table; `as_json` and `figures` hold the same."""

    dictionary: str
    place: ReadWrite | None
    metrics: DictionaryMetrics
    spliced: Spliced | None
    baselines: dict[str, float]
    """The FVU of each baseline."""
    notes: tuple[str, ...] = ()

    def measured(self) -> list[MetricRow]:
        values = self.metrics.values()
        return [MetricRow(name, values[key], meaning) for key, (name, meaning) in MEANINGS.items() if key in values]

    def comparison(self) -> list[dict[str, Any]]:
        """The dictionary beside its baselines: FVU, and what each does to the model."""
        fvu = {OURS: self.metrics.fvu, **self.baselines}
        effects = {} if self.spliced is None else {row["name"]: row for row in self.spliced.rows()}
        return [
            {"name": name, "fvu": fvu.get(name), **effects.get(name, {})} for name in dict.fromkeys([*fvu, *effects])
        ]

    def definitions(self) -> list[dict[str, Any]]:
        """Explained variance as each tool defines it."""
        found = self.metrics.explained
        return [
            {"name": name, "value": found[name], "of": each.who, "formula": each.formula, "note": each.note}
            for name, each in DEFINITIONS.items()
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "dictionary": self.dictionary,
            "place": None if self.place is None else str(self.place),
            "metrics": self.metrics.values(),
            "explained_variance": self.definitions(),
            "clean_loss": None if self.spliced is None else self.spliced.clean_loss,
            "predictions": None if self.spliced is None else self.spliced.n_tokens,
            "comparison": self.comparison(),
            "notes": list(self.notes),
        }

    def figures(self) -> list[Figure]:
        """The tables, and how often latents fire."""
        frequencies = self.metrics.firing.frequencies
        live = frequencies[frequencies > 0].log10().numpy()
        silent_ones = f"{int((frequencies == 0).sum())} of {len(frequencies)} never fired."
        about = {"group": "Dictionary"}
        return [
            figures.table(
                "dictionary-metrics", "What was measured", [row._asdict() for row in self.measured()],
                caption=" ".join(self.notes), headline=True, **about,
            ),
            figures.table(
                "dictionary-comparison", "Beside baselines", self.comparison(),
                caption="The same tokens for all. Loss recovered is a share of what zeros or the mean cost.", **about,
            ),
            figures.table(
                "explained-variance", "Explained variance, by definition", self.definitions(),
                caption="What goes by this name elsewhere, on the same tokens.", **about,
            ),
            figures.histogram(
                "latent-frequencies", "How often latents fire", live, x_label="log10 of the share of tokens",
                y_label="latents", caption=silent_ones, **about,
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        lines = [self.dictionary, *self.notes]
        lines += [f"  {row.name:<30} {_number(row.value):>12}  {row.meaning}" for row in self.measured()]
        others = [each for each in self.definitions() if each["name"] != "pooled"]
        lines += ["Explained variance elsewhere:"]
        lines += [f"  {each['of']:<48} {_number(each['value']):>10}  {each['formula']}" for each in others]
        rows = self.comparison()
        if self.spliced is not None:
            lines += [
                f"Spliced: clean loss {self.spliced.clean_loss:.4f} nats over {self.spliced.n_tokens} predictions"
            ]
        columns = {
            "fvu": "FVU", "delta_loss": "delta loss", "recovered_zero": "recovered (zero)",
            "recovered_mean": "recovered (mean)", "kl": "KL", "kl_score_zero": "KL score (zero)",
            "kl_score_mean": "KL score (mean)",
        }  # fmt: skip
        shown = {key: name for key, name in columns.items() if any(row.get(key) is not None for row in rows)}
        lines += [" " * 32 + "".join(f"{name:>18}" for name in shown.values())]
        lines += [f"  {row['name']:<30}" + "".join(f"{_number(row.get(key)):>18}" for key in shown) for row in rows]
        return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value % 1 == 0 and abs(value) >= 2 else f"{value:.4g}"


def evaluate(
    dictionary: Dictionary,
    model: Model,
    site: SiteLike | None = None,
    rows: Any = None,
    *,
    generator: Generator,
    target: SiteLike | None = None,
    counted: Counted | None = None,
    loss_rows: int | None = None,
    baselines: bool = True,
    on_nan: OnNaN = "stop",
    watch: Watch = silent,
) -> Evaluation:
    """A dictionary in its model, on rows of tokens (row, pos). `site`: None for the dictionary's own.

    `target`: where a transcoder writes. `counted`: which tokens count, by default all but position 0 and specials.
    `loss_rows`: how many rows the spliced losses are measured on, the first ones (None: all; 0: not at all, for a model
    without next-token logits). `generator` draws the
    random baselines.
    Cost: a run up to the Site; then a run of `loss_rows` and one of the layers from the Site on for each of five
    replacements (three without baselines). Memory does not grow with rows.
    Errors: UnknownSite; BadShape for a width that does not fit the Site; UserError for too few tokens, and NaN.
    """
    if rows is None:
        raise UserError("Asked to evaluate a dictionary on no rows of tokens. Give token ids (row, pos).")
    place = place_for(dictionary, model, site, target)
    counted = counted_by(model, rows) if counted is None else counted
    sample = _Sample()
    chunks = sample.of(activity_of_rows(model, place, rows, counted, watch=watch))
    metrics = measure(dictionary, chunks, on_nan=on_nan, linear=baselines, generator=generator, watch=watch)
    replacements, fvu = _replacements(dictionary, metrics, sample, generator, baselines)
    spliced = None
    if loss_rows != 0:
        some = rows if loss_rows is None else rows_between(rows, 0, min(loss_rows, n_rows(rows)))
        spliced = splice_losses(model, place, some, replacements, metrics.mean, counted, watch=watch)
    if spliced is not None and RANDOM in replacements:
        fvu[RANDOM] = spliced.effects[RANDOM].squares.value / spliced.effects[MEAN].squares.value
    fvu |= {MEAN: 1.0, ZERO: metrics.residuals.squares.value / metrics.residuals.target.total}
    notes = _notes(dictionary, metrics, place, counted, watch)
    return Evaluation(repr(dictionary), place, metrics, spliced, fvu, notes)


class _Sample:
    """The first tokens that pass by."""

    def __init__(self) -> None:
        self.x: list[Tensor] = []
        self.y: list[Tensor] = []

    def of(self, chunks: Iterator[Activity]) -> Iterator[Activity]:
        for each in chunks:
            if sum(map(len, self.x)) < SAMPLE:
                self.x.append(each.x[:SAMPLE].flatten(1))
                self.y.append(each.y[:SAMPLE].flatten(1))
            yield each

    @property
    def both(self) -> tuple[Tensor, Tensor]:
        return torch.cat(self.x), torch.cat(self.y)


def _replacements(
    dictionary: Dictionary, metrics: DictionaryMetrics, sample: _Sample, generator: Generator, baselines: bool
) -> tuple[dict[str, Replacement], dict[str, float]]:
    """What is written in each run, and the FVU of those whose is known."""
    found: dict[str, Replacement] = {OURS: lambda x, y: _output(dictionary, x).to(y)}
    if not baselines:
        return found, {}
    k, fvu = round(metrics.l0), dict[str, float]()
    if (linear := metrics.linear(k)) is not None:
        found[LINEAR], fvu[LINEAR] = lambda x, y: linear(x).to(y), linear.fvu
    x, y = sample.both
    good = x.isfinite().all(1) & y.isfinite().all(1).to(x.device)
    x, y = x[good], y[good.to(y.device)]
    random = random_dictionary(dictionary, k, x.double().mean(0), metrics.mean, (x, y), generator)
    found[RANDOM] = lambda x, y: outputs_of(random, x).to(y)
    return found, fvu


def _output(dictionary: Dictionary, x: Tensor) -> Tensor:
    """Of flat activations, whatever axes the dictionary reads."""
    return outputs_of(dictionary, x.unflatten(1, dictionary.form.axes) if dictionary.form.axes else x)


def _notes(
    dictionary: Dictionary, metrics: DictionaryMetrics, place: ReadWrite, counted: Counted, watch: Watch
) -> tuple[str, ...]:
    found = [f"At {place}, {metrics.n_tokens} tokens; {counted}. These keep their own activation when spliced."]
    if metrics.n_tokens < FEW_PER_LATENT * dictionary.n_latents:
        found.append(
            f"{metrics.n_tokens} tokens for {dictionary.n_latents} latents: one that fires at less than 1 token in "
            f"{metrics.n_tokens} looks dead."
        )
        watch(Note(found[-1], "warning"))
    return tuple(found)
