"""The figure of each published claim beside its null: Nanda (2023), in the order of the post.

Figures over the dictionaries of the published recipe are medians with their range. What could not be measured is NaN,
and its claim fails at its preset; what a preset does not train is not taken, and its claim is not run.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

from torch import Tensor

from micrographia.core.claims import Measured, Measures, over_networks
from micrographia.labs.dictionary.recipes import JUMPRELU, PROJECTED, RESAMPLED
from micrographia.methods.dictionaries.geometry.analysis import DictionaryGeometry
from micrographia.methods.dictionaries.geometry.figures import Analysed
from micrographia.methods.dictionaries.geometry.neuron_sparsity import null_share_by_chance
from micrographia.methods.dictionaries.geometry.rare import RARE, TwoClusters, compare

CLAIMS = Path(__file__).with_name("claims.toml")
FREQUENT = 1e-2
NOT_TAKEN = Measured(None, taken=False)
BETWEEN = "same-direction-in-another"
MAY_LACK = ("no-decoder-direction", BETWEEN)
"""What cannot be asked where no rare latents share a direction, or of one dictionary alone."""


def measures(analysed: Analysed, published: Sequence[str], W_out: Tensor) -> dict[str, Measured]:
    """Each claim's figure. `published` names the dictionaries of the published recipe."""
    seeds = [analysed[name] for name in published]
    return {
        **dict.fromkeys(MAY_LACK, NOT_TAKEN),
        **over_networks([of_one(each, analysed.get(RESAMPLED), W_out) for each in seeds]),
        **over_networks([{BETWEEN: Measured(two.directions, two.common)} for two in pairs(seeds).values()]),
        **of_variants(analysed, seeds),
    }


def of_one(a: DictionaryGeometry, resampled: DictionaryGeometry | None, W_out: Tensor) -> Measures:
    """One dictionary of the published recipe."""
    found, null, product = a.classes(), a.nulls.rotated, a.directions.projection
    chance = null_share_by_chance(W_out)
    common, rare = (median(product[chosen]) for chosen in (a.common, a.cluster.rare))
    aligned = a.cluster.aligned()
    return {
        "dense": Measured(found.dense, null.dense),
        "one-sparse": Measured(found.one, null.one),
        "ten-sparse": Measured(found.ten, null.ten),
        "privileged-basis": Measured(float(a.kurtosis.nanmean()), a.nulls.kurtosis_rotated),
        "read-by-the-model": Measured(float(a.in_null_space.nanmean()) - chance, chance),
        "rare-majority": Measured(a.cluster.share, None if resampled is None else resampled.cluster.share),
        "no-dead-latents": Measured(a.dead_share, None if resampled is None else resampled.dead_share),
        "one-encoder-direction": Measured(aligned, a.nulls.aligned_common),
        **({"no-decoder-direction": Measured(a.cluster.aligned(decoder=True), aligned)} if aligned > 0 else {}),
        "one-input-fires-all": Measured(float(a.fired.max()), float(a.fired.mean())),
        "rare-latents-idle": Measured(a.recovered - a.worth.zero[RARE], a.recovered - a.worth.zero[FREQUENT]),
        "healthy-latents-return": Measured(common, rare),
        "rare-latents-do-not": Measured(rare, common),
    }


def pairs(seeds: Sequence[DictionaryGeometry]) -> dict[tuple[str, str], TwoClusters]:
    """Each two of them by name, compared."""
    return {
        (a.name, b.name): compare(a.dictionary, b.dictionary, a.cluster, b.cluster) for a, b in combinations(seeds, 2)
    }


def of_variants(analysed: Analysed, seeds: Sequence[DictionaryGeometry]) -> dict[str, Measured]:
    """What is changed in the recipe, beside the first dictionary of it."""
    first = seeds[0]

    def variant(name: str, figures: Callable[[DictionaryGeometry], Measured]) -> Measured:
        return figures(analysed[name]) if name in analysed else NOT_TAKEN

    def without(name: str) -> Measured:
        return variant(name, lambda a: Measured(_shared(a), _shared(first))) if _shared(first) > 0 else NOT_TAKEN

    shares = [each.cluster.share for each in seeds]
    mean = sum(shares) / len(shares)
    return {
        "resampling-helps": variant(RESAMPLED, lambda a: Measured(mean - a.cluster.share, max(shares) - min(shares))),
        "projecting-out-ends-it": without(PROJECTED),
        "jumprelu-has-none": without(JUMPRELU),
    }


def _shared(a: DictionaryGeometry) -> float:
    """The share of rare latents along their mean; none where none are rare."""
    aligned = a.cluster.aligned()
    return 0.0 if math.isnan(aligned) else aligned


def median(values: Tensor) -> float:
    """NaN of none."""
    return float(values.double().nanmedian()) if len(values) else math.nan
