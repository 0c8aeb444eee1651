"""Several dictionaries as one value: one for each layer (`DictionarySet`), or across layers (`CrossLayerTranscoder`).

Axes: layer first, then those of the activations; d_in d_out latent. `later` counts the layers from a layer on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.form import ACTIVATIONS, THRESHOLDED, Form, Gate
from micrographia.core.errors import BadShape, UnknownDictionary


@dataclass(frozen=True, slots=True, eq=False)
class DictionarySet(Mapping[int, Dictionary]):
    """One dictionary for each of some layers: `set[layer]` is that of a layer, and `for layer in set` gives layers.

    Also a function of activations that are stacked by layer.
    """

    by_layer: Mapping[int, Dictionary]
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        if not self.by_layer:
            raise UnknownDictionary("A set of dictionaries holds at least one. Found none.")

    def __getitem__(self, layer: int) -> Dictionary:
        if layer not in self.by_layer:
            raise UnknownDictionary(f"Asked for the dictionary of layer {layer}. There are those of {self._layers()}.")
        return self.by_layer[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.by_layer))

    def __len__(self) -> int:
        return len(self.by_layer)

    def encode(self, x: Float[Tensor, "layer ..."]) -> Float[Tensor, "layer ..."]:
        """(layer, ..., d_in) -> (layer, ..., latent), layers in their order. Equal widths."""
        self._check(x)
        return torch.stack([self[layer].encode(x[i]) for i, layer in enumerate(self)])

    def decode(
        self, latents: Float[Tensor, "layer ..."], x: Float[Tensor, "layer ..."] | None = None
    ) -> Float[Tensor, "layer ..."]:
        """(layer, ..., latent) -> (layer, ..., d_out); with the input `x`, scale and skip too."""
        self._check(latents)
        rows = [None] * len(self) if x is None else list(x)
        return torch.stack([self[layer].decode(latents[i], rows[i]) for i, layer in enumerate(self)])

    def reconstruct(self, x: Float[Tensor, "layer ..."]) -> Float[Tensor, "layer ..."]:
        self._check(x)
        return torch.stack([self[layer].reconstruct(x[i]) for i, layer in enumerate(self)])

    def to(self, **where: Any) -> "DictionarySet":
        return replace(self, by_layer={layer: one.to(**where) for layer, one in self.items()})

    def save(self, folder: str | Path, format: str = "circuit_tracer") -> tuple[str, ...]:
        """Write all into a new folder; gives what could not be carried. See `Dictionary.save`."""
        from micrographia.core.dictionaries.formats.save import save  # the formats stand on this file

        return save(self, folder, format)

    def __repr__(self) -> str:
        first = next(iter(self))
        layers = "1 layer" if len(self) == 1 else f"{len(self)} layers"
        return f"DictionarySet({layers}: {self._layers()}; set[{first}]: {self[first]!r})"

    def _layers(self) -> str:
        return ", ".join(map(str, self))

    def _check(self, x: Tensor) -> None:
        if x.shape[:1] != (len(self),):
            raise BadShape(
                f"These dictionaries of {len(self)} layers ({self._layers()}) read (layer, ...). Found "
                f"{tuple(x.shape)}."
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CrossLayerWeights:
    """The tensors of a cross-layer transcoder, by layer: latents of a layer write to it and to every later one."""

    W_enc: tuple[Float[Tensor, "d_in latent"], ...]
    b_enc: tuple[Float[Tensor, "latent"], ...]
    W_dec: tuple[Float[Tensor, "latent _later d_out"], ...]
    b_dec: tuple[Float[Tensor, "d_out"], ...]
    threshold: tuple[Float[Tensor, "latent"], ...] | None = None
    W_skip: tuple[Float[Tensor, "d_in d_out"], ...] | None = None
    """From a layer's input to the same layer's output, `x @ W_skip`."""

    def named(self) -> dict[str, tuple[Tensor, ...]]:
        """Name -> tensors by layer, of those that are there."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}


@dataclass(frozen=True, slots=True, eq=False)
class CrossLayerTranscoder:
    """Latents of each layer, which together write the outputs of that layer and of all later ones.

    Source: Ameisen et al. 2025, "Circuit Tracing: Revealing Computational Graphs in Language Models", methods.
    """

    weights: CrossLayerWeights
    form: Form
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        w, n = self.weights, self.n_layers
        needed = {"W_enc", "b_enc", "W_dec", "b_dec"} | ({"threshold"} & set(w.named()))
        lengths = {name: len(values) for name, values in w.named().items()}
        if set(lengths.values()) != {n} or not needed <= set(lengths):
            raise BadShape(f"A cross-layer transcoder of {n} layers has {n} of each tensor. Found {lengths}.")
        if (self.form.activation in THRESHOLDED) != (w.threshold is not None):
            raise BadShape(f"The activation {self.form.activation!r} and thresholds: one is there without the other.")
        for i in range(n):
            d_in, width = w.W_enc[i].shape
            d_out = w.b_dec[i].shape[0]
            shapes = {
                "b_enc": (width,), "W_dec": (width, n - i, d_out), "threshold": (width,), "W_skip": (d_in, d_out),
            }  # fmt: skip
            for name, shape in shapes.items():
                values = w.named().get(name)
                if values is not None and tuple(values[i].shape) != shape:
                    raise BadShape(
                        f"Layer {i} of a cross-layer transcoder of {n} layers has {name} of shape {shape}. "
                        f"Found {tuple(values[i].shape)}."
                    )

    @property
    def n_layers(self) -> int:
        return len(self.weights.W_enc)

    @property
    def d_in(self) -> int:
        return self.weights.W_enc[0].shape[0]

    @property
    def d_out(self) -> int:
        return self.weights.b_dec[0].shape[0]

    @property
    def n_latents(self) -> int:
        """Of one layer."""
        return self.weights.W_enc[0].shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.weights.W_enc[0].dtype

    def encode(self, x: Float[Tensor, "layer ..."]) -> Float[Tensor, "layer ..."]:
        """(layer, ..., d_in) -> (layer, ..., latent): each layer's latents read that layer's input alone."""
        self._check(x)
        return torch.stack([self.encode_layer(x[i], i) for i in range(self.n_layers)])

    def encode_layer(self, x: Float[Tensor, "..."], layer: int) -> Float[Tensor, "..."]:
        """(..., d_in) -> (..., latent): the latents of one layer."""
        w = self.weights
        p = x.to(self.dtype) @ w.W_enc[layer] + w.b_enc[layer]
        threshold = p.new_zeros(()) if w.threshold is None else w.threshold[layer]
        return ACTIVATIONS[self.form.activation](p, Gate(threshold, self.form.k or 0))

    def decode(
        self, latents: Float[Tensor, "layer ..."], x: Float[Tensor, "layer ..."] | None = None
    ) -> Float[Tensor, "layer ..."]:
        """(layer, ..., latent) -> (layer, ..., d_out): y_j = b_dec_j + sum over i <= j of f_i @ W_dec_i[:, j - i].

        With the input `x`, a skip is added. latents d_out n_layers (n_layers + 1) FLOPs a row.
        """
        self._check(latents)
        w, n = self.weights, self.n_layers
        out = [
            w.b_dec[j] + sum(latents[i].to(self.dtype) @ w.W_dec[i][:, j - i] for i in range(j + 1)) for j in range(n)
        ]
        if x is not None and w.W_skip is not None:
            out = [y + x[j].to(self.dtype) @ w.W_skip[j] for j, y in enumerate(out)]
        return torch.stack(out)

    def reconstruct(self, x: Float[Tensor, "layer ..."]) -> Float[Tensor, "layer ..."]:
        """The outputs of all layers for these inputs: biases and skip included."""
        return self.decode(self.encode(x), x)

    def to(self, **where: Any) -> "CrossLayerTranscoder":
        moved = {name: tuple(each.to(**where) for each in values) for name, values in self.weights.named().items()}
        return replace(self, weights=replace(self.weights, **moved))

    def save(self, folder: str | Path, format: str = "circuit_tracer") -> tuple[str, ...]:
        """Write it into a new folder; gives what could not be carried. See `Dictionary.save`."""
        from micrographia.core.dictionaries.formats.save import save  # the formats stand on this file

        return save(self, folder, format)

    def __repr__(self) -> str:
        model = f" of {self.about.model}" if self.about.model else ""
        sizes = f"{self.n_layers} layers, {self.n_latents} latents each, of {self.d_in}"
        return f"CrossLayerTranscoder({self.form.activation}, {sizes}{model})"

    def _check(self, x: Tensor) -> None:
        if x.shape[:1] != (self.n_layers,):
            raise BadShape(
                f"This cross-layer transcoder of {self.n_layers} layers reads (layer, ...). Found {tuple(x.shape)}."
            )


AnyDictionary = Dictionary | DictionarySet | CrossLayerTranscoder
