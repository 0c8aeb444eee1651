"""What writers share: what a format can hold, the exact folds that make a dictionary fit it, and what is then lost."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.dictionaries.folding import in_decoder_units, subtracting
from micrographia.core.dictionaries.several import AnyDictionary
from micrographia.core.errors import CannotCarry

NAMES = {
    "relu": "ReLU", "gated": "gated", "topk": "TopK", "topk-signed": "TopK", "abstopk": "AbsTopK",
    "groupmax": "GroupMax", "jumprelu": "JumpReLU", "jump": "JumpReLU",
}  # fmt: skip
"""Our activations that some format can be written with, by the names of the papers."""


class ToolFiles(NamedTuple):
    """Files of a folder, by name, and what of the dictionary they do not hold."""

    files: dict[str, bytes]
    lost: tuple[str, ...] = ()


class Carries(NamedTuple):
    """What dictionaries a format can hold."""

    format: str
    activations: Mapping[str, str]
    """Our activation -> the one that it is written as."""
    subtracts: bool | None = None
    """Whether b_dec is subtracted in all of its dictionaries; None: as each says."""
    skip: bool = False
    normalisations: frozenset[str] = frozenset()
    square: bool = True
    """Whether outputs are as wide as inputs."""
    decoder_norms: bool = False
    """Whether it can say that latents are in units of decoder norms."""


def single(value: AnyDictionary, format: str) -> Dictionary:
    """The one dictionary to write. Raises CannotCarry for several."""
    if not isinstance(value, Dictionary):
        raise CannotCarry(f"Asked to write {value!r} as {format}, whose files hold one dictionary.")
    return value


def fitted(of: Dictionary, carries: Carries) -> Dictionary:
    """The same dictionary as this format can hold it. Raises CannotCarry, with the reason.

    Folded, exactly: whether b_dec is subtracted, decoder norms, a threshold of 0 for ReLU.
    """
    form, name = of.form, carries.format
    if form.activation not in carries.activations:
        held = list(dict.fromkeys(NAMES[each] for each in carries.activations))
        listed = " and ".join(filter(None, (", ".join(held[:-1]), held[-1])))
        raise refused(of, name, f"holds {listed} dictionaries; this one is {form.activation}")
    if form.normalise != "none" and form.normalise not in carries.normalisations:
        raise refused(of, name, f"cannot say that inputs are normalised ({form.normalise})")
    if of.weights.W_skip is not None and not carries.skip:
        raise refused(of, name, "has no place for a skip connection")
    if carries.square and of.d_in != of.d_out:
        raise refused(of, name, f"holds outputs as wide as inputs; here they are {of.d_out} and {of.d_in}")
    if form.axes and not form.heads:
        raise refused(of, name, f"cannot say that the {of.d_in} inputs are of the axes {form.axes}")
    if not carries.decoder_norms:
        of = in_decoder_units(of)
    if carries.subtracts is not None:
        of = subtracting(of, carries.subtracts)
    return as_activation(of, carries.activations[of.form.activation], name)


def as_activation(of: Dictionary, wanted: str, format: str) -> Dictionary:
    """The same latents by another activation, where that is exact."""
    w, had = of.weights, of.form.activation
    if had == wanted:
        return of
    threshold = w.threshold
    if had == "relu":
        assert w.b_enc is not None
        threshold = torch.zeros_like(w.b_enc)
    assert threshold is not None
    if had == "jump" and bool((threshold < 0).any()):
        raise refused(of, format, "lets no negative latents through, as thresholds below 0 here do")
    return replace(of, weights=replace(w, threshold=threshold.clamp(min=0)), form=replace(of.form, activation=wanted))


def untold(of: Dictionary, *, model: bool = False, site: bool = False) -> tuple[str, ...]:
    """What is known of a dictionary beside its weights that a format does not hold: those marked True it does."""
    about = of.about
    known = {
        f"the model's name ({about.model})": about.model and not model,
        f"where it reads ({about.site})": about.site and not site,
        f"where it writes ({about.target})": about.target and not site,
        f"how it was trained ({len(about.training)} entries)": about.training,
        "that it reads the heads of its Site as one": of.form.heads,
    }
    return tuple(what for what, lost in known.items() if lost)


def widened(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors as numpy can hold them: bfloat16 becomes float32, which changes no value."""
    if not any(value.dtype == torch.bfloat16 for value in tensors.values()):
        return dict(tensors), ()
    return {name: value.float() for name, value in tensors.items()}, ("the dtype bfloat16 (written as float32)",)


def refused(of: Dictionary, name: str, why: str) -> CannotCarry:
    """The error that says what this format is that it cannot hold the dictionary. `save` adds which ones can."""
    return CannotCarry(f"Asked to write {of!r} as {name}, which {why}.")
