"""`save`: a dictionary into a new folder, in the format of the tool that shall read it. Whole or not at all."""

from pathlib import Path

from micrographia.core.dictionaries.formats.sparsify import layer_folder
from micrographia.core.dictionaries.formats.table import FORMATS
from micrographia.core.dictionaries.formats.writing import ToolFiles
from micrographia.core.dictionaries.several import AnyDictionary, CrossLayerTranscoder, DictionarySet
from micrographia.core.errors import BadConfig, CannotCarry
from micrographia.core.store.atomic import write_folder


def save(value: AnyDictionary, folder: str | Path, format: str = "saelens") -> tuple[str, ...]:
    """Write `value` into the folder `folder`, which must not exist yet or be empty; gives what was not carried.

    A set is written into a folder for each layer, where the format has no files for a set. `dictionary_learning` and
    `openai` are pickles, since those tools read nothing else. Holds all bytes in memory while writing.
    Raises CannotCarry, with the reason, where the format cannot hold it; CannotWrite for a full disk.
    """
    path = Path(folder).expanduser()
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise BadConfig(f"Asked to write a dictionary into {path}, which holds something already. Choose a new folder.")
    written = _written(value, format)
    write_folder(path, written.files)
    return written.lost


def _written(value: AnyDictionary, format: str) -> ToolFiles:
    row = FORMATS.get(format)
    if row is None or row.write is None:
        possible = ", ".join(each.name for each in FORMATS.values() if each.write is not None)
        raise BadConfig(f"Asked to write a dictionary as {format!r}. Formats that are written: {possible}.")
    if isinstance(value, CrossLayerTranscoder) and format == "circuit_tracer":
        row = FORMATS["cross_layer"]
    assert row.write is not None
    if not isinstance(value, DictionarySet) or format == "circuit_tracer":
        return row.write(value)
    parts = {layer: row.write(one) for layer, one in value.items()}
    place = layer_folder if format == "sparsify" else "layer_{}".format
    files = {f"{place(layer)}/{name}": data for layer, part in parts.items() for name, data in part.files.items()}
    return ToolFiles(files, tuple(dict.fromkeys(lost for part in parts.values() for lost in part.lost)))


def carries(value: AnyDictionary, format: str) -> bool:
    """Whether this format can hold the dictionary; `save` says why it cannot."""
    try:
        _written(value, format)
    except CannotCarry:
        return False
    return True
