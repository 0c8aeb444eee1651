"""The lab's tables, as records: what `--json` prints and the figures show."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from micrographia.labs.dictionary.figures import between
from micrographia.labs.dictionary.measure import median, pairs
from micrographia.labs.dictionary.recipes import kind_of
from micrographia.methods.dictionaries.geometry.analysis import DictionaryGeometry
from micrographia.methods.dictionaries.geometry.figures import Analysed
from micrographia.methods.dictionaries.geometry.firing_together import Context

Records = list[dict[str, Any]]
COMMON_SHOWN, RARE_SHOWN = 8, 4


def tables(analysed: Analysed, published: Sequence[str]) -> dict[str, Records]:
    """Every table but that of the latents."""
    each = list(analysed.values())
    return {
        "dictionaries": [_recipe(a) for a in each],
        "neuron_sparsity": [row for a in each for row in _sparsity(a)],
        "rare_latents": [_cluster(a) for a in each],
        "between": between(pairs([analysed[name] for name in published])),
    }


def _recipe(a: DictionaryGeometry) -> dict[str, Any]:
    return {
        "name": a.name, "what": kind_of(a.name), "latents": a.dictionary.n_latents, "tokens": a.firing.n_tokens,
        "l0": a.metrics.l0, "fvu": a.metrics.fvu, "recovered": a.recovered, "recovered_mean": a.worth.mean[0.0],
        "clean_loss": a.worth.clean_loss, "dense": a.classes().dense, "rare": a.cluster.share, "dead": a.dead_share,
        "aligned": a.cluster.aligned(),
    }  # fmt: skip


def _sparsity(a: DictionaryGeometry) -> Records:
    """All rows, those of common latents, and the two baselines."""
    whole, common = torch.ones_like(a.cluster.rare), a.common
    found = [
        {
            "name": a.name, "rows": rows, **a.classes(common=rows != "all")._asdict(),
            "kurtosis": float(a.kurtosis[of].nanmean()), "in_null_space": float(a.in_null_space[of].nanmean()),
            "encoder_in_null_space": float(a.encoder_in_null_space[of].nanmean()),
        }
        for rows, of in (("all", whole), ("common latents", common))
    ]  # fmt: skip
    nulls = a.nulls
    rotated = {"rows": "in a random basis", **nulls.rotated._asdict(), "kurtosis": nulls.kurtosis_rotated}
    gaussian = {"rows": "Gaussian", **nulls.gaussian._asdict(), "kurtosis": nulls.kurtosis_gaussian}
    return [*found, {"name": a.name, **rotated}, {"name": a.name, **gaussian}]


def _cluster(a: DictionaryGeometry) -> dict[str, Any]:
    product = a.directions.projection
    return {
        "name": a.name, "rare": a.cluster.share, "n_rare": int(a.cluster.rare.sum()), "aligned": a.cluster.aligned(),
        "aligned_decoder": a.cluster.aligned(decoder=True), "aligned_all_common": a.cluster.aligned(rare=False),
        "aligned_common": a.nulls.aligned_common, "aligned_random": a.nulls.aligned_random,
        "most_together": float(a.fired.max()), "mean_together": float(a.fired.mean()),
        "projection_common": median(product[a.common]), "projection_rare": median(product[a.cluster.rare]),
        "cosine_common": median(a.directions.cosine[a.common]),
        "cosine_rare": median(a.directions.cosine[a.cluster.rare]),
    }  # fmt: skip


def shown_latents(a: DictionaryGeometry) -> list[int]:
    """Common latents evenly over the order of their frequencies, then the most frequent of the rare ones."""
    order = a.frequency.argsort(descending=True)
    common, rare = (order[of[order.to(of.device)].cpu()] for of in (a.common, a.cluster.rare))
    n = min(COMMON_SHOWN, len(common))
    even = torch.linspace(0, max(0, len(common) - 1), n).round().long()
    return [*common[even].tolist(), *rare[:RARE_SHOWN].tolist()]


def latents(a: DictionaryGeometry, contexts: Mapping[int, Sequence[Context]]) -> Records:
    """A row for each latent that is shown."""
    return [
        {
            "latent": i, "frequency": float(a.frequency[i]), "rare": bool(a.cluster.rare[i]),
            "encoder_decoder_cosine": float(a.directions.cosine[i]), "fve_1": float(a.shares.fve_1[i]),
            "fires_most_on": ", ".join(dict.fromkeys(repr(each.peak) for each in found)),
        }
        for i, found in contexts.items()
    ]  # fmt: skip
