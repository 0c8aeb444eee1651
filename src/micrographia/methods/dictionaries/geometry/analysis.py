"""The geometry of one dictionary of MLP neurons, with what its latents do on text: everything in one place.

Axes: row pos latent neuron token.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Watch, renamed, silent
from micrographia.core.model import Model
from micrographia.methods.dictionaries.evaluation.metrics import DictionaryMetrics, measure
from micrographia.methods.dictionaries.evaluation.reading import (
    activity_of_rows,
    counted_by,
    place_for,
    rows_between,
)
from micrographia.methods.dictionaries.geometry.firing_together import Worth, fired_together, worth_by_frequency
from micrographia.methods.dictionaries.geometry.neuron_sparsity import (
    NeuronShares,
    SparsityClasses,
    kurtosis,
    neuron_shares,
    null_share,
    sparsity_classes,
)
from micrographia.methods.dictionaries.geometry.nulls import GeometryNulls, geometry_nulls
from micrographia.methods.dictionaries.geometry.rare import (
    RARE,
    EncoderDecoder,
    RareCluster,
    encoder_decoder,
    rare_cluster,
)

CUTS = (0.0, 1e-5, RARE, 1e-3, 1e-2)
"""Frequencies below which latents are left out, to see what the rare ones are worth."""


@dataclass(frozen=True, slots=True)
class DictionaryGeometry:
    """One dictionary, measured on rows of tokens."""

    name: str
    dictionary: Dictionary
    metrics: DictionaryMetrics
    """On all rows."""
    shares: NeuronShares
    kurtosis: Float[Tensor, "latent"]
    in_null_space: Float[Tensor, "latent"]
    """The share of each decoder row in the null space of W_out."""
    encoder_in_null_space: Float[Tensor, "latent"]
    cluster: RareCluster
    directions: EncoderDecoder
    fired: Float[Tensor, "token"]
    """The share of the rare latents that fire at each token; NaN where none is rare."""
    nulls: GeometryNulls
    worth: Worth

    @property
    def frequency(self) -> Float[Tensor, "latent"]:
        return self.metrics.firing.frequencies

    @property
    def common(self) -> Tensor:
        return ~self.cluster.rare

    @property
    def recovered(self) -> float:
        """Of the loss that zero ablation costs."""
        return self.worth.zero[0.0]

    def classes(self, *, common: bool = False) -> SparsityClasses:
        return sparsity_classes(self.shares, among=self.common if common else None)


def analyse(
    name: str,
    dictionary: Dictionary,
    model: Model,
    rows: Any,
    *,
    loss_rows: int,
    generator: Generator,
    watch: Watch = silent,
) -> DictionaryGeometry:
    """Everything of a dictionary that knows its Site, which is the neurons of a layer.

    Two passes over the rows, and eight runs of the first `loss_rows`, from which losses are. Raises what reading does.
    """
    place = place_for(dictionary, model)
    counted, w, W_out = counted_by(model), dictionary.weights, model.weights.W_out[place.read.layer]
    watch = renamed(watch, f"measure {name}")
    metrics = look(dictionary, model, rows, watch)
    frequency = metrics.firing.frequencies.to(w.W_enc.device)
    cluster = rare_cluster(dictionary, frequency)
    losses_of = (model, place, rows_between(rows, 0, loss_rows), metrics.mean, counted)
    return DictionaryGeometry(
        name=name,
        dictionary=dictionary,
        metrics=metrics,
        shares=neuron_shares(w.W_dec),
        kurtosis=kurtosis(w.W_dec),
        in_null_space=null_share(w.W_dec, W_out),
        encoder_in_null_space=null_share(w.W_enc.T, W_out),
        cluster=cluster,
        directions=encoder_decoder(dictionary),
        fired=fired_together(dictionary, cluster.rare, model, place, rows, counted, watch=watch),
        nulls=geometry_nulls(dictionary, cluster, generator),
        worth=worth_by_frequency(dictionary, frequency, CUTS, *losses_of, watch=watch),
    )


def look(dictionary: Dictionary, model: Model, rows: Any, watch: Watch = silent) -> DictionaryMetrics:
    """Fidelity and frequencies on these rows, in one pass."""
    activity = activity_of_rows(model, place_for(dictionary, model), rows, counted_by(model))
    return measure(dictionary, activity, linear=False, watch=watch)
