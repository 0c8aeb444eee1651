"""FORMATS: the table of all formats, and which of them a folder or file is.

A format is recognised by what lies there, never by a name that the user gives. The first row that fits counts: those
with a config of their own come before those that are a file alone.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from micrographia.core.dictionaries.formats import (
    circuit_tracer,
    cross_layer,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    llamascopium,
    one_layer,
    openai,
    saelens,
    sparsify,
)
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.writing import ToolFiles
from micrographia.core.dictionaries.several import AnyDictionary
from micrographia.core.errors import UnknownDictionary


class Format(NamedTuple):
    """How one tool keeps dictionaries."""

    name: str
    files: str
    """What lies in its folder, for people."""
    holds: Callable[[Holding], bool]
    read: Callable[[Holding], AnyDictionary]
    write: Callable[[AnyDictionary], ToolFiles] | None = None


FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        Format("saelens", "cfg.json, sae_weights.safetensors", saelens.holds, saelens.read, saelens.write),
        Format("sparsify", "cfg.json, sae.safetensors", sparsify.holds, sparsify.read, sparsify.write),
        Format("llamascopium", "config.json, sae_weights.safetensors", llamascopium.holds, llamascopium.read),
        Format("llama_scope", "hyperparams.json, checkpoints/final.safetensors", llama_scope.holds, llama_scope.read),
        Format(
            "cross_layer", "config.yaml, W_enc_<i>.safetensors, W_dec_<i>.safetensors",
            cross_layer.holds, cross_layer.read, cross_layer.write,
        ),
        Format(
            "circuit_tracer", "config.yaml, layer_<i>.safetensors",
            circuit_tracer.holds, circuit_tracer.read, circuit_tracer.write,
        ),
        Format(
            "gemma_scope_2", "config.json, params.safetensors",
            gemma_scope_2.holds, gemma_scope_2.read, gemma_scope_2.write,
        ),
        Format("gemma_scope", "params.npz", gemma_scope.holds, gemma_scope.read, gemma_scope.write),
        Format(
            "dictionary_learning", "config.json, ae.pt",
            dictionary_learning.holds, dictionary_learning.read, dictionary_learning.write,
        ),
        Format("one_layer", "<run>.pt, <run>_cfg.json", one_layer.holds, one_layer.read),
        Format("openai", "one .pt file", openai.holds, openai.read, openai.write),
    )
}  # fmt: skip


def format_of(found: Holding) -> Format:
    """The format of what lies here. Raises UnknownDictionary, saying what was found."""
    for each in FORMATS.values():
        if each.holds(found):
            return each
    inside = sorted(found.tensor_names(found.only)) if found.only.endswith((".safetensors", ".npz")) else []
    held = f", with the tensors {', '.join(inside[:12])}," if inside else ","
    known = "; ".join(f"{each.name}: {each.files}" for each in FORMATS.values())
    raise UnknownDictionary(
        f"Asked for the dictionary in {found.path}. Found {found.said()}{held} which is no format known here. Known "
        f"are {known}."
    )


def recognised(found: Holding) -> bool:
    return any(each.holds(found) for each in FORMATS.values())
