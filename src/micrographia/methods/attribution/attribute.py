"""`attribute`: attribution by any method, by name; `Best`: holds only the top-k places by score.

`METHODS` is the table of methods. Pairs are processed in groups, so that only one group's graph is in memory. Prompts
are independent, so scores are the same to rounding. On a CPU a group has by default about `GRAPH` bytes of saved
activations; for small models that is all pairs. Each group reads every weight once, so small groups are slow: GPT-2
small takes 30 % longer with 60 tokens per group than with 120, which need half as much memory again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from micrographia.core.edits import Edit
from micrographia.core.effects import Effects, axes_of_scores
from micrographia.core.errors import UserError
from micrographia.core.events import Note, Watch, silent
from micrographia.core.gradients import with_gradients
from micrographia.core.metrics import Metric
from micrographia.core.model import Model, ModelShape
from micrographia.core.prompts import Pairs, check_aligned, position_names
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.sweep import Place
from micrographia.core.titles import Mode
from micrographia.core.tokens import Inputs, ids_of
from micrographia.methods.attribution.atp import atp_star, attribution_patching, attribution_patching_with_qk_fix
from micrographia.methods.attribution.estimation import Estimation, Positions, Scored, place
from micrographia.methods.attribution.ig import activation_gradients, integrated_gradients
from micrographia.methods.attribution.relp import relevance_patching

GRAPH = 104 * 2**20  # bytes; GPT-2 small: 123 tokens
FEWEST = 32  # tokens in a group: with fewer, reading the weights takes longer than the computation


class Method(NamedTuple):
    """An attribution method: its cost in passes over the model, and its function. Titles: `core.titles.METHODS`."""

    passes: str
    run: Callable[..., Scored]


METHODS: Mapping[str, Method] = {
    "atp": Method("2 forward, 1 backward", attribution_patching),
    "atp-qk": Method("2 forward, 1 backward", attribution_patching_with_qk_fix),
    "atp-star": Method("2 forward, n_layers + 1 backward", atp_star),
    "ig": Method("steps + 2 forward, steps backward", integrated_gradients),
    "ig-activation": Method(
        "steps x sites + 3 forward, steps x sites backward",
        activation_gradients,
    ),
    "relp": Method("2 forward, 1 backward", relevance_patching),
}


@with_gradients
def attribute(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    sites: SiteLike | Iterable[SiteLike],
    *,
    mode: Mode = "denoise",
    method: str = "atp",
    positions: Positions = "each",
    edits: Sequence[Edit] = (),
    prompts_at_once: int | None = None,
    watch: Watch = silent,
    **choices: Any,
) -> Effects:
    """Estimates, for every place of these Sites, the change of the metric if that place alone were patched.

    In the metric's unit, per prompt. `positions` "sum" sums scores over positions. `edits` apply to both runs (a
    `splice`, to score a dictionary's latents). `choices` go to the method, whose docstring gives cost, memory and
    source. The model runs with its fused kernels, where it has any. Pairs are processed `prompts_at_once` at a time, by
    default as many as keep the graph small (`at_once`); all at once with `edits`, which may name rows, or with
    `on_score`.
    Raises UserError for an unknown method, no Site, a metric without gradient, or groups together with `on_score` or
    `edits`; UnknownSite; BadPrompt for pairs that do not line up. Where CUDA runs out of memory, groups are halved and
    a Note says so.
    """
    if method not in METHODS:
        raise UserError(f"Attribution by {method!r} was asked for; there are {', '.join(METHODS)}. Choose one.")
    check_aligned(pairs, model.tokenizer)
    wanted = select(model.sites, sites)
    if not wanted:
        raise UserError("An attribution of no Site was asked for. Name some, such as 'L*.z'.")
    whole = [name for name, given in {"edits": edits, "on_score": choices.get("on_score")}.items() if given]
    if whole and prompts_at_once is not None:
        raise UserError(
            f"Groups of {prompts_at_once} pairs were asked for with {whole[0]!r}, which needs all pairs at once. Leave "
            "one out."
        )
    n_at_once = len(pairs) if whole else prompts_at_once or at_once(model.shape, pairs.clean)

    def explain(some: Pairs, metric: Metric) -> Effects:
        estimation = Estimation(model.fused, some, metric, wanted, mode, positions, edits)
        return _effects(estimation, method, METHODS[method].run(estimation, **choices))

    while True:
        try:
            found = in_groups(explain, pairs, metric, n_at_once)
            return found if positions == "sum" else found.named(position_names(pairs, model.tokenizer))
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            if whole or n_at_once == 1:
                raise UserError(
                    f"Attribution of {n_at_once} pairs of {ids_of(pairs.clean).shape[1]} tokens at once does not fit "
                    "into memory. Give fewer or shorter prompts, or checkpoints=True where the method has it."
                ) from error
            n_at_once = -(-min(n_at_once, len(pairs)) // 2)
            watch(Note(f"Out of memory; going on with {n_at_once} pairs at once.", "warning"))


def _effects(estimation: Estimation, method: str, scored: Scored) -> Effects:
    clean, corrupt = scored.metrics if estimation.mode == "denoise" else scored.metrics[::-1]
    summed = estimation.positions == "sum"
    return Effects(
        mode=estimation.mode,
        method=method,
        scores=scored.scores,
        axes={site: axes_of_scores(site, summed=summed) for site in scored.scores},
        clean=clean,
        corrupt=corrupt,
        metric=estimation.metric.name,
        unit=estimation.metric.unit,
        gives=scored.gives,
        n_passes=scored.n_passes,
        notes=scored.notes,
        group=estimation.model.shape.group,
    )


def at_once(shape: ModelShape, inputs: Inputs) -> int:
    """The default number of pairs in a group: all on a GPU."""
    ids = ids_of(inputs)
    if ids.device.type != "cpu":
        return len(ids)
    tokens = max(FEWEST, GRAPH // saved_bytes(shape))
    return min(len(ids), max(1, tokens // ids.shape[1]))


def saved_bytes(shape: ModelShape) -> int:
    """About the bytes per token that the graph saves and readers hold: an activation function with or without a gate,
    two norms, queries, keys, values and outputs, in float32.
    """
    return 4 * shape.n_layers * (3 * shape.d_mlp + 12 * shape.d_model)


def in_groups(explain: Callable[[Pairs, Metric], Effects], pairs: Pairs, metric: Metric, n_at_once: int) -> Effects:
    """One attribution of all pairs, from groups of at most `n_at_once`, as even as possible."""
    if n_at_once >= len(pairs):
        return explain(pairs, metric)
    rows = torch.arange(len(pairs), device=ids_of(pairs.clean).device)
    groups = rows.tensor_split(-(-len(pairs) // n_at_once))
    return joined([explain(pairs.rows(group), metric_of_rows(metric, group)) for group in groups])


def joined(parts: list[Effects]) -> Effects:
    """Concatenate along the prompts."""
    first = parts[0]
    scores = {site: torch.cat([part.scores.pop(site) for part in parts]) for site in list(first.scores)}
    clean, corrupt = (torch.cat([getattr(part, side) for part in parts]) for side in ("clean", "corrupt"))
    return replace(first, scores=scores, clean=clean, corrupt=corrupt)


def metric_of_rows(metric: Metric, rows: Tensor) -> Metric:
    """The metric of these prompts only, renumbered from 0."""
    columns = None if metric.columns is None else metric.columns[rows.to(metric.columns.device)]

    def score(logits: Tensor, prompt: Tensor) -> Tensor:
        return metric.score(logits, rows.to(prompt.device)[prompt])

    return Metric(metric.name, metric.unit, score, columns, metric.pos)


class Best:
    """Takes scores Site by Site and keeps the top `k` places by absolute mean over prompts.

    Given as `on_score` to `attribute`, for sweeps too large to store, such as all neurons of a large model: scores are
    used as the backward pass makes them. The method must produce its scores once: "atp", "atp-qk" or "relp".
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._found: list[tuple[float, Place]] = []
        self.n_scored = 0
        self.n_without_number = 0

    def __call__(self, site: Site, score: Tensor) -> None:
        means = score.mean(0)
        self.n_scored += means.numel()
        self.n_without_number += int((~means.isfinite()).sum())
        means = torch.where(means.isfinite(), means, 0.0)
        values, where = means.abs().flatten().topk(min(self._k, means.numel()))
        floor = abs(self._found[-1][0]) if len(self._found) == self._k else -1.0
        for i in where[values > floor].tolist():
            cell = [int(x) for x in np.unravel_index(i, means.shape)]
            self._found.append((float(means[tuple(cell)]), place(site, score, cell)))
        self._found = sorted(self._found, key=lambda each: -abs(each[0]))[: self._k]

    @property
    def found(self) -> list[tuple[Place, float]]:
        """The top places with their mean scores, largest first."""
        return [(where, value) for value, where in self._found]
