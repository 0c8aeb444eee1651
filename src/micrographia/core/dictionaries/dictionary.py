"""Dictionary: a sparse autoencoder or transcoder as a value: weights, the Form of its latents, and what is known of it.

All kinds are one class: what differs stands in the tables of `form`. Training is `methods/dictionaries`, files are
`formats`. Axes: batch pos d_in d_out latent; W_enc (d_in, latent), W_dec (latent, d_out), used as `x @ W`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.dictionaries.form import ACTIVATIONS, NORMALISATIONS, THRESHOLDED, Form, Gate, Scale
from micrographia.core.errors import BadShape
from micrographia.core.sites import Site


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DictionaryWeights:
    """The tensors of a dictionary, all of one dtype on one device."""

    W_enc: Float[Tensor, "d_in latent"]
    W_dec: Float[Tensor, "latent d_out"]
    b_dec: Float[Tensor, "d_out"]
    b_enc: Float[Tensor, "latent"] | None = None
    """None in a gated dictionary, which has two."""
    threshold: Float[Tensor, "latent"] | None = None
    b_gate: Float[Tensor, "latent"] | None = None
    b_mag: Float[Tensor, "latent"] | None = None
    r_mag: Float[Tensor, "latent"] | None = None
    """Of a gated dictionary (Rajamanoharan et al. 2024, arXiv 2404.16014, eq. 6): W_mag = W_enc * exp(r_mag)."""
    W_skip: Float[Tensor, "d_in d_out"] | None = None
    """Added to the output as `x @ W_skip`, with x as it came in."""

    def named(self) -> dict[str, Tensor]:
        """Name -> tensor of those that are there."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}

    def to(self, **where: Any) -> "DictionaryWeights":
        return replace(self, **{name: value.to(**where) for name, value in self.named().items()})


FIRST_TOKEN, KEPT, LEFT_OUT = "first_token", "kept", "left out"
"""What `About.training` says of the first token of each row, where it says it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What is known of a dictionary beside its numbers."""

    model: str = ""
    """The name of the model that it was trained on."""
    site: Site | None = None
    """Where it reads."""
    target: Site | None = None
    """Where a transcoder writes; None: where it reads."""
    layout: str = ""
    """The format of the files that it came from."""
    source: str = ""
    """The folder or file that it came from."""
    notes: tuple[str, ...] = ()
    """What was folded into the weights, what the files do not say, and what the other tool would do differently."""
    training: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """How it was trained, as far as it is known: architecture, steps, L0, seed, loss terms."""


@dataclass(frozen=True, slots=True, eq=False)
class Dictionary:
    """A sparse dictionary of activations: `encode` to latents, `decode` back, `reconstruct` both.

    >>> eye = torch.eye(2)
    >>> weights = DictionaryWeights(W_enc=eye, W_dec=eye, b_enc=torch.zeros(2), b_dec=torch.zeros(2))
    >>> Dictionary(weights, Form()).encode(torch.tensor([1.0, -1.0]))
    tensor([1., 0.])
    """

    weights: DictionaryWeights
    form: Form
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        w, form = self.weights, self.form
        n, d_out = w.W_dec.shape
        gated = form.activation == "gated"
        needed = {
            "W_enc": (self.d_in, n),
            "b_dec": (d_out,),
            "W_skip": (self.d_in, d_out) if w.W_skip is not None else None,
            "threshold": (n,) if form.activation in THRESHOLDED else None,
            "b_enc": None if gated else (n,),
            **dict.fromkeys(("b_gate", "b_mag", "r_mag"), (n,) if gated else None),
        }
        for name, shape in needed.items():
            value = getattr(w, name)
            found = None if value is None else tuple(value.shape)
            if found != shape:
                raise BadShape(
                    f"A dictionary with the activation {form.activation!r}, {n} latents, {self.d_in} inputs and "
                    f"{d_out} outputs has {name} of shape {shape or '(none)'}. Found {found or 'none'}."
                )
        if form.subtract_b_dec and self.d_in != d_out:
            raise BadShape(
                f"b_dec of {d_out} entries cannot be subtracted from an input of {self.d_in}. Set subtract_b_dec=False."
            )

    @property
    def d_in(self) -> int:
        return self.weights.W_enc.shape[0]

    @property
    def d_out(self) -> int:
        return self.weights.W_dec.shape[1]

    @property
    def n_latents(self) -> int:
        return self.weights.W_dec.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.weights.W_dec.dtype

    @property
    def decoder(self) -> Float[Tensor, "latent d_out"]:
        """What one of each latent adds to the output, before any scale of the input is restored."""
        W_dec = self.weights.W_dec
        return W_dec / W_dec.norm(dim=-1, keepdim=True) if self.form.decoder_norms else W_dec

    def to(self, **where: Any) -> "Dictionary":
        """A copy elsewhere: `dtype=`, `device=`."""
        return replace(self, weights=self.weights.to(**where))

    def pre_activations(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """What the activation is applied to, in the weights' dtype; a gated dictionary's gate. 2 d_in latents FLOPs."""
        one = self._here(x)
        return one._pre(one._read(x)[0])

    def encode(self, activation: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """(..., d_in) -> (..., latent): the latents, dense, in the weights' dtype.

        2 d_in latents FLOPs a row; the latents of a row depend on it alone.
        """
        h, w = self._here(activation)._read(activation)[0], self.weights
        if self.form.activation == "gated":
            assert w.b_gate is not None
            assert w.b_mag is not None
            assert w.r_mag is not None
            product = h @ w.W_enc
            return (product + w.b_gate > 0) * (product * w.r_mag.exp() + w.b_mag).relu()
        threshold = w.b_dec.new_zeros(()) if w.threshold is None else w.threshold
        return ACTIVATIONS[self.form.activation](self._pre(h), Gate(threshold, self.form.k or 0))

    def decode(self, latents: Float[Tensor, "..."], x: Float[Tensor, "..."] | None = None) -> Float[Tensor, "..."]:
        """The output that these latents stand for. 2 latents d_out FLOPs a row.

        With the input `x`, its scale is restored and a skip added, so that `decode(encode(x), x)` is `reconstruct(x)`.
        Without, what the decoder alone gives: of a dictionary that normalises, in its own scale.
        """
        W_dec = self.weights.W_dec
        if self.form.decoder_norms:
            latents = latents / W_dec.norm(dim=-1)
        return self.finished(latents.to(W_dec.dtype) @ W_dec, x)

    def finished(self, product: Float[Tensor, "..."], x: Float[Tensor, "..."] | None = None) -> Float[Tensor, "..."]:
        """What `decode` makes of latents @ W_dec: b_dec added and, with `x`, its scale restored and a skip added."""
        out, one = product + self.weights.b_dec, self if x is None else self._here(x)
        if x is not None:
            out = one._restored(out, x)
        return out.unflatten(-1, one.form.axes) if one.form.axes else out

    def reconstruct(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The output for this input: scale, skip and biases included."""
        return self.decode(self.encode(x), x)

    def reading(self, activation: Tensor) -> "Dictionary":
        """This dictionary for activations whose last two axes are its input: heads that it reads as one."""
        last = tuple(activation.shape[-2:])
        heads = not self.form.axes and last[-1:] != (self.d_in,) and prod(last) == self.d_in
        return replace(self, form=replace(self.form, axes=last)) if heads else self

    @staticmethod
    def load(
        name: str | Path,
        *,
        site: str | Site | None = None,
        layer: int | None = None,
        width: int | str | None = None,
        l0: float | str | None = None,
        allow_pickle: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> Any:
        """The dictionary in a folder or file of another tool or of ours, or on the Hugging Face Hub.

        `site` ("z", "L3.z"), `layer`, `width` (16384 or "16k") and `l0` choose among several; without `l0`, the one
        whose published L0 is closest to 100. Gives a DictionarySet for one dictionary a layer where no layer is asked
        for, a CrossLayerTranscoder for one. `dtype` None keeps that of the file. `about.notes` says what was folded
        and what the files do not hold. See `formats.load`, which raises the same errors.
        """
        from micrographia.core.dictionaries.formats.load import load  # the formats stand on this file

        choice = {"site": site, "layer": layer, "width": width, "l0": l0}
        return load(name, **choice, allow_pickle=allow_pickle, device=device, dtype=dtype)

    def save(self, folder: str | Path, format: str = "saelens") -> tuple[str, ...]:
        """Write this dictionary into a new folder for the tool of this name; gives what could not be carried.

        Raises CannotCarry, with the reason, where the format cannot hold it.
        """
        from micrographia.core.dictionaries.formats.save import save  # as above

        return save(self, folder, format)

    def __repr__(self) -> str:
        about, k = self.about, "" if self.form.k is None else f" (k = {self.form.k})"
        kind = "transcoder" if about.target is not None or self.d_in != self.d_out else "dictionary"
        place = f", at {about.site}" if about.site else ""
        place += f" -> {about.target}" if about.target else ""
        model = f" of {about.model}" if about.model else ""
        return f"Dictionary({self.form.activation} {kind}{k}, {self.n_latents} latents of {self.d_in}{place}{model})"

    def _here(self, x: Tensor) -> "Dictionary":
        return self.reading(x) if self.form.heads else self

    def _read(self, x: Tensor) -> tuple[Tensor, Scale | None]:
        """The input as the encoder sees it, and the scale that was taken out."""
        x = self._flat(x)
        scale = self._scale(x)
        if scale is not None:
            x = (x - scale.centre) / scale.divisor
        return (x - self.weights.b_dec if self.form.subtract_b_dec else x), scale

    def _scale(self, x: Tensor) -> Scale | None:
        measure = NORMALISATIONS[self.form.normalise]
        return None if measure is None else measure(x)

    def _flat(self, x: Tensor) -> Tensor:
        """The input in the weights' dtype, its last axes as one. Raises BadShape."""
        axes = self.form.axes
        last = axes or (self.d_in,)
        if tuple(x.shape[-len(last) :]) != last:
            site = f", {self.about.site}" if self.about.site else ""
            raise BadShape(
                f"This dictionary reads activations (..., {', '.join(map(str, last))}). Found {tuple(x.shape)}. "
                f"Give those of its own site{site}."
            )
        return (x.flatten(-len(axes)) if axes else x).to(self.dtype)

    def _pre(self, h: Tensor) -> Tensor:
        w = self.weights
        bias = w.b_gate if self.form.activation == "gated" else w.b_enc
        assert bias is not None
        p = h @ w.W_enc + bias
        return p * w.W_dec.norm(dim=-1) if self.form.decoder_norms else p

    def _restored(self, out: Tensor, x: Tensor) -> Tensor:
        flat = self._flat(x)
        scale = self._scale(flat) if self.form.restore else None
        if scale is not None:
            out = out * scale.back + scale.centre
        return out if self.weights.W_skip is None else out + flat @ self.weights.W_skip
