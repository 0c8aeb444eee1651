"""SAELens' older cfg.json: all keys at the top, no metadata (versions before 6.0), read as version 6 reads it.

Measured with folders of sae-lens 5.11.0 in 6.54.12, which takes every config without a version for an old one.
"""

import re
from collections.abc import Mapping
from typing import Any

from micrographia.core.dictionaries.formats.building import one_of
from micrographia.core.dictionaries.formats.holding import Holding

RENAMED = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index", "activation_fn_str": "activation_fn"}
ACTIVATIONS = ("relu", "tanh-relu", "topk")
FORM = (
    "architecture", "d_in", "d_sae", "d_out", "dtype", "apply_b_dec_to_input", "normalize_activations",
    "reshape_activations", "rescale_acts_by_decoder_norm",
)  # fmt: skip
TANH = "Its activation is tanh(ReLU(p)). SAELens 6 reads it as ReLU and says nothing."


def version_of(config: Mapping[str, Any]) -> str:
    """The version of SAELens that the config names, "" for none."""
    return str(config.get("sae_lens_version") or (config.get("metadata") or {}).get("sae_lens_version") or "")


def is_flat(config: Mapping[str, Any]) -> bool:
    major = re.match(r"\d+", version_of(config))
    return major is None or int(major[0]) < 6


def modern(found: Holding, config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config as version 6 has it, and notes on what that version would do otherwise."""
    old = {RENAMED.get(name, name): value for name, value in config.items()}
    inner = old.pop("metadata", None) or {}
    notes: list[str] = []
    if inner:
        notes.append("Its metadata names no version of SAELens, which then takes it for an older file and drops them.")
    activation = one_of(found, "activation", old.get("activation_fn") or "relu", ACTIVATIONS)
    new = {name: old[name] for name in FORM if name in old}
    new["architecture"] = old.get("architecture") or "standard"
    kwargs = old.get("activation_fn_kwargs") or {}
    if activation == "topk" and new["architecture"] == "standard":
        new["architecture"] = "topk"
    if new["architecture"] in ("topk", "abstopk"):
        new["k"] = kwargs.get("k", old.get("k"))
    if activation == "tanh-relu" and new["architecture"] == "standard":
        new["activation"] = "tanh-relu"
        notes.append(TANH)
    normalise = old.get("normalize_activations")
    if isinstance(normalise, bool) or normalise is None:
        new["normalize_activations"] = "expected_average_only_in" if normalise else "none"
    new.setdefault("reshape_activations", "hook_z" if "hook_z" in str(old.get("hook_name") or "") else "none")
    kept = {name: value for name, value in old.items() if name not in FORM and name not in ("device", "k")}
    return {**new, "metadata": {**kept, **inner}}, tuple(notes)
