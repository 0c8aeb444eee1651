"""Gemma Scope 2: `params.safetensors` and `config.json`, JumpReLU dictionaries and transcoders of Gemma 3.

Read as SAELens 6.54.12 and circuit-tracer 0.5.0 read it. affine_skip_connection is (d_in, d_out). A cross-layer
transcoder is a folder with one file for each layer, whose w_dec is (latent, layer, d_out) over all layers.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import built, checked, one_of, renamed
from micrographia.core.dictionaries.formats.facets import facets
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.places import module_site
from micrographia.core.dictionaries.formats.writing import Carries, ToolFiles, fitted, single, untold
from micrographia.core.dictionaries.several import AnyDictionary, CrossLayerTranscoder, CrossLayerWeights
from micrographia.core.errors import BadShape, UnreadableWeights
from micrographia.core.sites import Site
from micrographia.core.store.foreign import foreign_json
from micrographia.core.store.formats import tensors_bytes

CONFIG, WEIGHTS = "config.json", "params.safetensors"
TENSORS = {"W_enc": "w_enc", "W_dec": "w_dec", "b_enc": "b_enc", "b_dec": "b_dec", "threshold": "threshold"}
SKIP = {"W_skip": "affine_skip_connection"}
KINDS = (("resid_post", "resid_post"), ("attn_out", "z"), ("mlp_out", "mlp_out"))  # of folder names
SUMMED = "SAELens reads a layer of it as one transcoder with its decoders summed, whose latents alone are right."
CUT = "circuit-tracer 0.5.0 leaves out the last layer of such a folder and fails."


def holds(found: Holding) -> bool:
    return bool(_files(found))


def read(found: Holding) -> AnyDictionary:
    files = _files(found)
    if any(len(found.shapes(name).get("w_dec", ())) == 3 for name in files):
        return _across_layers(found, files)
    if len(files) > 1:
        raise UnreadableWeights(f"Asked for the dictionary in {found.folder}. Found several: {', '.join(files)}.")
    return _one(found, files[0])


def _files(found: Holding) -> list[str]:
    """The safetensors files that hold an encoder under its name, by their number; a damaged one by its own name."""
    files = [name for name in found.ending(".safetensors") if {"w_enc", "w_dec"} <= found.tensor_names(name)]
    if not files and found.has(WEIGHTS) and not found.tensor_names(WEIGHTS):
        return [WEIGHTS]
    return sorted(files, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])


def _one(found: Holding, name: str) -> Dictionary:
    config, tensors = found.config(CONFIG), found.tensors(name)
    if config.get("architecture") is not None:
        one_of(found, "architecture", config["architecture"], ("jump_relu",))
    affine = config.get("affine_connection")
    if affine is not None and bool(affine) != (SKIP["W_skip"] in tensors):
        raise UnreadableWeights(
            f"The config in {found.folder} says affine_connection = {affine}; the file has "
            f"{'a' if SKIP['W_skip'] in tensors else 'no'} {SKIP['W_skip']}. They do not belong together."
        )
    about = _about(found, config, SKIP["W_skip"] in tensors)
    heads = about.site is not None and about.site.kind == "z"
    form = Form(activation="jumprelu", subtract_b_dec=False, heads=heads)
    return built(found, renamed(found, tensors, TENSORS, SKIP), form, about)


def _about(found: Holding, config: Mapping[str, Any], skips: bool) -> About:
    where = found.path.absolute().as_posix()
    told, notes = facets(where), []
    site, target = module_site(config.get("hf_hook_point_in")), module_site(config.get("hf_hook_point_out"))
    if site is None and told.layer is not None:
        site, target = _by_folder(where, told.layer)
    if site is None:
        notes.append("Neither its config nor its folders name its place.")
    if skips:
        notes.append("SAELens' own decode leaves the skip out; its forward adds it (6.54.12).")
    training = {"architecture": "jumprelu", **config, **({} if told.l0 is None else {"l0": told.l0})}
    return About(
        model=str(config.get("model_name") or ""), site=site, target=None if target == site else target,
        layout="gemma_scope_2", source=str(found.path), notes=tuple(notes), training=MappingProxyType(training),
    )  # fmt: skip


def _by_folder(where: str, layer: int) -> tuple[Site | None, Site | None]:
    if "transcoder" in where or "/clt" in where:
        return Site("mlp_norm", layer), Site("mlp_out", layer)
    return next((Site(kind, layer) for word, kind in KINDS if word in where), None), None


def _across_layers(found: Holding, files: list[str]) -> CrossLayerTranscoder:
    """The layers' files as one; of each decoder, what it writes to its own layer and later ones."""
    layers, notes = [], (SUMMED, CUT)
    for i, name in enumerate(files):
        kept, more = checked(found, renamed(found, found.tensors(name), TENSORS, SKIP))
        if kept["W_dec"].ndim != 3 or kept["W_dec"].shape[1] != len(files):
            raise UnreadableWeights(
                f"{name} in {found.folder} has a decoder of shape {tuple(kept['W_dec'].shape)}; {len(files)} layers' "
                "files "
                f"lie here, and it must be (latent, {len(files)}, d_out). Some are missing, or do not belong to it."
            )
        before = kept["W_dec"][:, :i]
        if before.numel() and bool(before.any()):
            notes += (f"The decoder of layer {i} has entries for earlier layers, which are left out.",)
        layers.append({**kept, "W_dec": kept["W_dec"][:, i:]})
        notes += more
    if len({frozenset(layer) for layer in layers}) > 1:
        raise UnreadableWeights(f"Some layers in {found.folder} have a skip and others have none.")
    weights = {name: tuple(layer[name] for layer in layers) for name in layers[0]}
    about = About(layout="gemma_scope_2", source=str(found.path), notes=notes)
    try:
        return CrossLayerTranscoder(
            CrossLayerWeights(**weights), Form(activation="jumprelu", subtract_b_dec=False), about
        )
    except BadShape as error:
        raise UnreadableWeights(f"The files in {found.folder} contradict each other. {error}") from error


CARRIES = Carries(
    "gemma_scope_2", {"jumprelu": "jumprelu", "jump": "jumprelu", "relu": "jumprelu"}, subtracts=False, skip=True,
    square=False,
)  # fmt: skip
MODULES = {
    "resid_post": "model.layers.{}.output",
    "z": "model.layers.{}.self_attn.o_proj.input",
    "mlp_norm": "model.layers.{}.pre_feedforward_layernorm.output",
    "mlp_out": "model.layers.{}.post_feedforward_layernorm.output",
}


def write(value: AnyDictionary) -> ToolFiles:
    one = fitted(single(value, "gemma_scope_2"), CARRIES)
    names = {**TENSORS, **SKIP}
    tensors: dict[str, Tensor] = {names[ours]: each for ours, each in one.weights.named().items()}
    about, config = one.about, {"architecture": "jump_relu", "affine_connection": one.weights.W_skip is not None}
    config |= {"model_name": about.model} if about.model else {}
    lost = []
    for key, site in (("hf_hook_point_in", about.site), ("hf_hook_point_out", about.target)):
        if site is not None and site.kind in MODULES:
            config[key] = MODULES[site.kind].format(site.layer)
        elif site is not None:
            lost.append(f"{site} (no module's output of a Gemma)")
    return ToolFiles(
        {CONFIG: foreign_json(config), WEIGHTS: tensors_bytes(tensors)}, (*untold(one, model=True, site=True), *lost)
    )
