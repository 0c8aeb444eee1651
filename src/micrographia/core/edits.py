"""Edit: an intervention on one activation, as a pure function (put, add, scale, zero, mean, noise, splice ...).

An Edit names a Site, a region of it (chosen batch, pos, head, unit, query or key) and a change of the values there.
Places can be written as reports print them: "L9.z[pos=14, head=6]", or "L9.z[6]", whose number is the head, or the unit
where there are no heads.
An Edit never writes into the tensor that it is given. Edits at one Site act in the order of the list. Values may be
trainable: gradients flow through what an edit writes. Edits of `scores` act within the mask: a pair that may not attend
does not, whatever its score was to become. An edit of `pattern` writes what it is given.
"""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import BadEdit
from micrographia.core.sites import Site, SiteLike, as_site

Index = int | slice | list[int] | Tensor | None
UNIT_AXES = frozenset({"d_model", "d_head", "neuron", "latent", "vocab", "one"})


@runtime_checkable
class Autoencoder(Protocol):
    """What can be spliced in: an encoder to latents and a decoder back. A `Dictionary` is one; so is your own class."""

    def encode(self, activation: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the values in `region` of `site` by `change(values)`."""

    site: Site
    name: str
    change: Callable[[Tensor], Tensor] = field(repr=False)
    region: Mapping[str, Index] = field(default_factory=dict)
    dictionary: Autoencoder | None = field(default=None, repr=False)

    def __call__(self, value: Tensor) -> Tensor:
        """The edited activation; `value` itself is left as it was."""
        if not self.region:
            return self._checked(self.change(value), value)
        inside = self.inside(value)
        edited = value.clone()
        edited[self._index(value)] = self._checked(self.change(inside), inside)
        return edited

    def inside(self, value: Tensor) -> Tensor:
        """The values of `value` in the region, axes in their order; an axis with a single number is dropped."""
        if value.ndim != len(self.site.axes):
            raise BadEdit(
                f"{self.name} at {self.site} selects {dict(self.region)} by the axes {self.site.axes}. Found an "
                f"activation of shape {tuple(value.shape)}. Edit it whole."
            )
        try:
            return value[self._index(value)]
        except IndexError as error:
            raise BadEdit(
                f"{self.name} at {self.site} selects {dict(self.region)}, but the activation has axes "
                f"{self.site.axes} of lengths {tuple(value.shape)}. Choose places that exist."
            ) from error

    def _index(self, value: Tensor) -> tuple[Any, ...]:
        found = (self.region.get(_axis_word(axis)) for axis in self.site.axes)
        chosen = [slice(None) if i is None else i for i in found]
        if sum(isinstance(i, list | Tensor) for i in chosen) <= 1:
            return tuple(chosen)
        # Several lists mean their product, as one expects of `pos=[1, 2], head=[0, 3]`. Slices become lists too:
        # torch moves the axes of lists to the front where there is a slice between them.
        ranges = (torch.arange(length, device=value.device) for length in value.shape)
        lists = [everywhere[i] for everywhere, i in zip(ranges, chosen) if not isinstance(i, int)]
        grids = iter(torch.meshgrid(*lists, indexing="ij"))
        return tuple(i if isinstance(i, int) else next(grids) for i in chosen)

    def _checked(self, new: Any, old: Tensor) -> Tensor:
        if not isinstance(new, Tensor):
            hint = " Its function must return the new values." if new is None else ""
            raise BadEdit(
                f"{self.name} at {self.site} should give a tensor of shape {tuple(old.shape)}. Found "
                f"{'nothing (None)' if new is None else f'a {type(new).__name__}'}.{hint}"
            )
        if new.dtype != old.dtype or new.device != old.device:
            raise BadEdit(
                f"{self.name} at {self.site} gives {new.dtype} on {new.device}, but the activation is {old.dtype} on "
                f"{old.device}. Convert it first."
            )
        return _fitted(self.site, self.name, new, old)


def _fitted(site: Site, name: str, value: Tensor, region: Tensor) -> Tensor:
    """`value`, broadcast to the region."""
    try:
        return value.expand(region.shape) if value.shape != region.shape else value
    except RuntimeError as error:
        raise BadEdit(
            f"{name} at {site} gives shape {tuple(value.shape)} for a region of shape {tuple(region.shape)} "
            f"(axes {site.axes}). Give that shape, or one that broadcasts to it."
        ) from error


def _axis_word(axis: str) -> str:
    return "unit" if axis in UNIT_AXES else axis


def _edit(site: SiteLike, name: str, change: Callable[[Tensor], Tensor], where: Mapping[str, Index]) -> Edit:
    site, printed = place_of(site)
    words = [_axis_word(axis) for axis in site.axes]
    if twice := printed.keys() & where.keys():
        raise BadEdit(f"{name} at {site} selects {sorted(twice)} twice, in the text and beside it. Leave one out.")
    where = {**printed, **where}
    if unknown := set(where) - set(words):
        raise BadEdit(f"{name} at {site} selects by {sorted(unknown)}; this site has {', '.join(words)}.")
    return Edit(site, name, change, {word: index for word, index in where.items() if index is not None})


_REGION = re.compile(r"(?P<site>.+)\[(?P<region>[^\[\]]*[\d)])\]")


def place_of(text: SiteLike) -> tuple[Site, dict[str, Index]]:
    """A Site and the region in brackets after it, if there is one.

    >>> place_of("L9.z[pos=14, head=6]")[1], place_of("L9.neurons[3]")[1]
    ({'pos': 14, 'head': 6}, {'unit': 3})
    """
    match = _REGION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return as_site(text), {}
    site = Site.parse(match["site"])
    if match["region"].isdigit():
        return site, {"head" if "head" in site.axes else "unit": int(match["region"])}
    found = re.findall(r"(\w+)=(-?\d+|\([-\d, ]+\))", match["region"])
    if ", ".join(f"{axis}={value}" for axis, value in found) != match["region"]:
        raise BadEdit(f"Cannot read the places in {text!r}. Write for instance {site}[pos=14, head=6].")
    read = {axis: ast.literal_eval(value) for axis, value in found}
    return site, {axis: list(value) if isinstance(value, tuple) else value for axis, value in read.items()}


def apply(site: SiteLike, change: Callable[[Tensor], Tensor], **where: Index) -> Edit:
    """Any other change: `change` takes a copy of the region's values and returns new ones of the same shape."""
    return _edit(site, "apply", lambda old: change(old.clone()), where)


def observe(site: SiteLike, callback: Callable[[Tensor], None]) -> Edit:
    """Call `callback` with the live activation and continue with the same tensor.

    For attribution: in a run with `grad`, `callback` may register a gradient hook on the tensor, so that the product
    with the gradient is taken inside the backward pass and nothing is stored.
    """

    def change(value: Tensor) -> Tensor:
        callback(value)
        return value

    return _edit(site, "observe", change, {})


def leaf(site: SiteLike, callback: Callable[[Tensor], None] = lambda leaf: None) -> Edit:
    """Start the autograd graph here: the activation becomes a leaf that requires a gradient, passed to `callback`."""

    def change(value: Tensor) -> Tensor:
        begun = value.detach().requires_grad_()
        callback(begun)
        return begun

    return _edit(site, "leaf", change, {})


def put(site: SiteLike, value: Tensor | float, **where: Index) -> Edit:
    """Write `value`: a number, or a tensor that broadcasts to the region."""

    def change(old: Tensor) -> Tensor:
        return value if isinstance(value, Tensor) else torch.full_like(old, value)

    return _edit(site, "put", change, where)


def add(site: SiteLike, direction: Tensor | float, **where: Index) -> Edit:
    """Add `direction`, for instance a steering vector."""

    def change(old: Tensor) -> Tensor:
        return old + (_fitted(place_of(site)[0], "add", direction, old) if isinstance(direction, Tensor) else direction)

    return _edit(site, "add", change, where)


def scale(site: SiteLike, factor: Tensor | float, **where: Index) -> Edit:
    """Multiply by `factor`."""

    def change(old: Tensor) -> Tensor:
        return old * (_fitted(place_of(site)[0], "scale", factor, old) if isinstance(factor, Tensor) else factor)

    return _edit(site, "scale", change, where)


def zero(site: SiteLike, **where: Index) -> Edit:
    """Zero-ablate."""
    return _edit(site, "zero", torch.zeros_like, where)


def mean_of_rows(site: Site, values: Tensor, mask: Bool[Tensor, "row pos"] | None = None) -> Tensor:
    """The mean over the rows of an activation of this Site, (1, ...), in float32 at least.

    Each place is averaged over the rows in which it is no padding (`mask` is False there) and, of scores, in which the
    pair may attend; 0 where that is no row.
    """
    seen = None if mask is None else spread(site, mask.to(values.device))
    if site.kind == "scores":
        seen = may_attend(values) if seen is None else seen & may_attend(values)
    if seen is None:
        return wide(values).mean(0, keepdim=True)
    seen = seen.expand(values.shape)
    count = seen.sum(0, keepdim=True)
    return torch.where(seen, wide(values), 0.0).sum(0, keepdim=True) / count.clamp(min=1)


def wide(x: Tensor) -> Tensor:
    """In float32 at least: a sum or a difference of narrower numbers keeps two digits, or overflows."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def spread(site: Site, mask: Bool[Tensor, "row pos"]) -> Bool[Tensor, "row *axes"]:
    """The mask of tokens as one of this Site's values: of pairs, where query and key are tokens both."""
    if "pos" not in site.axes:
        return mask[:, None, :, None] & mask[:, None, None, :]
    return mask.reshape(*mask.shape, *[1] * (len(site.axes) - 2))


def may_attend(scores: Float[Tensor, "*pairs"]) -> Bool[Tensor, "*pairs"]:
    """Of scores, the pairs that the mask lets attend: the others have the dtype's lowest number, or -inf."""
    return scores > torch.finfo(scores.dtype).min


def mean(site: SiteLike, reference: Tensor, mask: Bool[Tensor, "row pos"] | None = None, **where: Index) -> Edit:
    """Mean-ablate: write the mean over the batch (the first axis) of `reference`, an activation of this Site.

    `mask`: that of the reference prompts, False at padding, which the mean leaves out. The region is selected from the
    mean first, so a reference with all positions can be used for an edit at some.
    """
    average = mean_of_rows(place_of(site)[0], reference, mask).to(reference.dtype)
    one_row = 0 if isinstance(where.get("batch"), int) else None  # a number drops its axis, here as in the region
    chosen = _edit(site, "mean", lambda value: value, {**where, "batch": one_row})
    value = chosen.inside(average)
    return _edit(site, "mean", lambda old: value, where)


def noise(site: SiteLike, std: float, generator: Generator, **where: Index) -> Edit:
    """Add Gaussian noise of standard deviation `std`, drawn anew at each run from `generator` (a CPU generator)."""

    def change(old: Tensor) -> Tensor:
        drawn = torch.randn(old.shape, generator=generator, dtype=old.dtype, device=generator.device)
        return old + std * drawn.to(old.device)

    return _edit(site, "noise", change, where)


def project_out(site: SiteLike, directions: Float[Tensor, "direction unit"], **where: Index) -> Edit:
    """Remove the span of `directions` from the last axis. They need not be orthogonal, nor independent."""

    def change(old: Tensor) -> Tensor:
        if directions.shape[-1] != old.shape[-1]:
            raise BadEdit(
                f"project_out at {site} has directions of length {directions.shape[-1]}, but the region's last axis is "
                f"{old.shape[-1]} long. Give directions of that length."
            )
        rows = directions.double()
        return old - old @ (torch.linalg.pinv(rows) @ rows).to(old)  # the projector onto their span, of any rank

    return _edit(site, "project_out", change, where)


def freeze(sites: Iterable[SiteLike], cache: Mapping[Site, Tensor]) -> list[Edit]:
    """Hold each Site at its value in `cache`, without gradient."""
    return [put(site, cache[as_site(site)].detach()) for site in sites]


def splice(site: SiteLike, dictionary: Autoencoder, name: str = "sae") -> Edit:
    """Route `site` through a dictionary: its latents and error term become Sites, `<site>[name].latents` and `.error`.

    The activation becomes decode(latents) + error, equal to the original up to rounding until one of them is edited.
    """
    site = as_site(site)
    if site.part:
        raise BadEdit(
            f"splice was asked for at {site}, which is part of a dictionary itself. Splice at {site.kind} only."
        )
    if isinstance(dictionary, Dictionary) and dictionary.d_in != dictionary.d_out:
        raise BadEdit(
            f"splice was asked for at {site} with a transcoder of {dictionary.d_in} inputs and {dictionary.d_out} "
            "outputs, which does not write where it reads. Splice an autoencoder."
        )
    site.within(name, "latents")  # raises where the name cannot be part of a Site's
    return Edit(site, name, lambda value: value, {}, dictionary)


def coders(edit: Edit, value: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Encoder and decoder of a spliced dictionary, as they act on this activation: what is decoded has its dtype."""
    dictionary = edit.dictionary
    assert dictionary is not None
    if not isinstance(dictionary, Dictionary):
        return dictionary.encode, dictionary.decode
    here = dictionary.reading(value)
    return here.encode, lambda latents: here.decode(latents, value).to(value.dtype)
