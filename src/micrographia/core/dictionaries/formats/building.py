"""What every reader does with the tensors it found: each one named, finite, of the stated sizes and of one dtype.

A contradiction is an error, never a guess.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.errors import BadConfig, BadShape, UnreadableWeights

Named = Mapping[str, str]
"""Our name of a tensor -> its name in the file; with a `.T` behind it, its transpose is ours."""


def renamed(
    holding: Holding,
    tensors: Mapping[str, Tensor],
    needed: Named,
    optional: Named | None = None,
    aside: Sequence[str] = (),
) -> dict[str, Tensor]:
    """The tensors under our names. `aside` may be there and are left out.

    Raises UnreadableWeights where one is missing, or one is there that this reader does not know.
    """
    wanted = {**needed, **(optional or {})}
    known = {name.removesuffix(".T") for name in wanted.values()} | set(aside)
    missing = sorted(name.removesuffix(".T") for name in needed.values() if name.removesuffix(".T") not in tensors)
    strange = sorted(set(tensors) - known)
    if missing or strange:
        lacks = f" It lacks {', '.join(missing)}." if missing else ""
        more = f" Not known here: {', '.join(strange)}." if strange else ""
        raise UnreadableWeights(
            f"Asked for the dictionary in {holding.path}. Found the tensors {', '.join(sorted(tensors)) or '(none)'}."
            f"{lacks}{more} Check that the files belong together."
        )
    found = {}
    for ours, name in wanted.items():
        if (value := tensors.get(name.removesuffix(".T"))) is not None:
            found[ours] = value.T.contiguous() if name.endswith(".T") else value
    return found


def built(holding: Holding, tensors: Mapping[str, Tensor], form: Form, about: About) -> Dictionary:
    """The Dictionary of these tensors, under our names. Raises UnreadableWeights for what cannot be weights."""
    tensors, notes = checked(holding, tensors)
    try:
        made = Dictionary(DictionaryWeights(**tensors), form, replace(about, notes=(*about.notes, *notes)))
    except (BadShape, BadConfig) as error:
        raise UnreadableWeights(f"The dictionary in {holding.path} contradicts itself. {error}") from error
    if form.k is not None and form.k > made.n_latents:
        raise UnreadableWeights(
            f"The dictionary in {holding.path} keeps k = {form.k} latents of a row, and has {made.n_latents}."
        )
    if form.activation == "groupmax" and made.n_latents % (form.k or 1):
        raise UnreadableWeights(
            f"The dictionary in {holding.path} takes the largest of each of {form.k} equal groups, and has "
            f"{made.n_latents} latents, which do not divide so."
        )
    return made


def checked(holding: Holding, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors in one floating dtype, and a note where they had several. Raises UnreadableWeights for NaN."""
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise UnreadableWeights(f"{name} in {holding.path} holds {value.dtype}, not weights.")
        odd = value.isnan() if name == "threshold" else ~value.isfinite()
        if n := int(odd.sum()):
            raise UnreadableWeights(
                f"Asked for the dictionary in {holding.path}. Found {n} of {value.numel()} entries of {name} that are "
                "no finite numbers: it was saved damaged. Take another checkpoint."
            )
    dtypes = {value.dtype for value in tensors.values()}
    if len(dtypes) == 1:
        return dict(tensors), ()
    widest = torch.float64 if torch.float64 in dtypes else torch.float32
    names = ", ".join(sorted(str(each).removeprefix("torch.") for each in dtypes))
    note = f"The file holds tensors of {names}; all are read as {str(widest).removeprefix('torch.')}."
    return {name: value.to(widest) for name, value in tensors.items()}, (note,)


def agree(holding: Holding, config: Mapping[str, Any], stated: Mapping[str, int]) -> None:
    """Raise UnreadableWeights unless each size that the config states is the tensors'."""
    for name, found in stated.items():
        said = config.get(name)
        if said is not None and said != found:
            raise UnreadableWeights(
                f"The config in {holding.folder} says {name} = {said}; the tensors have {found}. They do not belong "
                "together: restore the folder."
            )


def one_of(holding: Holding, what: str, value: Any, possible: Sequence[str]) -> str:
    """`value`, where it is one of these. Raises UnreadableWeights."""
    if value not in possible:
        raise UnreadableWeights(
            f"Asked for the dictionary in {holding.path}. Found the {what} {value!r}; known are {', '.join(possible)}."
        )
    return value


def whole_number(holding: Holding, what: str, value: Any) -> int:
    """A positive whole number that a file states. Raises UnreadableWeights where it is missing or something else."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise UnreadableWeights(
            f"The dictionary in {holding.path} needs {what}, a positive whole number. "
            f"Found {'none' if value is None else repr(value)}."
        )
    return int(value)


def per_latent(threshold: Tensor, like: Tensor) -> Tensor:
    """One threshold as one for each latent, in the dtype of the encoder's bias."""
    return threshold.to(like.dtype).expand(like.shape).contiguous() if threshold.numel() == 1 else threshold
