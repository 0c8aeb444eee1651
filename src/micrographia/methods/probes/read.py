"""Read a model's activations at chosen positions of texts, as rows: what a probe is fitted to.

Texts of one length run together, so that nothing is padded, and no layer behind the last Site runs. A row is flat:
heads lie side by side. Sites of one width make a stack; Sites that do not fit in the memory that is allowed are read
one after the other, each in a pass of its own. Axes: site row d.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.edits import Edit
from micrographia.core.errors import NonFiniteActivations, UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.core.tokens import Inputs, ids_of, lengths_of, mask_of

TOKENS = 4096
"""Of a run of the model, at most, but for one long text."""
GIB = 2**30


class SiteStack(NamedTuple):
    """Activations of Sites of one width, as float32, on the model's device."""

    sites: tuple[Site, ...]
    x: Float[Tensor, "site row d"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceReader:
    """Reads the same rows of the same texts at any Sites, of any model with these tokens."""

    inputs: Inputs
    text: Int[Tensor, "row"]
    pos: Int[Tensor, "row"]
    edits: Sequence[Edit] = ()
    memory: float = 4.0
    """GiB of activations that may be held at once."""

    def shapes(self, model: Model, sites: Sequence[Site]) -> dict[Site, tuple[int, ...]]:
        """The axes of a row at each Site. A run of one text. Raises UserError for a Site without positions."""
        if odd := [site for site in sites if site.axes[:2] != ("batch", "pos")]:
            raise UserError(f"{odd[0]} has no value at each position to probe. Take another, such as L0.resid_post.")
        ids, _ = _trimmed(self.inputs, self.text[:1])
        cache = model.run(ids, keep=sites, edits=self.edits, logits="last", stop=_stop(model, sites)).cache
        return {site: tuple(cache[site].shape[2:]) for site in sites}

    def stacks(
        self, model: Model, sites: Sequence[Site], *, watch: Watch = silent, task: str = "activations"
    ) -> Iterator[SiteStack]:
        """Every Site's activations. Cost: one pass of the model, or as many as the memory asks for.

        Raises UserError for a Site that does not fit by itself; NonFiniteActivations.
        """
        widths = {site: torch.Size(shape).numel() for site, shape in self.shapes(model, sites).items()}
        for own in self._at_once(widths):
            yield from self._read(model, {site: widths[site] for site in own}, watch, task)

    def _at_once(self, widths: Mapping[Site, int]) -> list[list[Site]]:
        """The Sites, as many at a time as fit; those of one width beside each other."""
        found, room = list[list[Site]](), 0.0
        for site in sorted(widths, key=lambda site: widths[site]):
            size = 4 * len(self.text) * widths[site] / GIB
            if size > self.memory:
                raise UserError(
                    f"{len(self.text)} rows at {site} take {size:.1f} GiB; {self.memory:g} are allowed. Give fewer "
                    "texts or positions, or allow more memory."
                )
            if size > room:
                found.append([])
                room = self.memory
            found[-1].append(site)
            room -= size
        return found

    def _read(self, model: Model, widths: Mapping[Site, int], watch: Watch, task: str) -> Iterator[SiteStack]:
        device = model.weights.W_E.device
        members = {d: tuple(site for site in widths if widths[site] == d) for d in dict.fromkeys(widths.values())}
        held = {d: torch.empty(len(own), len(self.text), d, device=device) for d, own in members.items()}
        sites, done = list(widths), 0
        for texts, rows in self._batches():
            ids, cut = _trimmed(self.inputs, texts)
            cache = model.run(ids, keep=sites, edits=self.edits, logits="last", stop=_stop(model, sites)).cache
            at = (self.text[rows][:, None] == texts).int().argmax(1), self.pos[rows] - cut
            for d, own in members.items():
                for i, site in enumerate(own):
                    held[d][i, rows.to(device)] = cache[site][at].flatten(1).float().to(device)
            done += len(texts)
            watch(Progress(task, done, len(self.text.unique()), "text"))
        for d, own in members.items():
            _check_finite(own, held[d])
            yield SiteStack(own, held[d])

    def _batches(self) -> Iterator[tuple[Int[Tensor, "text"], Int[Tensor, "row"]]]:
        """Texts of one length, and the rows that are in them."""
        lengths = _lengths(self.inputs)
        texts = self.text.unique()
        for length in lengths[texts].unique().tolist():
            for own in texts[lengths[texts] == length].split(max(1, TOKENS // length)):
                yield own, torch.isin(self.text, own).nonzero()[:, 0]


def _lengths(inputs: Inputs) -> Int[Tensor, "text"]:
    mask = mask_of(inputs)
    return lengths_of(ids_of(inputs), None if mask is None else mask.cpu())


def _trimmed(inputs: Inputs, texts: Int[Tensor, "text"]) -> tuple[Int[Tensor, "text pos"], int]:
    """Some texts of one length without their padding, and how many columns of it there were."""
    ids = ids_of(inputs)
    cut = ids.shape[1] - int(_lengths(inputs)[texts[0]])
    return ids[texts.to(ids.device), cut:], cut


def _stop(model: Model, sites: Sequence[Site]) -> int | None:
    """Before which layer to stop; None for a Site outside of layers, which may come after them."""
    layers = [site.layer for site in sites]
    if None in layers:
        return None
    return min(model.shape.n_layers, max(layer for layer in layers if layer is not None) + 1)


def _check_finite(sites: Sequence[Site], x: Float[Tensor, "site row d"]) -> None:
    bad = [site for site, own in zip(sites, x) if not bool(own.isfinite().all())]
    if bad:
        raise NonFiniteActivations(
            f"Asked for activations at {bad[0]}; some are NaN or infinite. Run the model in a wider dtype, or take "
            "another Site."
        )
