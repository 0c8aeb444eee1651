"""`save`: a dictionary into a new folder, in the format of the tool that shall read it. Whole or not at all."""

from dataclasses import replace
from pathlib import Path

import torch

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.dictionaries.formats.sparsify import layer_folder
from micrographia.core.dictionaries.formats.table import FORMATS
from micrographia.core.dictionaries.formats.writing import ToolFiles
from micrographia.core.dictionaries.several import AnyDictionary, CrossLayerTranscoder, DictionarySet
from micrographia.core.errors import BadConfig, CannotCarry
from micrographia.core.store.atomic import write_folder

WRITTEN = tuple(each.name for each in FORMATS.values() if each.write is not None)


def save(value: AnyDictionary, folder: str | Path, format: str = "saelens") -> tuple[str, ...]:
    """Write `value` into the folder `folder`, which must not exist yet or be empty; gives what was not carried.

    A set is written into a folder for each layer, where the format has no files for a set. `dictionary_learning` and
    `openai` are pickles, since those tools read nothing else. Holds all bytes in memory while writing.
    Raises CannotCarry, with the reason and the formats that can, where this one cannot hold it; CannotWrite for a full
    disk.
    """
    path = Path(folder).expanduser()
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise BadConfig(f"Asked to write a dictionary into {path}, which holds something already. Choose a new folder.")
    written = written_as(value, format)
    write_folder(path, written.files)
    return written.lost


def written_as(value: AnyDictionary, format: str) -> ToolFiles:
    """The files of a dictionary in this format, and what they do not carry. Raises BadConfig, CannotCarry."""
    row = FORMATS.get(format)
    if row is None or row.write is None:
        raise BadConfig(f"Asked to write a dictionary as {format!r}. Formats that are written: {', '.join(WRITTEN)}.")
    try:
        return _files(value, format)
    except CannotCarry as error:
        holding = ", ".join(each for each in WRITTEN if carries(value, each)) or "none that is written here"
        raise CannotCarry(f"{error} Formats that hold it: {holding}.") from error


def carries(value: AnyDictionary, format: str) -> bool:
    """Whether this format can hold the dictionary; `save` says why it cannot. Cheap: a few latents are tried."""
    try:
        _files(_few_latents(value), format)
    except CannotCarry:
        return False
    return True


def _files(value: AnyDictionary, format: str) -> ToolFiles:
    row = FORMATS["cross_layer" if format == "circuit_tracer" and isinstance(value, CrossLayerTranscoder) else format]
    assert row.write is not None
    if not isinstance(value, DictionarySet) or format == "circuit_tracer":
        return row.write(value)
    parts = {layer: row.write(one) for layer, one in value.items()}
    place = layer_folder if format == "sparsify" else "layer_{}".format
    files = {f"{place(layer)}/{name}": data for layer, part in parts.items() for name, data in part.files.items()}
    return ToolFiles(files, tuple(dict.fromkeys(lost for part in parts.values() for lost in part.lost)))


def _few_latents(value: AnyDictionary) -> AnyDictionary:
    """The same with few latents, those of the lowest thresholds: what a format can hold depends on no others."""
    if isinstance(value, DictionarySet):
        widths = sorted({one.n_latents for one in value.values()})
        return replace(value, by_layer={i: _few(one, 1 + widths.index(one.n_latents)) for i, one in value.items()})
    if isinstance(value, Dictionary):
        return _few(value, 1)
    own = {name: each for name, each in value.weights.named().items() if name not in ("b_dec", "W_skip")}
    few = {name: tuple(one[:, :1] if name == "W_enc" else one[:1] for one in each) for name, each in own.items()}
    return replace(value, weights=replace(value.weights, **few))


def _few(one: Dictionary, n: int) -> Dictionary:
    w = one.weights
    kept = torch.arange(n) if w.threshold is None else w.threshold.argsort()[:n]
    kept = kept.to(w.W_dec.device)
    few = {name: each[kept] for name, each in w.named().items() if name not in ("W_enc", "b_dec", "W_skip")}
    return replace(one, weights=replace(w, **few, W_enc=w.W_enc[:, kept]))
