"""The figures of a dictionary's geometry where there is nothing to find: other bases, other rows, other latents."""

from typing import NamedTuple

from torch import Generator

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.methods.dictionaries.geometry.neuron_sparsity import (
    SparsityClasses,
    gaussian_rows,
    kurtosis,
    neuron_shares,
    rotated_rows,
    sparsity_classes,
)
from micrographia.methods.dictionaries.geometry.rare import ALIGNED, RareCluster, control_cosines


class GeometryNulls(NamedTuple):
    """What the published figures are compared with."""

    rotated: SparsityClasses
    """Of the decoder rows in a random basis."""
    gaussian: SparsityClasses
    """Of Gaussian rows."""
    kurtosis_rotated: float
    kurtosis_gaussian: float
    aligned_common: float
    """The share aligned with their mean, of as many common latents' encoders as there are rare ones."""
    aligned_random: float
    """The same of as many Gaussian directions."""


def geometry_nulls(dictionary: Dictionary, cluster: RareCluster, generator: Generator) -> GeometryNulls:
    """Two matrices like the decoder are drawn, and one basis. Cost: one QR of neuron^3, a product with the decoder."""
    w, n = dictionary.weights, int(cluster.rare.sum())
    rotated, gaussian = rotated_rows(w.W_dec, generator), gaussian_rows(w.W_dec, generator)
    common, random = control_cosines(w.W_enc.T[~cluster.rare], n, generator)
    return GeometryNulls(
        rotated=sparsity_classes(neuron_shares(rotated)),
        gaussian=sparsity_classes(neuron_shares(gaussian)),
        kurtosis_rotated=float(kurtosis(rotated).nanmean()),
        kurtosis_gaussian=float(kurtosis(gaussian).mean()),
        aligned_common=float((common > ALIGNED).double().mean()),
        aligned_random=float((random > ALIGNED).double().mean()),
    )
