"""The geometry of one dictionary of MLP neurons, with what its latents do on text: everything in one place.

Axes: row pos latent neuron token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Watch, renamed, silent
from micrographia.core.model import Model
from micrographia.methods.dictionaries.evaluation.metrics import DictionaryMetrics, measure
from micrographia.methods.dictionaries.evaluation.reading import (
    ReadWrite,
    activity_of_rows,
    counted_by,
    rows_between,
)
from micrographia.methods.dictionaries.geometry.firing_together import (
    Fired,
    Worth,
    count_firings,
    fired_together,
    worth_by_frequency,
)
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
    firing: Fired
    """On all rows."""
    metrics: DictionaryMetrics
    """On the rows whose loss is taken."""
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
        return self.firing.frequencies

    @property
    def dead_share(self) -> float:
        """Latents that never fired on these rows."""
        return float((self.firing.counts == 0).double().mean())

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
    dictionaries: Mapping[str, Dictionary],
    model: Model,
    place: ReadWrite,
    rows: Any,
    *,
    loss_rows: int,
    generator: Generator,
    watch: Watch = silent,
) -> dict[str, DictionaryGeometry]:
    """Everything of several dictionaries of the neurons of a layer, by name.

    Two passes over the rows with an encoding by each dictionary; of each, one more over the first `loss_rows`, and
    runs of those for eight losses. Raises what reading does.
    """
    counted, each = counted_by(model), list(dictionaries.values())
    reading = (model, place, rows, counted)
    firing = count_firings(each, *reading, watch=renamed(watch, "count firings"))
    clusters = [rare_cluster(one, found.frequencies.to(one.weights.W_enc.device)) for one, found in zip(each, firing)]
    rare = [cluster.rare for cluster in clusters]
    fired = fired_together(each, rare, *reading, watch=renamed(watch, "what fires together"))
    some = (model, place, rows_between(rows, 0, loss_rows))
    return {
        name: _of_one(name, one, found, cluster, own, some, generator, watch)
        for (name, one), found, cluster, own in zip(dictionaries.items(), firing, clusters, fired)
    }


def _of_one(
    name: str,
    dictionary: Dictionary,
    firing: Fired,
    cluster: RareCluster,
    fired: Tensor,
    some: tuple[Model, ReadWrite, Any],
    generator: Generator,
    watch: Watch,
) -> DictionaryGeometry:
    model, place, rows = some
    w, W_out = dictionary.weights, model.weights.W_out[place.read.layer]
    watch, counted = renamed(watch, f"measure {name}"), counted_by(model)
    metrics = look(dictionary, *some, watch)
    frequency = firing.frequencies.to(w.W_enc.device)
    return DictionaryGeometry(
        name=name,
        dictionary=dictionary,
        firing=firing,
        metrics=metrics,
        shares=neuron_shares(w.W_dec),
        kurtosis=kurtosis(w.W_dec),
        in_null_space=null_share(w.W_dec, W_out),
        encoder_in_null_space=null_share(w.W_enc.T, W_out),
        cluster=cluster,
        directions=encoder_decoder(dictionary),
        fired=fired,
        nulls=geometry_nulls(dictionary, cluster, generator),
        worth=worth_by_frequency(dictionary, frequency, CUTS, model, place, rows, metrics.mean, counted, watch=watch),
    )


def look(dictionary: Dictionary, model: Model, place: ReadWrite, rows: Any, watch: Watch = silent) -> DictionaryMetrics:
    """Fidelity on these rows, in one pass."""
    activity = activity_of_rows(model, place, rows, counted_by(model))
    return measure(dictionary, activity, linear=False, watch=watch)
