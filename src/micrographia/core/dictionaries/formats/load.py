"""`load`: the dictionary, set or cross-layer transcoder at a path, or of a name on the Hugging Face Hub.

A path comes first: a folder of one dictionary in any format, a file of weights, or a folder of many from which layer,
width and L0 choose. A name is `owner/repository`, or with a folder in it, and `@revision` behind it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.formats.circuit_tracer import CONFIG, config_of, listed
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.suites import Entry, asked_place, chosen, entries
from micrographia.core.dictionaries.formats.table import format_of, recognised
from micrographia.core.dictionaries.several import AnyDictionary, CrossLayerTranscoder, DictionarySet
from micrographia.core.errors import MissingExtra, UnknownDictionary
from micrographia.core.events import Watch, silent
from micrographia.core.runtime import dtype_named, pick_device
from micrographia.core.sites import Site

HUB = "hf://"
DEPTH = 6
"""Folders below the one that is named in which a suite's dictionaries are looked for."""


class Choice(NamedTuple):
    """Which of several."""

    site: str | None = None
    """A kind, or the name of a folder."""
    layer: int | None = None
    width: int | str | None = None
    l0: float | str | None = None


def load(
    name: str | Path,
    *,
    site: str | Site | None = None,
    layer: int | None = None,
    width: int | str | None = None,
    l0: float | str | None = None,
    allow_pickle: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    watch: Watch = silent,
) -> AnyDictionary:
    """What lies at this path or has this name.

    A set of layers becomes its one Dictionary where `layer` is given. `site` is a kind ("resid_post"), a Site
    ("L3.resid_post"), or the name of a suite's folder. `l0` None or "canonical" takes the published L0
    that is closest to 100, a number the one closest to it. From the Hub only the files of what was chosen are fetched.
    Raises UnknownDictionary (nothing there, no known format, several that fit), UnreadableWeights (files that
    contradict themselves, kinds that are not read), PickleRefused, Corrupt, and MissingExtra for a name without
    huggingface_hub.
    """
    place = None if device is None else pick_device(str(device))
    kept = dtype_named(dtype)
    path, choice = Path(name).expanduser(), Choice(*asked_place(site, layer), width, l0)
    if path.exists():
        found = _from_path(path, choice, allow_pickle, watch)
    elif isinstance(name, Path):
        raise UnknownDictionary(f"Asked for the dictionary at {name}. There is no such folder or file. Check the path.")
    else:
        found = _from_hub(name, choice, allow_pickle, watch)
    where = {key: value for key, value in (("device", place), ("dtype", kept)) if value is not None}
    return found.to(**where) if where else found


def load_one(name: str | Path, **choices: Any) -> Dictionary:
    """The same, where one Dictionary is wanted. Raises UnknownDictionary for a set or a cross-layer transcoder."""
    found = load(name, **choices)
    if not isinstance(found, Dictionary):
        raise UnknownDictionary(f"Asked for one dictionary in {name}. Found {found!r}. Give a layer of a set.")
    return found


def _is_name(name: str) -> bool:
    """Whether this may be `owner/repository[/folder][@revision]`."""
    first, *rest = name.partition("@")[0].split("/")
    return bool(rest) and first not in ("", ".", "..", "~") and not Path(first).is_dir()


def _from_path(path: Path, choice: Choice, allow_pickle: bool, watch: Watch) -> AnyDictionary:
    here = Holding.at(path, allow_pickle=allow_pickle)
    if places := listed(here):
        return _of_site(_from_list(places, here, choice.layer, watch), choice.site, str(path))
    below = below_of(here)
    if below:
        return _together(chosen(below, str(path), **choice._asdict()), path, allow_pickle, choice)
    return _of_site(_of_layer(format_of(here).read(here), choice.layer, str(path)), choice.site, str(path))


def below_of(here: Holding) -> list[Entry]:
    """The dictionaries below a folder that is none itself, by the names of files; none of a dictionary."""
    return [] if here.only or recognised(here) else found_below(here.folder)


def several_at(name: str | Path) -> bool:
    """Whether `name` is a folder of several dictionaries, or a name on the Hub: whether a site is chosen there."""
    path = Path(name).expanduser()
    return not path.exists() or (path.is_dir() and len(below_of(Holding.at(path))) > 1)


def _from_list(places: dict[int, str], here: Holding, layer: int | None, watch: Watch) -> AnyDictionary:
    """The transcoders that circuit-tracer's config.yaml lists, each where it lies; of one layer, that one alone."""
    if layer is not None and layer not in places:
        raise UnknownDictionary(
            f"Asked for layer {layer} in {here.folder}. Its config.yaml lists {len(places)} layers."
        )
    read = {}
    for at in places if layer is None else [layer]:
        file = Holding.at(_place(places[at], here.folder, watch))
        read[at] = format_of(file).read(file)
    if layer is not None:
        return read[layer]
    model = str(config_of(here).get("model_name") or "")
    one_each = {at: one for at, one in read.items() if isinstance(one, Dictionary)}
    return DictionarySet(one_each, About(model=model, layout="circuit_tracer", source=str(here.folder)))


def _place(named: str, folder: Path, watch: Watch) -> Path:
    """The file of an entry of such a list: a path, from the folder on, or hf://owner/name/file?revision=..."""
    if not named.startswith(HUB):
        return folder / named
    from micrographia.core.pretrained.hub import fetched  # a folder does without it

    bare, _, revision = named.removeprefix(HUB).partition("?revision=")
    owner, name, file = bare.split("/", 2)
    return fetched(f"{owner}/{name}", [file], revision or None, watch) / file


def found_below(folder: Path) -> list[Entry]:
    """The dictionaries below a folder, by the names of files."""
    return entries(_paths(folder), folder.absolute().as_posix())


def _paths(folder: Path) -> list[str]:
    """Files below a folder, relative to it; not those of hidden folders."""
    found = []
    for depth in range(1, DEPTH + 1):
        found += [each.relative_to(folder).as_posix() for each in folder.glob("/".join("*" * depth)) if each.is_file()]
    return [path for path in found if not any(part.startswith(".") for part in path.split("/"))]


def _together(found: list[Entry], root: Path, allow_pickle: bool, choice: Choice) -> AnyDictionary:
    """The one dictionary, or a set of those of several layers."""
    read = {}
    for each in found:
        here = Holding.at(root / each.at, allow_pickle=allow_pickle)
        read[each.facets.layer] = format_of(here).read(here)
    if len(read) == 1:
        one = _of_layer(next(iter(read.values())), choice.layer, str(root))
        return one if found[0].kind else _of_site(one, choice.site, str(root))
    layers = {at: one for at, one in read.items() if at is not None and isinstance(one, Dictionary)}
    if len(layers) < len(read):
        raise UnknownDictionary(
            f"Asked for the dictionaries of {len(read)} layers in {root}. Some are sets themselves."
        )
    first = layers[min(layers)].about
    return DictionarySet(layers, About(model=first.model, layout=first.layout, source=str(root)))


def _of_layer(found: AnyDictionary, layer: int | None, where: str) -> AnyDictionary:
    if layer is None:
        return found
    if isinstance(found, DictionarySet):
        return found[layer]
    if isinstance(found, CrossLayerTranscoder):
        raise UnknownDictionary(
            f"Asked for layer {layer} of {where}, {found!r}: its layers write together. Load it whole; `encode_layer` "
            "gives the latents of one layer."
        )
    site = found.about.site
    if site is not None and site.layer is not None and site.layer != layer:
        raise UnknownDictionary(f"Asked for layer {layer} in {where}. Found a dictionary of layer {site.layer}.")
    return found


def _of_site(found: AnyDictionary, kind: str | None, where: str) -> AnyDictionary:
    """The same, unless it is known to read another site than was asked for; a set, by the first of it."""
    first = found[next(iter(found))] if isinstance(found, DictionarySet) else found
    site = first.about.site
    if kind is not None and site is not None and site.kind != kind:
        raise UnknownDictionary(f"Asked for the site {kind} in {where}. Found a dictionary of {site}.")
    return found


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository of the Hub, or a folder in it, at a revision: owner/name[/folder][@revision]."""

    repository: str
    folder: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, name: str, revision: str | None = None) -> "HubName":
        """Raises UnknownDictionary for what is no such name, and no path either."""
        if not _is_name(name):
            raise UnknownDictionary(
                f"Asked for the dictionary at {name}. There is no such folder or file. Check the path."
            )
        bare, _, at = name.partition("@")
        parts = bare.split("/")
        return cls("/".join(parts[:2]), "/".join(parts[2:]), revision or at or None)

    def __str__(self) -> str:
        named = f"{self.repository}/{self.folder}".rstrip("/")
        return f"{named}@{self.revision}" if self.revision else named


def hub_listing(name: HubName, watch: Watch) -> list[str]:
    """The paths of the files in this folder of the repository."""
    with _needs_client(name):
        from micrographia.core.pretrained.hub import listing  # a folder does without it

        return [path for path in listing(name.repository, name.revision, watch) if path.startswith(name.folder)]


def hub_files(name: HubName, files: Sequence[str], watch: Watch) -> Path:
    """The repository's folder in the cache, with these files of it."""
    with _needs_client(name):
        from micrographia.core.pretrained.hub import fetched  # as above

        return fetched(name.repository, files, name.revision, watch)


@contextmanager
def _needs_client(name: HubName) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise MissingExtra(
            f"The name {str(name)!r} is that of no folder here, and the Hub needs huggingface_hub. Install "
            "micrographia[hf]."
        ) from error


def _from_hub(name: str, choice: Choice, allow_pickle: bool, watch: Watch) -> AnyDictionary:
    at = HubName.parse(name)
    inside = hub_listing(at, watch)
    below = _of_set(entries(inside, at.repository), at.folder)
    if not below and (config := f"{at.folder}/{CONFIG}".lstrip("/")) in inside:
        root = hub_files(at, [config], watch)
        return _from_path((root / config).parent, choice, allow_pickle, watch)
    found = chosen(below, name, **choice._asdict())
    root = hub_files(at, [path for each in found for path in each.files], watch)
    one = _together(found, root, allow_pickle, choice)
    return replace(one, about=replace(one.about, source=name))


def _of_set(found: list[Entry], folder: str) -> list[Entry]:
    """The entries in a folder of the repository; where the folder is one of them, that one."""
    exact = [each for each in found if each.at == folder.rstrip("/")]
    return exact or found
