"""circuit-tracer: a transcoder for each layer (`layer_<i>.safetensors`), and `config.yaml`.

Measured with circuit-tracer 0.5.0; `k` and `activation: topk` are of its head of April 2026 (read). W_enc is (latent,
d_in), W_skip (d_out, d_in). Its JumpReLU has no ReLU, and its top-k lets negative latents through.
`cross_layer` has its cross-layer transcoders.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import built, renamed, whole_number
from micrographia.core.dictionaries.formats.flat_yaml import flat_yaml, yaml_bytes
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.places import OURS, lens_site
from micrographia.core.dictionaries.formats.writing import Carries, ToolFiles, fitted, refused, untold
from micrographia.core.dictionaries.several import AnyDictionary, CrossLayerTranscoder, DictionarySet
from micrographia.core.errors import CannotCarry
from micrographia.core.sites import Site
from micrographia.core.store.formats import tensors_bytes

CONFIG = "config.yaml"
TENSORS = {"W_enc": "W_enc.T", "W_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec"}
OPTIONAL = {"threshold": "activation_function.threshold", "W_skip": "W_skip.T"}
LAYER = re.compile(r"layer_(\d+)\.safetensors")
FIRST = "circuit-tracer's attribution sets all latents of the first position to 0; they are kept here."
NEGATIVE = "Latents above a threshold below 0 are negative, as circuit-tracer has them."


def holds(found: Holding) -> bool:
    return bool(_files(found))


def listed(found: Holding) -> dict[int, str]:
    """Layer -> where its transcoder lies, where config.yaml names them and none is here: paths, or hf:// and a file."""
    places = [] if found.only or _files(found) else config_of(found).get("transcoders") or []
    return dict(enumerate(map(str, places)))


def config_of(found: Holding) -> dict[str, Any]:
    """config.yaml, empty where there is none. Raises UnreadableWeights where it is no flat YAML."""
    path = found.folder / CONFIG
    return flat_yaml(path) if path.is_file() else {}


def read(found: Holding) -> DictionarySet | Dictionary:
    """All layers; the one dictionary of a single file."""
    config, files = config_of(found), _files(found)
    layers = {layer: _layer(found, name, layer, config) for layer, name in files.items()}
    if found.only:
        return layers[next(iter(files))]
    notes = [FIRST]
    if missing := sorted(set(range(max(layers) + 1)) - set(layers)):
        notes.append(f"Layers {missing} are not here; circuit-tracer refuses such a set.")
    about = About(model=str(config.get("model_name") or ""), layout="circuit_tracer", source=str(found.path),
                  notes=tuple(notes), training=MappingProxyType(dict(config)))  # fmt: skip
    return DictionarySet(layers, about)


def _files(found: Holding) -> dict[int, str]:
    named = {int(match[1]): name for name in found.names if (match := LAYER.fullmatch(name))}
    return dict(sorted((layer, name) for layer, name in named.items() if _is_layer(found, name)))


def _is_layer(found: Holding, name: str) -> bool:
    """Whether it holds a transcoder, or cannot be opened, which the reader then says."""
    return {"W_enc", "W_dec", "b_enc", "b_dec"} <= found.tensor_names(name) or not found.tensor_names(name)


def _layer(found: Holding, name: str, layer: int, config: Mapping[str, Any]) -> Dictionary:
    at = Holding(found.folder, name)
    tensors = found.tensors(name)
    k = tensors.pop("k", config.get("k"))
    named = renamed(at, tensors, TENSORS, OPTIONAL)
    ranks = config.get("activation") == "topk" or k is not None
    if "threshold" in named:
        named["threshold"] = named["threshold"].reshape(-1)
    activation = "topk-signed" if ranks else "jump" if "threshold" in named else "relu"
    form = Form(activation=activation, subtract_b_dec=False, k=whole_number(at, "k", k) if ranks else None)
    site, target = (hooked(layer, config.get(f"feature_{side}_hook")) for side in ("input", "output"))
    threshold = named.get("threshold")
    notes = (NEGATIVE,) if threshold is not None and bool((threshold < 0).any()) else ()
    hooks = {name: config[name] for name in ("feature_input_hook", "feature_output_hook") if name in config}
    about = About(
        model=str(config.get("model_name") or ""), site=site, target=target, layout="circuit_tracer",
        source=str(at.path), notes=notes, training=MappingProxyType({"layer": layer, **hooks}),
    )  # fmt: skip
    return built(at, named, form, about)


def hooked(layer: int, hook: object) -> Site | None:
    """The Site of a hook that is named without its block."""
    return lens_site(f"blocks.{layer}.{hook}") if hook else None


CARRIES = Carries("circuit_tracer", {"jump": "jump", "jumprelu": "jump", "relu": "relu"}, subtracts=False, skip=True)


def write(value: AnyDictionary) -> ToolFiles:
    """layer_<i>.safetensors and config.yaml. One dictionary is written as the layer of its Site."""
    if isinstance(value, CrossLayerTranscoder):
        raise AssertionError("`cross_layer` writes these")
    layers = dict(value) if isinstance(value, DictionarySet) else {_own_layer(value): value}
    for one in layers.values():
        _refuse_autoencoder(one)
    fit = {layer: fitted(one, CARRIES) for layer, one in layers.items()}
    if len(widths := {one.n_latents for one in fit.values()}) > 1:
        raise CannotCarry(
            f"Asked to write {value!r} as circuit_tracer, whose layers have equally many latents. Found "
            f"{sorted(widths)}."
        )
    files = {f"layer_{layer}.safetensors": tensors_bytes(_tensors(one)) for layer, one in fit.items()}
    first = fit[min(fit)]
    config, lost = hooks_config("transcoder_set", value.about.model or first.about.model, first.about)
    if missing := sorted(set(range(max(fit) + 1)) - set(fit)):
        lost += (f"layers {missing} are not there, and circuit-tracer refuses a set without them",)
    told = {what for one in fit.values() for what in untold(one, model=True, site=True)}
    return ToolFiles({CONFIG: yaml_bytes(config), **files}, (*lost, *sorted(told)))


def _refuse_autoencoder(one: Dictionary) -> None:
    """circuit-tracer replaces what writes at its output hook by a transcoder; an autoencoder replaces nothing."""
    about, form = one.about, one.form
    unknown = about.site is None and not form.subtract_b_dec
    transcodes = about.target not in (None, about.site) or one.weights.W_skip is not None or unknown
    if not transcodes and about.layout != "circuit_tracer":
        raise refused(one, "circuit_tracer", "holds transcoders; this is an autoencoder, which writes where it reads")


def _own_layer(one: Dictionary) -> int:
    return 0 if one.about.site is None or one.about.site.layer is None else one.about.site.layer


def _tensors(one: Dictionary) -> dict[str, Tensor]:
    w = one.weights
    assert w.b_enc is not None
    tensors = {"W_enc": w.W_enc.T, "W_dec": w.W_dec, "b_enc": w.b_enc, "b_dec": w.b_dec}
    tensors |= {} if w.threshold is None else {"activation_function.threshold": w.threshold}
    return tensors | ({} if w.W_skip is None else {"W_skip": w.W_skip.T})


def hooks_config(kind: str, model: str, about: About) -> tuple[dict[str, Any], tuple[str, ...]]:
    """config.yaml of a set or a cross-layer transcoder; both hooks are required by circuit-tracer."""
    lost: tuple[str, ...] = ()
    hooks = {}
    for side, site, usual in (("input", about.site, "hook_resid_mid"), ("output", about.target, "hook_mlp_out")):
        named = about.training.get(f"feature_{side}_hook")
        hooks[side] = named or OURS.get("" if site is None else site.kind, usual)
        if not named and (site is None or site.kind not in OURS):
            lost += (f"where it {'reads' if side == 'input' else 'writes'}: not known, {usual} is written",)
    return {
        "model_name": model or "unknown", "model_kind": kind, "feature_input_hook": hooks["input"],
        "feature_output_hook": hooks["output"], "scan": model or "unknown",
    }, lost  # fmt: skip
