"""What is measured of a dictionary on held-out text, and of its weights. All of it is computed anew when asked.

Nothing here is trained on; the first token of a row does not count. Axes: row pos latent neuron token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Watch, renamed, silent
from micrographia.core.model import Model
from micrographia.labs.dictionary.recipes import SITE
from micrographia.methods.dictionaries.evaluation.metrics import DictionaryMetrics, measure
from micrographia.methods.dictionaries.evaluation.reading import (
    Counted,
    ReadWrite,
    activity_of_rows,
    coded,
    counted_by,
)
from micrographia.methods.dictionaries.evaluation.spliced import Replacement, splice_losses
from micrographia.methods.dictionaries.geometry.neuron_sparsity import (
    NeuronShares,
    SparsityClasses,
    gaussian_rows,
    kurtosis,
    neuron_shares,
    null_share,
    rotated_rows,
    sparsity_classes,
)
from micrographia.methods.dictionaries.geometry.rare import (
    ALIGNED,
    EncoderDecoder,
    RareCluster,
    control_cosines,
    encoder_decoder,
    rare_cluster,
    together,
)

PLACE = ReadWrite(SITE, SITE)
CUTS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
"""Frequencies below which latents are left out, to see what the rare ones are worth."""


class Nulls(NamedTuple):
    """The same figures where there is nothing to find."""

    rotated: SparsityClasses
    """Of the decoder rows in a random basis."""
    gaussian: SparsityClasses
    kurtosis_rotated: float
    kurtosis_gaussian: float
    aligned_common: float
    """The share aligned with their mean, of as many common latents as there are rare ones."""
    aligned_random: float
    """The same of as many random directions."""


@dataclass(frozen=True, slots=True)
class DictionaryAnalysis:
    """One dictionary."""

    name: str
    dictionary: Dictionary
    metrics: DictionaryMetrics
    """On all held-out tokens."""
    shares: NeuronShares
    kurtosis: Float[Tensor, "latent"]
    in_null_space: Float[Tensor, "latent"]
    """The share of each decoder row in the null space of W_out."""
    encoder_in_null_space: Float[Tensor, "latent"]
    cluster: RareCluster
    directions: EncoderDecoder
    fired: Float[Tensor, "token"]
    """The share of the rare latents that fire at each token; NaN where none is rare."""
    nulls: Nulls
    without: Mapping[float, float]
    """Frequency -> loss recovered, less zero ablation, when only latents of at least that frequency are left."""
    recovered_mean: float
    """The same of all latents, less mean ablation."""
    clean_loss: float

    @property
    def frequency(self) -> Float[Tensor, "latent"]:
        return self.metrics.firing.frequencies

    @property
    def common(self) -> Tensor:
        return ~self.cluster.rare

    @property
    def recovered(self) -> float:
        return self.without[0.0]

    def classes(self, *, common: bool = False) -> SparsityClasses:
        return sparsity_classes(self.shares, among=self.common if common else None)


def analyse(
    name: str,
    dictionary: Dictionary,
    model: Model,
    held_out: Tensor,
    *,
    loss_rows: int,
    generator: Generator,
    watch: Watch = silent,
) -> DictionaryAnalysis:
    """Everything of one dictionary. Two passes over the held-out rows, and seven runs of `loss_rows` of them."""
    counted, w = counted_by(model), dictionary.weights
    watch = renamed(watch, f"measure {name}")
    metrics = look(dictionary, model, held_out, counted, watch)
    cluster = rare_cluster(dictionary, metrics.firing.frequencies.to(w.W_enc.device))
    shares = neuron_shares(w.W_dec)
    without, mean, clean = _losses(dictionary, metrics, model, held_out[:loss_rows], counted, watch)
    W_out = model.weights.W_out[0]
    return DictionaryAnalysis(
        name=name,
        dictionary=dictionary,
        metrics=metrics,
        shares=shares,
        kurtosis=kurtosis(w.W_dec),
        in_null_space=null_share(w.W_dec, W_out),
        encoder_in_null_space=null_share(w.W_enc.T, W_out),
        cluster=cluster,
        directions=encoder_decoder(dictionary),
        fired=fired_together(dictionary, cluster, model, held_out, counted, watch),
        nulls=_nulls(dictionary, cluster, generator),
        without=without,
        recovered_mean=mean,
        clean_loss=clean,
    )


def look(
    dictionary: Dictionary, model: Model, rows: Tensor, counted: Counted, watch: Watch = silent
) -> DictionaryMetrics:
    """Fidelity and frequencies on these rows, in one pass."""
    return measure(dictionary, activity_of_rows(model, PLACE, rows, counted), linear=False, watch=watch)


def _nulls(dictionary: Dictionary, cluster: RareCluster, generator: Generator) -> Nulls:
    w, n = dictionary.weights, int(cluster.rare.sum())
    rotated, gaussian = rotated_rows(w.W_dec, generator), gaussian_rows(w.W_dec, generator)
    common, random = control_cosines(w.W_enc.T[~cluster.rare], n, generator)
    return Nulls(
        rotated=sparsity_classes(neuron_shares(rotated)),
        gaussian=sparsity_classes(neuron_shares(gaussian)),
        kurtosis_rotated=float(kurtosis(rotated).nanmean()),
        kurtosis_gaussian=float(kurtosis(gaussian).mean()),
        aligned_common=float((common > ALIGNED).double().mean()),
        aligned_random=float((random > ALIGNED).double().mean()),
    )


def fired_together(
    dictionary: Dictionary, cluster: RareCluster, model: Model, rows: Tensor, counted: Counted, watch: Watch
) -> Float[Tensor, "token"]:
    """What share of the rare latents fires at each token."""
    n = int(cluster.rare.sum())
    found = [
        together(piece.latents, cluster.rare) / n if n else torch.full((len(piece.latents),), torch.nan)
        for each in activity_of_rows(model, PLACE, rows, counted, watch=watch)
        for piece in coded(dictionary, each.x)
    ]
    return torch.cat(found).cpu()


def _losses(
    dictionary: Dictionary, metrics: DictionaryMetrics, model: Model, rows: Tensor, counted: Counted, watch: Watch
) -> tuple[dict[float, float], float, float]:
    """Loss recovered by the latents above each cut, less zero ablation; of all, less mean ablation; the clean loss."""
    frequency = metrics.firing.frequencies

    def keeping(cut: float) -> Replacement:
        kept = (frequency >= cut).to(dictionary.dtype).to(dictionary.weights.W_dec.device)
        return lambda x, y: dictionary.decode(dictionary.encode(x) * kept, x).to(y)

    replacements = {str(cut): keeping(cut) for cut in CUTS}
    found = splice_losses(model, PLACE, rows, replacements, metrics.mean, counted, watch=watch)
    each = {cut: found.of(str(cut)).recovered_zero for cut in CUTS}
    return each, found.of(str(CUTS[0])).recovered_mean, found.clean_loss


class Moment(NamedTuple):
    """A dictionary at one step of its training."""

    step: int
    name: str
    rare: float
    aligned: float
    """Of the rare latents' encoders with their mean."""
    dense: float
    l0: float
    fvu: float


def moment(step: int, name: str, dictionary: Dictionary, model: Model, rows: Tensor) -> Moment:
    """The course of the findings: on fewer rows than at the end."""
    metrics = look(dictionary, model, rows, counted_by(model))
    cluster = rare_cluster(dictionary, metrics.firing.frequencies.to(dictionary.weights.W_enc.device))
    dense = sparsity_classes(neuron_shares(dictionary.weights.W_dec)).dense
    return Moment(step, name, cluster.share, cluster.aligned(), dense, metrics.l0, metrics.fvu)


class Context(NamedTuple):
    """Where a latent fires most: the tokens around, and its value at each."""

    tokens: list[str]
    values: list[float]


AROUND = 8
"""Tokens before and after the one on which a latent fires most."""


def top_contexts(
    dictionary: Dictionary, latents: Sequence[int], model: Model, rows: Tensor, *, n: int = 3, at_once: int = 32
) -> dict[int, list[Context]]:
    """For each of a few latents the n rows in which it fires most, around its largest value. One pass.

    A row gives one context. Latents that do not fire in these rows have none.
    """
    chosen = torch.tensor(latents)
    parts = []
    for some in rows.split(at_once):
        neurons = model.run(some.to(dictionary.weights.W_enc.device), keep=SITE, stop=SITE).cache[SITE]
        parts.append(dictionary.encode(neurons)[..., chosen].cpu())
    values = torch.cat(parts)
    values[:, 0] = 0.0  # the token that does not count
    return {latent: _contexts(values[..., i], model, rows, n) for i, latent in enumerate(latents)}


def _contexts(values: Float[Tensor, "row pos"], model: Model, rows: Tensor, n: int) -> list[Context]:
    top, at = values.max(1)
    best = [row for row in top.topk(min(n, len(top))).indices.tolist() if top[row] > 0]
    found = []
    for row in best:
        # windows of one length, moved inward at the ends of a row
        start = min(max(0, int(at[row]) - AROUND), max(0, rows.shape[1] - 2 * AROUND - 1))
        here = slice(start, start + 2 * AROUND + 1)
        found.append(Context(model.to_str_tokens(rows[row, here]), values[row, here].tolist()))
    return found
