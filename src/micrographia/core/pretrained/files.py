"""A folder of Hugging Face weights, checked before transformers reads it, and what was read, checked afterwards.

Before: each file is there, whole, and the file itself; no adapter is dropped. Afterwards: the model has all of its
weights, in the shapes of its configuration, and no layer was left without a weight that the files hold for it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from micrographia.core.errors import UnknownModel
from micrographia.core.events import Note, Watch
from micrographia.core.pretrained.families import Family
from micrographia.core.sources import is_gguf
from micrographia.core.store.damage import damage_of

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order in which transformers looks for them."""
CONFIG, ADAPTER = "config.json", "adapter_config.json"
TABLES = re.compile(r"(^|\.)(masked_bias|inv_freq|position_ids)$")
"""Tables that older files hold beside the weights, which transformers now computes."""


def check_folder(folder: Path) -> None:
    """Raise UnknownModel, naming the file, where this folder's model would be read wrongly or not at all."""
    _check_adapter(folder)
    if (folder / CONFIG).is_file():
        _object(folder / CONFIG)
    for path in (*sorted(folder.glob("*.json")), *_weights(folder)):
        if damage := damage_of(path):
            raise UnknownModel(f"Asked for the model in {folder}. Its file {path.name} {damage}.")


def _check_adapter(folder: Path) -> None:
    """transformers drops an adapter beside full weights in silence where peft is missing, and mixes it in where not."""
    if not (folder / ADAPTER).is_file():
        return
    base = _object(folder / ADAPTER).get("base_model_name_or_path") or "its base"
    whole = (folder / CONFIG).is_file()
    raise UnknownModel(
        f"Asked for the model in {folder}. Found {ADAPTER} {'beside full weights' if whole else 'alone'}, an adapter "
        f"of {base}. Merge it and pass the module: "
        f"`PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), {str(folder)!r})"
        ".merge_and_unload()`" + (f". To study the full weights as they are, move {ADAPTER} away." if whole else ".")
    )


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises UnknownModel."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not an object")
    except ValueError as error:
        raise UnknownModel(
            f"Asked for the model in {path.parent}. Its file {path.name} cannot be read ({damage_of(path) or error}). "
            "Write or download it again."
        ) from error
    return found


def _weights(folder: Path) -> list[Path]:
    """The files of weights that transformers would read. Raises UnknownModel where one of them is missing."""
    first = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if first is None or first.suffix != ".json":
        return [] if first is None else [first]
    parts = sorted(set(_object(first).get("weight_map", {}).values()))
    missing = [name for name in parts if not (folder / name).is_file()]
    if missing:
        raise UnknownModel(
            f"Asked for the model in {folder}. Its download is incomplete: {len(missing)} of the {len(parts)} files of "
            f"weights that {first.name} names are missing, such as {missing[0]}. Download them."
        )
    return [folder / name for name in parts]


def check_loaded(name: str, family: Family, module: nn.Module, about: Mapping[str, Any], watch: Watch) -> None:
    """Compare what was read with what the model needs. Raises UnknownModel, naming a weight.

    transformers would draw a missing weight at random and leave out one that the configuration does not use. Unused
    ones outside the layers (a classifier, BERT's pooler) are told in a Note.
    """
    one = is_gguf(Path(name))
    said, remedy = (
        ("metadata", "Load another file of it") if one else (CONFIG, f"Use the {CONFIG} that belongs to them")
    )
    if wrong := sorted(about["mismatched_keys"]):
        weight, found, wanted = wrong[0]
        raise UnknownModel(
            f"The model {name!r} was asked for; in its files {weight} has the shape {tuple(found)}, where its {said} "
            f"says {tuple(wanted)} ({_count(wrong)} in all). {remedy}."
        )
    if lacking := [each for each, _ in module.named_parameters() if each in about["missing_keys"]]:
        raise UnknownModel(
            f"The model {name!r} was asked for; its files lack {len(lacking)} of its weights, such as {lacking[0]}; "
            "they would be random. Choose a checkpoint with a language-modelling head, or load the module and pass it."
        )
    unused = sorted(_unused(module, about["unexpected_keys"]))
    inside = [weight for weight in unused if _in_layers(family, weight)]
    if inside and getattr(module.config, "quantization_config", None) is None:
        raise UnknownModel(
            f"The model {name!r} was asked for; its {said} makes no use of {_count(inside)} that its files hold for "
            f"its layers, such as {inside[0]}: it describes another network. {remedy}."
        )
    if unused:
        watch(Note(f"{_count(unused)} in the files of {name} are not used, such as {unused[0]}."))


def _count(weights: list[Any]) -> str:
    return f"{len(weights)} weight{'s' if len(weights) > 1 else ''}"


def _unused(module: nn.Module, unexpected: Iterable[str]) -> set[str]:
    tables = {name for name, _ in module.named_buffers()}
    return {name for name in unexpected if name not in tables and not TABLES.search(name)}


def _in_layers(family: Family, weight: str) -> bool:
    """Whether a file's weight belongs to a layer: files may leave out the first names of the path."""
    names = family.layers.split(".")
    return any(weight.startswith(".".join([*names[i:], ""])) for i in range(len(names)))
