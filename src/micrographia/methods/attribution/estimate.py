"""Shared by all attribution methods: the Sites to score, and scores as Effects.

`mode` is the direction of patching: "denoise" puts the clean run's values into the corrupt run, "noise" the corrupt
run's into the clean one; a score estimates the change of the metric if that place alone were patched in this way.
Source of the two modes: Heimersheim and Nanda, "How to use and interpret activation patching" (2024), section 2.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from torch import Tensor

from micrographia.core.effects import Effects, axes_of_scores
from micrographia.core.errors import UserError
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, position_names
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.titles import Mode
from micrographia.methods.attribution.passes import Passes, RunMetrics, Sides


def estimated(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    mode: Mode,
    method: str,
    scores: Mapping[Site, Tensor],
    values: RunMetrics,
    n_passes: Passes,
    *,
    summed: bool = False,
    notes: Sequence[str] = (),
    gives: Literal["effect", "size"] = "effect",
) -> Effects:
    """Scores by Site as Effects. `summed`: over positions, whose axes are dropped.

    Scores: residual kinds (prompt, pos); q, k, v, z, result (prompt, pos, head); neurons and latents (prompt, pos,
    unit); scores and pattern (prompt, head, query, key).
    """
    clean, corrupt = (values.donor, values.base) if mode == "denoise" else (values.base, values.donor)
    return Effects(
        mode=mode,
        method=method,
        scores=dict(scores),
        axes={site: axes_of_scores(site, summed=summed) for site in scores},
        clean=clean,
        corrupt=corrupt,
        metric=metric.name,
        unit=metric.unit,
        gives=gives,
        n_passes=n_passes,
        notes=tuple(notes),
        positions=() if summed else tuple(position_names(pairs, model.tokenizer)),
    )


def sides_of(pairs: Pairs, mode: Mode) -> Sides:
    return Sides(pairs.donor(mode), pairs.base(mode))


def chosen_sites(model: Model, wanted: SiteLike | Iterable[SiteLike]) -> tuple[Site, ...]:
    """The Sites to score. Raises UserError for none, UnknownSite."""
    sites = select(model.sites, wanted)
    if not sites:
        raise UserError("An attribution of no Site was asked for. Name some, such as 'L*.z'.")
    return sites
