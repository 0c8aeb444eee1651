"""`inspect` says what dictionaries lie at a path, `convert` writes one for another tool."""

from pathlib import Path
from typing import Any

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.load import found_below, load
from micrographia.core.dictionaries.formats.save import save
from micrographia.core.dictionaries.formats.table import format_of, recognised
from micrographia.core.dictionaries.several import CrossLayerTranscoder, DictionarySet

Row = dict[str, Any]


def inspect(path: str | Path, *, allow_pickle: bool = False) -> list[Row]:
    """One row for each dictionary at this path: its format, kind, sizes, place, and what its reader noted.

    Reads the weights of a folder or file of one format; of a folder of many only their names, which then are the rows.
    """
    place = Path(path).expanduser()
    here = Holding.at(place, allow_pickle=allow_pickle)
    if not here.only and not recognised(here) and (below := found_below(place)):
        return [
            {"path": each.at, "layer": each.facets.layer, "latents": each.facets.width, "l0": each.facets.l0}
            for each in below
        ]
    name, found = format_of(here).name, format_of(here).read(here)
    if isinstance(found, DictionarySet):
        return [{**_row(one, place, name), "layer": layer} for layer, one in found.items()]
    return [_row(found, place, name)]


def _row(of: Dictionary | CrossLayerTranscoder, path: Path, format: str) -> Row:
    about = of.about
    layer = about.site.layer if about.site is not None else None
    return {
        "path": str(path), "format": format, "activation": of.form.activation, "k": of.form.k,
        "kind": kind_of(of), "layer": layer, "latents": of.n_latents, "d_in": of.d_in, "d_out": of.d_out,
        "dtype": str(of.dtype).removeprefix("torch."), "model": about.model,
        "site": str(about.site or ""), "target": str(about.target or ""), "normalise": of.form.normalise,
        "l0": about.training.get("l0"), "notes": list(about.notes),
    }  # fmt: skip


def kind_of(of: Dictionary | CrossLayerTranscoder) -> str:
    """What it is, in the field's words."""
    if isinstance(of, CrossLayerTranscoder):
        return "cross-layer transcoder"
    skip = "skip " if of.weights.W_skip is not None else ""
    transcodes = of.about.target is not None or of.d_in != of.d_out
    return f"{skip}transcoder" if transcodes else "autoencoder with a skip" if skip else "autoencoder"


def convert(
    path: str | Path, to: str, folder: str | Path, *, allow_pickle: bool = False, **choices: Any
) -> tuple[str, ...]:
    """Write the dictionary at `path` (or of that name) into a new folder for the tool `to`; gives what was not carried.

    `choices` are site, layer, width, l0, dtype of `load`. Latents and reconstructions stay as they are, up to rounding.
    Raises the errors of `load` and of `save`.
    """
    return save(load(path, allow_pickle=allow_pickle, **choices), folder, to)
