"""Gemma Scope 1: `params.npz`, JumpReLU dictionaries and transcoders of Gemma 2.

Source: Lieberum et al. 2024, arXiv 2408.05147. b_dec is not subtracted, nothing is normalised. The file holds five
arrays and no word on itself: model, layer, width and L0 are in the names of the folders and of the repository.
"""

import re
from math import sqrt
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import built, renamed
from micrographia.core.dictionaries.formats.facets import facets
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.writing import Carries, ToolFiles, fitted, single, untold, widened
from micrographia.core.dictionaries.several import AnyDictionary
from micrographia.core.errors import UnreadableWeights
from micrographia.core.sites import Site
from micrographia.core.store.foreign import npz_bytes

WEIGHTS = "params.npz"
TENSORS = {name: name for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
SITES = (("-res", "resid_post"), ("-mlp", "mlp_out"), ("-att", "z"))  # of repository names
REPOSITORY = re.compile(r"gemma-scope-(\d+b)-(pt|it)(-(?:res|mlp|att|transcoders))")
EMBEDDING = (
    "A dictionary of embeddings: W_enc is divided by sqrt(d_in) and W_dec multiplied by it, so that it reads the "
    "residual stream's scaled embeddings, as SAELens has it."
)
FOLDED_NORM = (
    "A transcoder of Gemma Scope reads the normalised input of the MLP without the norm's gain, which was folded into "
    "the MLP's weights: divide `mlp_norm` by (1 + gain) before encoding."
)
NAMELESS = "The file names neither model nor place; nor do its folders."


def holds(found: Holding) -> bool:
    return _file(found) != ""


def read(found: Holding) -> Dictionary:
    tensors = {re.sub("^w_", "W_", name): value for name, value in found.tensors(_file(found)).items()}
    scaling = tensors.pop("scaling_factor", None)
    named = renamed(found, tensors, TENSORS)
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        raise UnreadableWeights(f"{found.path} holds a scaling_factor other than 1, which SAELens refuses too.")
    about = _about(found)
    if about.site == Site("embed"):
        named = _of_embeddings(named)
    heads = about.site is not None and about.site.kind == "z"
    return built(found, named, Form(activation="jumprelu", subtract_b_dec=False, heads=heads), about)


def _file(found: Holding) -> str:
    """The one npz file that holds an encoder."""
    files = [
        name
        for name in found.ending(".npz")
        if {"w_enc", "w_dec"} <= {each.lower() for each in found.tensor_names(name)}
    ]
    return files[0] if len(files) == 1 else WEIGHTS if found.has(WEIGHTS) else ""


def _of_embeddings(named: dict[str, Tensor]) -> dict[str, Tensor]:
    root = sqrt(named["W_enc"].shape[0])
    return {**named, "W_enc": named["W_enc"] / root, "W_dec": named["W_dec"] * root}


def _about(found: Holding) -> About:
    where = found.path.absolute().as_posix()
    told, repository = facets(where), REPOSITORY.search(where)
    training: dict[str, Any] = {"architecture": "jumprelu", **({} if told.l0 is None else {"l0": told.l0})}
    site, target, notes = None, None, []
    model = f"google/gemma-2-{repository[1]}{'-it' if repository[2] == 'it' else ''}" if repository else ""
    if re.search(r"(?:^|/)embedding/", where):
        site, notes = Site("embed"), [EMBEDDING]
    elif repository and told.layer is not None and repository[3] == "-transcoders":
        site, target, notes = Site("mlp_norm", told.layer), Site("mlp_out", told.layer), [FOLDED_NORM]
    elif repository and told.layer is not None:
        site = Site(dict(SITES)[repository[3]], told.layer)
    else:
        notes = [NAMELESS]
    return About(
        model=model, site=site, target=target, layout="gemma_scope", source=str(found.path), notes=tuple(notes),
        training=MappingProxyType(training),
    )  # fmt: skip


CARRIES = Carries(
    "gemma_scope", {"jumprelu": "jumprelu", "jump": "jumprelu", "relu": "jumprelu"}, subtracts=False, square=False
)


def write(value: AnyDictionary) -> ToolFiles:
    one = fitted(single(value, "gemma_scope"), CARRIES)
    tensors, lost = widened(one.weights.named())
    arrays = {name: each.detach().cpu().numpy() for name, each in tensors.items()}
    return ToolFiles({WEIGHTS: npz_bytes(arrays)}, (*untold(one), *lost))
