"""How much of a known truth a dictionary has found: features matched to latents, and whether they fire together.

Each feature is matched with one latent so that the sum of decoder cosines is largest (the Hungarian algorithm; Kuhn
1955). MCC is the mean of the matched cosines over all features that could be matched, so that missing features count;
MMCS is the mean over features of the best cosine, in which one latent may serve many. F1 is that of the matched latent
as a detector of its feature. Random directions, as many, are the null of both cosines.
Source of the measures: Sharkey et al. (2022); SynthSAEBench for F1 and uniqueness. Axes: latent feature d row.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from micrographia.core import figures
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import BadShape, UserError
from micrographia.core.figures import Figure
from micrographia.methods.dictionaries.evaluation.metrics import measure
from micrographia.methods.dictionaries.evaluation.reading import coded
from micrographia.methods.dictionaries.evaluation.synthetic import Mixture, Superposition

NEAR = 0.1
"""Share by which an L0 may differ from the one at which dictionaries are compared."""


class Matching(NamedTuple):
    """A latent for each of the matched features, one to one, and their cosines."""

    features: Int[Tensor, "pair"]
    latents: Int[Tensor, "pair"]
    cosines: Float[Tensor, "pair"]


class GroundTruth(NamedTuple):
    """What was recovered. All between 0 and 1, 1 the truth itself."""

    mcc: float
    """Mean cosine of matched pairs; fewer latents than features leave the rest at 0."""
    mmcs: float
    """Mean over features of the largest cosine with any latent."""
    mcc_random: float
    """The MCC of as many random directions."""
    mmcs_random: float
    f1: float
    """Mean F1 of the matched latents' firing, over features that fired; unmatched ones count 0."""
    precision: float
    recall: float
    uniqueness: float
    """Distinct features among the nearest of each latent, over the largest number that there could be."""
    l0: float
    fvu: float
    dead_share: float


def matched(
    decoder: Float[Tensor, "latent d"], directions: Float[Tensor, "feature d"]
) -> tuple[Matching, Float[Tensor, "latent feature"]]:
    """The best one-to-one matching, and all cosines. Cost about min(n, m)^2 max(n, m)."""
    cosines = _unit(decoder.double()) @ _unit(directions.double()).T
    latents, features = (torch.from_numpy(i) for i in linear_sum_assignment(cosines.numpy(), maximize=True))
    return Matching(features, latents, cosines[latents, features]), cosines


def recovered(
    dictionary: Dictionary, world: Superposition, mixtures: Sequence[Mixture], generator: Generator
) -> GroundTruth:
    """A dictionary against the features of its world, on rows drawn from it. Raises BadShape, UserError.

    Cost: encoding the rows, and the matching: seconds for 4,096 latents and 16,384 features.
    """
    if dictionary.d_out != world.d:
        raise BadShape(
            f"A dictionary of {dictionary.d_out} outputs was held against features in {world.d} dimensions. Train it "
            "on this world's activations."
        )
    if not mixtures:
        raise UserError("Asked to compare a dictionary with its world on no rows. Draw some: world.draw(n, generator).")
    decoder = dictionary.weights.W_dec.cpu().float()
    matching, cosines = matched(decoder, world.directions)
    null, null_cosines = matched(torch.randn(tuple(decoder.shape), generator=generator), world.directions)
    precision, recall, f1 = _firing(dictionary, matching, mixtures)
    fires = torch.stack([(each.features > 0).any(0) for each in mixtures]).any(0)
    metrics = measure(dictionary, [each.x for each in mixtures], linear=False)
    n, live = world.n_features, metrics.firing.counts > 0
    nearest = cosines[live].argmax(1).unique() if bool(live.any()) else torch.zeros(0)
    scored = fires[matching.features]

    def over_all(values: Tensor) -> float:
        return float(values[scored].sum() / max(int(fires.sum()), 1))

    return GroundTruth(
        mcc=float(matching.cosines.sum()) / n,
        mmcs=float(cosines.amax(0).mean()),
        mcc_random=float(null.cosines.sum()) / n,
        mmcs_random=float(null_cosines.amax(0).mean()),
        f1=over_all(f1),
        precision=over_all(precision),
        recall=over_all(recall),
        uniqueness=len(nearest) / min(max(int(live.sum()), 1), n),
        l0=metrics.l0,
        fvu=metrics.fvu,
        dead_share=metrics.firing.dead_share,
    )


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def _firing(dictionary: Dictionary, matching: Matching, mixtures: Sequence[Mixture]) -> tuple[Tensor, Tensor, Tensor]:
    """Precision, recall and F1 of each matched pair; 0 where there is nothing to divide by."""
    both = latent = feature = torch.zeros(len(matching.features), dtype=torch.float64)
    for each in mixtures:
        for piece in coded(dictionary, each.x):
            on = piece.latents[:, matching.latents.to(piece.latents.device)].cpu() > 0
            true = each.features[piece.piece][:, matching.features] > 0
            both = both + (on & true).sum(0)
            latent, feature = latent + on.sum(0), feature + true.sum(0)
    precision, recall = both / latent.clamp(min=1), both / feature.clamp(min=1)
    return precision, recall, 2 * both / (latent + feature).clamp(min=1)


class ComparedKind(NamedTuple):
    """One kind of dictionary at the L0 of the comparison: measured near it, or interpolated between two."""

    kind: str
    how: str
    values: dict[str, float] | None
    """None where no L0 is near and none are on both sides."""


def at_equal_l0(
    found: Mapping[str, Sequence[GroundTruth]], l0: float, *, near: float = NEAR
) -> tuple[list[ComparedKind], Figure]:
    """Dictionaries of all kinds at one L0, as a table. `found`: kind -> what each of its dictionaries recovered.

    A dictionary within a share `near` of the L0 counts as it is; else figures are interpolated, linearly in log L0,
    between the nearest below and above. Nothing is extrapolated: such a kind says so and has no figures.
    """
    compared = [_at(kind, sorted(each, key=lambda one: one.l0), l0, near) for kind, each in found.items()]
    rows: list[dict[str, Any]] = [{"kind": each.kind, "how": each.how, **(each.values or {})} for each in compared]
    table = figures.table(
        "known-features", f"Known features found, at L0 {l0:g}", rows, group="Dictionary",
        caption="MCC and MMCS are read beside those of random directions; 1 is the truth.",
    )  # fmt: skip
    return compared, table


def compare_kinds(
    dictionaries: Mapping[str, Sequence[Dictionary]],
    world: Superposition,
    *,
    generator: Generator,
    l0: float | None = None,
    n_rows: int = 20_000,
    at_once: int = 2000,
) -> tuple[list[ComparedKind], Figure]:
    """Trained dictionaries of all kinds against the features of their world, on the same fresh rows, at one L0.

    `l0`: None for the truth's own, the mean number of features in a row. Cost: as `recovered`, for each dictionary.
    """
    mixtures = [world.draw(min(at_once, n_rows - i), generator) for i in range(0, n_rows, at_once)]
    found = {kind: [recovered(each, world, mixtures, generator) for each in own] for kind, own in dictionaries.items()}
    return at_equal_l0(found, world.mean_active if l0 is None else l0)


def _at(kind: str, ordered: Sequence[GroundTruth], l0: float, near: float) -> ComparedKind:
    ordered = [each for each in ordered if each.l0 > 0]
    closest = min(ordered, key=lambda each: abs(each.l0 - l0), default=None)
    if closest is None:
        return ComparedKind(kind, "never fires", None)
    if abs(closest.l0 - l0) <= near * l0:
        return ComparedKind(kind, f"measured at {closest.l0:.3g}", dict(closest._asdict()))
    below, above = ([each for each in ordered if side * (each.l0 - l0) > 0] for side in (-1, 1))
    if not below or not above:
        return ComparedKind(kind, f"not at this L0: has {', '.join(f'{each.l0:.3g}' for each in ordered)}", None)
    a, b = below[-1], above[0]
    t = float(np.log(l0 / a.l0) / np.log(b.l0 / a.l0))
    values = {name: (1 - t) * x + t * getattr(b, name) for name, x in a._asdict().items()}
    return ComparedKind(kind, f"between {a.l0:.3g} and {b.l0:.3g}", {**values, "l0": l0})
