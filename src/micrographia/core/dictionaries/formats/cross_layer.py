"""circuit-tracer's cross-layer transcoders: `W_enc_<i>.safetensors`, `W_dec_<i>.safetensors` and `config.yaml`.

Measured with circuit-tracer 0.5.0. W_enc_i is (latent, d_in), W_dec_i (latent, layers from i on, d_out).
"""

import re
from types import MappingProxyType

from micrographia.core.dictionaries.dictionary import About
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import checked, renamed
from micrographia.core.dictionaries.formats.circuit_tracer import CONFIG, FIRST, config_of, hooked, hooks_config
from micrographia.core.dictionaries.formats.flat_yaml import yaml_bytes
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.writing import ToolFiles
from micrographia.core.dictionaries.several import AnyDictionary, CrossLayerTranscoder, CrossLayerWeights
from micrographia.core.errors import BadShape, CannotCarry, UnreadableWeights
from micrographia.core.store.formats import tensors_bytes

ENCODER = re.compile(r"W_enc_(\d+)\.safetensors")
HALF = "circuit-tracer's load_clt casts to bfloat16 unless it is told another dtype."


def holds(found: Holding) -> bool:
    return not found.only and any(ENCODER.fullmatch(name) for name in found.names)


def read(found: Holding) -> CrossLayerTranscoder:
    n = sum(ENCODER.fullmatch(name) is not None for name in found.names)
    config, layers, notes = config_of(found), [], (FIRST, HALF)
    for i in range(n):
        if not found.has(f"W_enc_{i}.safetensors", f"W_dec_{i}.safetensors"):
            raise UnreadableWeights(
                f"Asked for the cross-layer transcoder in {found.folder}. Found {n} encoders, and not both files of "
                f"layer {i}: W_enc_{i}.safetensors and W_dec_{i}.safetensors."
            )
        tensors = found.tensors(f"W_enc_{i}.safetensors") | found.tensors(f"W_dec_{i}.safetensors")
        needed = {"W_enc": f"W_enc_{i}.T", "b_enc": f"b_enc_{i}", "b_dec": f"b_dec_{i}", "W_dec": f"W_dec_{i}"}
        kept, more = checked(found, renamed(found, tensors, needed, {"threshold": f"threshold_{i}"}))
        layers.append(kept)
        notes += more
    if len(kinds := {frozenset(layer) for layer in layers}) > 1:
        raise UnreadableWeights(
            f"Some layers in {found.folder} have thresholds and others have none ({len(kinds)} kinds)."
        )
    weights = CrossLayerWeights(**{name: tuple(layer[name] for layer in layers) for name in layers[0]})
    form = Form(activation="relu" if weights.threshold is None else "jump", subtract_b_dec=False)
    about = About(
        model=str(config.get("model_name") or ""), layout="circuit_tracer", source=str(found.path), notes=notes,
        site=hooked(0, config.get("feature_input_hook")), target=hooked(0, config.get("feature_output_hook")),
        training=MappingProxyType(dict(config)),
    )  # fmt: skip
    try:
        return CrossLayerTranscoder(weights, form, about)
    except BadShape as error:
        raise UnreadableWeights(f"The files in {found.folder} contradict each other. {error}") from error


def write(value: AnyDictionary) -> ToolFiles:
    if not isinstance(value, CrossLayerTranscoder):
        raise CannotCarry(f"Asked to write {value!r} as a cross-layer transcoder, which it is not.")
    w, form = value.weights, value.form
    if w.W_skip is not None:
        raise CannotCarry(
            f"Asked to write {value!r} for circuit-tracer: its files have no place for a cross-layer transcoder's skip."
        )
    if form.activation == "jumprelu":
        assert w.threshold is not None
        threshold = tuple(each.clamp(min=0) for each in w.threshold)
    elif form.activation in ("relu", "jump"):
        threshold = w.threshold
    else:
        raise CannotCarry(f"Asked to write {value!r} for circuit-tracer, whose activations are relu and jumprelu.")
    files = {}
    for i in range(value.n_layers):
        encoder = {f"W_enc_{i}": w.W_enc[i].T, f"b_enc_{i}": w.b_enc[i], f"b_dec_{i}": w.b_dec[i]}
        encoder |= {} if threshold is None else {f"threshold_{i}": threshold[i]}
        files[f"W_enc_{i}.safetensors"] = tensors_bytes(encoder)
        files[f"W_dec_{i}.safetensors"] = tensors_bytes({f"W_dec_{i}": w.W_dec[i]})
    config, lost = hooks_config("cross_layer_transcoder", value.about.model, value.about)
    return ToolFiles({CONFIG: yaml_bytes(config), **files}, lost)
