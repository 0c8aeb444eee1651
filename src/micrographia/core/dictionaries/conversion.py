"""`inspect` says what dictionaries lie at a path, `convert` writes one for another tool."""

from pathlib import Path
from typing import Any

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.load import below_of, load
from micrographia.core.dictionaries.formats.places import lens_site
from micrographia.core.dictionaries.formats.save import save
from micrographia.core.dictionaries.formats.suites import Entry
from micrographia.core.dictionaries.formats.table import format_of, recognised
from micrographia.core.dictionaries.several import CrossLayerTranscoder, DictionarySet

Row = dict[str, Any]
CONFIGS = ("cfg.json", "config.json", "hyperparams.json")
LATENTS, INPUTS = ("d_sae", "num_latents", "dict_size"), ("d_in", "d_model", "activation_dim")
"""How the configs of the formats call them."""


def inspect(path: str | Path, *, allow_pickle: bool = False) -> list[Row]:
    """One row for each dictionary at this path: its format, kind, sizes, place, and what its reader noted.

    Reads the weights of a folder or file of one format; of a folder of others only their names and configs.
    """
    place = Path(path).expanduser()
    here = Holding.at(place, allow_pickle=allow_pickle)
    if below := below_of(here):
        return [_unread(each, place) for each in below]
    name, found = format_of(here).name, format_of(here).read(here)
    if isinstance(found, DictionarySet):
        return [{**_row(one, place, name), "layer": layer} for layer, one in found.items()]
    return [_row(found, place, name)]


def _unread(each: Entry, root: Path) -> Row:
    """What the name of a dictionary and its own config say of it. No weights are read."""
    here, (layer, width, l0) = Holding.at(root / each.at), each.facets
    config = {} if here.only else _config(here)
    n_latents, d_in = (next((config[key] for key in keys if config.get(key)), None) for keys in (LATENTS, INPUTS))
    if n_latents is None and d_in and config.get("expansion_factor"):
        n_latents = round(d_in * config["expansion_factor"])
    site = lens_site(config.get("hook_name") or config.get("hook_point_in"))
    layer = layer if layer is not None else site.layer if site else config.get("layer")
    named = each.kind if layer is None or not each.kind else f"L{layer}.{each.kind}"
    return {
        "path": each.at, "format": format_of(here).name if recognised(here) else "", "layer": layer,
        "site": str(site or named), "latents": n_latents or width, "d_in": d_in, "l0": l0,
    }  # fmt: skip


def _config(here: Holding) -> dict[str, Any]:
    """The entries of its config, those of what is nested in it among them."""
    config = next((found for name in CONFIGS if (found := here.config(name))), {})
    inner = [value for key in ("metadata", "trainer") if isinstance(value := config.get(key), dict)]
    return {key: value for each in (*inner, config) for key, value in each.items()}


def _row(of: Dictionary | CrossLayerTranscoder, path: Path, format: str) -> Row:
    about = of.about
    layer = about.site.layer if about.site is not None else about.training.get("layer")
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
