"""Latents on a text of one's own, and the edit that adds one of them while a model goes on with a text.

What fires is asked of one text at a time. The edit adds what the decoder makes of so much of a latent to every token,
in the scale of that token's activation where the dictionary normalises. Its null adds a random direction as long.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import FIRST_TOKEN, KEPT, Dictionary
from micrographia.core.dictionaries.formats.load import found_below, load_one
from micrographia.core.edits import Edit, apply
from micrographia.core.errors import BadShape, MicrographiaError, UserError
from micrographia.core.prompts import LanguageModel
from micrographia.core.sites import Site, one_site
from micrographia.core.tokens import ids_of, to_str_tokens
from micrographia.methods.dictionaries.features.firings import weights_hash

MOST = 40
"""Latents that are given for a text."""


class OnText(NamedTuple):
    """Values of latents on the tokens of one text, the largest first. Memory (latent, token)."""

    tokens: list[str]
    latents: list[int]
    values: Float[Tensor, "latent token"]


def fitting_site(model: LanguageModel, dictionary: Dictionary) -> Site:
    """Where this model has what the dictionary reads. Runs a text of one token.

    Raises UserError for a dictionary that does not say where it reads, UnknownSite for a model that has no such Site,
    BadShape for one of another width.
    """
    if dictionary.about.site is None:
        raise UserError(f"{dictionary!r} does not say where it reads. Give one whose files name its site.")
    site = one_site(model.sites, dictionary.about.site)
    start = torch.zeros(1, 1, dtype=torch.long, device=model.weights.W_E.device)
    value = model.run(start, keep=[site], logits="last").cache[site]
    try:
        dictionary.encode(value[:, :0])
    except BadShape as error:
        raise BadShape(f"The model does not fit: {error}") from error
    return site


def latents_on(
    model: LanguageModel,
    dictionary: Dictionary,
    site: Site,
    text: str,
    *,
    latents: Sequence[int] | None = None,
    most: int = MOST,
) -> OnText:
    """The latents that fire on a text, those with the largest activation of either sign first; or these, as they are.

    The first token (BOS, where there is one) is left out, since it is often a sink: values there are 0; but of a
    dictionary that is known to have been trained on such tokens it is read as the others.
    One forward pass. Raises UserError for an empty text and for one longer than the model reads.
    """
    ids = ids_of(model.to_tokens(text)).to(model.weights.W_E.device)
    if ids.shape[1] > model.shape.n_ctx:
        raise UserError(
            f"Asked for the latents on a text of {ids.shape[1]} tokens; this model reads {model.shape.n_ctx}. Give a "
            "shorter one."
        )
    kept = model.run(ids, keep=[site], logits="last").cache[site]
    values = dictionary.encode(kept)[0].float().cpu()
    values[0] *= dictionary.about.training.get(FIRST_TOKEN) == KEPT
    tokens = to_str_tokens(model.tokenizer, ids[0])
    if latents is None:
        order = values.abs().amax(0).sort(descending=True, stable=True)
        latents = order.indices[: min(most, int((order.values > 0).sum()))].tolist()
    return OnText(tokens, list(latents), values[:, list(latents)].T)


def adding(dictionary: Dictionary, site: Site, latent: int, strength: float) -> Edit:
    """The edit that adds `strength` of a latent, in units of its activation, at every token."""
    return apply(dictionary.about.target or site, lambda value: value + _added(dictionary, latent, strength, value))


def adding_random(dictionary: Dictionary, site: Site, latent: int, strength: float, generator: Generator) -> Edit:
    """The same with a random direction in the latent's place, as long at every token."""
    place = dictionary.about.target or site
    n_axes = len(place.axes) - 2  # all but batch and pos
    drawn: dict[tuple[int, ...], Tensor] = {}

    def change(value: Tensor) -> Tensor:
        added, axes = _added(dictionary, latent, strength, value), tuple(range(-n_axes, 0))
        shape = tuple(value.shape[-n_axes:])
        if shape not in drawn:  # one direction for the whole text
            drawn[shape] = torch.randn(shape, generator=generator)
        direction = drawn[shape].to(value)
        size = torch.linalg.vector_norm(added, dim=axes, keepdim=True)
        return value + (size / torch.linalg.vector_norm(direction)) * direction

    return apply(place, change)


def _added(dictionary: Dictionary, latent: int, strength: float, value: Tensor) -> Tensor:
    """What so much of a latent adds to this activation; a transcoder's input, and so its scale, is not at hand."""
    here = dictionary.reading(value)
    off = torch.zeros(dictionary.n_latents, dtype=dictionary.dtype, device=value.device)
    on = off.clone()
    on[latent] = strength
    x = value if dictionary.about.target is None else None
    return (here.decode(on, x) - here.decode(off, x)).to(value.dtype)


def dictionaries_of(folder: Path | str, wanted: Mapping[str, str], device: torch.device) -> dict[str, Dictionary]:
    """Of the dictionaries in and below a folder those with these hashes of weights (name -> hash), by name.

    Reads one after another until all are found; what cannot be read is passed over. Empty where none fits.
    """
    folder, found = Path(folder), dict[str, Dictionary]()
    for place in [folder, *(folder / each.at for each in found_below(folder))]:
        if found.keys() == wanted.keys():
            break
        with suppress(MicrographiaError):
            one = load_one(place)
            code = weights_hash(one)
            found |= {name: one.to(device=device) for name, own in wanted.items() if own == code}
    return found
