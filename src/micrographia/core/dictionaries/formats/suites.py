"""Suites: many dictionaries below one folder or in one repository, and the choice of one by layer, width and L0.

Works on the names of files alone, so that a repository is chosen from before anything of it is downloaded. What a
folder says of its dictionary is in `facets`; canonical is the one whose published L0 is closest to 100, as Neuronpedia
and SAELens have it for Gemma Scope.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from micrographia.core.dictionaries.formats.facets import ACROSS, NOMINAL, Facets, facets, kind_of, width_of
from micrographia.core.dictionaries.formats.holding import is_aside
from micrographia.core.errors import BadConfig, UnknownDictionary
from micrographia.core.sites import Site

CANONICAL = 100.0
SHOWN = 8
MARKS = (  # how the path of a file of weights ends; `at` is the dictionary: its folder, or the file itself
    r"(?P<at>.*?)/?checkpoints/final\.safetensors",
    r"(?P<at>.*?)/?(?:sae_weights|sae|params)\.safetensors",
    r"(?P<at>.*?)/?params\.npz",
    r"(?P<at>.*?)/?ae\.pt",
    r"(?P<at>.*?)/?(?:W_enc|params_layer)_\d+\.safetensors",
    r"(?P<at>.*layer_\d+\.safetensors)",
    r"(?P<at>.*\.(?:pt|pth|npz))",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A dictionary of a suite: its folder or file, relative to the suite, and the files that it needs."""

    at: str
    files: tuple[str, ...]
    facets: Facets
    kind: str = ""
    """That of the Site where it reads, if it is known."""
    asked: float | None = None
    """The L0 that was asked for in training, if it is known."""

    @property
    def family(self) -> str:
        """What is the same in the names of all layers of one kind."""
        return re.sub(r"\d+", "#", self.at)


def entries(paths: Iterable[str], where: str = "") -> list[Entry]:
    """The dictionaries among these paths of files. `where` they lie: its name may say the site."""
    paths = sorted(paths)
    found: dict[str, None] = {}
    for path in paths:
        for mark in MARKS:
            if (match := re.fullmatch(mark, path)) and not is_aside(path):
                found[match["at"]] = None
                break
    return [_entry(at, _files(at, paths), kind_of(f"{where}/{at}")) for at in found]


def _entry(at: str, files: tuple[str, ...], kind: str) -> Entry:
    told = facets(at)
    return Entry(at, files, told._replace(layer=None) if kind in ACROSS else told, kind)


def _files(at: str, paths: Sequence[str]) -> tuple[str, ...]:
    """The files of an entry: those in its folder and in `checkpoints` there; of a file, it and the configs beside."""
    if at in paths:
        here = at.rpartition("/")[0]
        configs = [path for path in paths if path.rpartition("/")[0] == here and path.endswith((".yaml", ".json"))]
        return (at, *configs)
    prefix = f"{at}/" if at else ""
    inner = [
        path
        for path in paths
        if path.startswith(prefix) and "/" not in path[len(prefix) :].removeprefix("checkpoints/")
    ]
    return tuple(path for path in inner if not is_aside(path))


def chosen(
    found: Sequence[Entry],
    where: str,
    *,
    layer: int | None = None,
    width: int | str | None = None,
    l0: float | str | None = None,
    site: str | None = None,
) -> list[Entry]:
    """The entries that fit: one, or one for each layer where no layer is asked for. Without `l0`, the canonical one.

    Raises UnknownDictionary where none fits, or several do: of several sites, or that differ in what was not asked.
    """
    left = narrowed(found, where, layer=layer, width=width, site=site)
    _refuse_several_sites(left, where)
    left = [each for group in _by_layer(left).values() for each in _preferred(_of_l0(group, l0), site)]
    crowded = {at: group for at, group in _by_layer(left).items() if len(group) > 1}
    if crowded or (None in _by_layer(left) and len(left) > 1):
        apart = _apart(left, layer=layer, width=width, l0=l0)
        raise UnknownDictionary(
            f"Asked for one dictionary in {where}. Found {len(left)} that fit: {_listed(left)}. Give the path of one"
            f"{f', or {apart}' if apart else ''}."
        )
    return left


def asked_place(site: str | Site | None, layer: int | None) -> tuple[str | None, int | None]:
    """The kind and the layer that are asked for; a Site says both. Raises BadConfig where they contradict."""
    if isinstance(site, str) and site[:1] == "L" and "." in site:
        site = Site.parse(site)
    if not isinstance(site, Site):
        return site, layer
    if layer not in (None, site.layer):
        raise BadConfig(f"Asked for {site} and for layer {layer}. Give one of them.")
    return site.kind, site.layer


def narrowed(
    found: Sequence[Entry],
    where: str,
    *,
    layer: int | None = None,
    width: int | str | None = None,
    l0: float | str | None = None,
    site: str | None = None,
) -> list[Entry]:
    """The entries that fit; `l0` takes of those alike but for it the closest. Raises UnknownDictionary for none."""
    if not found:
        raise UnknownDictionary(f"Asked for a dictionary in {where}. Found no file of weights of a format known here.")
    left = _of_width(_of_layer(_of_site(found, where, site), where, layer), where, width)
    if l0 is None:
        return left
    alike: dict[tuple[str, int | None, int | None], list[Entry]] = {}
    for each in left:
        alike.setdefault((each.kind, each.facets.layer, each.facets.width), []).append(each)
    return [each for group in alike.values() for each in _of_l0(group, l0)]


def canonical(found: Sequence[Entry]) -> set[str]:
    """Where those lie whose L0 is, of a site, layer and width, the closest to 100."""
    told = [each for each in found if each.facets.l0 is not None]
    return {each.at for each in narrowed(told, "", l0="canonical")} if told else set()


def _refuse_several_sites(found: Sequence[Entry], where: str) -> None:
    """Raise UnknownDictionary where those of one layer read several sites, of which none was asked for."""
    for layer, group in _by_layer(found).items():
        if len(kinds := sorted({each.kind for each in group if each.kind})) > 1:
            sites = kinds if layer is None else [f"L{layer}.{kind}" for kind in kinds]
            raise UnknownDictionary(
                f"Asked for one dictionary in {where}. Those of {len(kinds)} sites fit: {', '.join(sites)}. "
                f"Give the site, such as {kinds[0]}."
            )


def _of_site(found: Sequence[Entry], where: str, site: str | None) -> list[Entry]:
    left = [each for each in found if site in (None, each.kind, _folder(each))]
    if not left and len(found) == 1 and not found[0].kind:
        return [*found]  # a name that says nothing; the dictionary itself may
    if not left and not any(each.kind for each in found):
        raise UnknownDictionary(
            f"Asked for the site {site} in {where}. No name of a file there tells a site. Give the path of one: "
            f"{_listed(found)}."
        )
    if not left:
        raise UnknownDictionary(f"Asked for the site {site} in {where}. There is {_possible(found)}.")
    return left


def _preferred(group: list[Entry], site: str | None) -> list[Entry]:
    """Of several, those in the folder that is called as was asked: Gemma Scope 2 has resid_post and resid_post_all."""
    own = [each for each in group if _folder(each) == site]
    return own or group


def _folder(each: Entry) -> str:
    return each.at.partition("/")[0]


def _by_layer(found: Sequence[Entry]) -> dict[int | None, list[Entry]]:
    groups: dict[int | None, list[Entry]] = {}
    for each in found:
        groups.setdefault(each.facets.layer, []).append(each)
    return groups


def _of_layer(found: list[Entry], where: str, layer: int | None) -> list[Entry]:
    left = [each for each in found if layer is None or each.facets.layer == layer]
    if not left and all(each.facets.layer is None for each in found):
        return found  # names that say nothing; the dictionary itself may
    if not left:
        raise UnknownDictionary(f"Asked for layer {layer} in {where}. There is {_possible(found)}.")
    return left


def _of_width(found: list[Entry], where: str, width: int | str | None) -> list[Entry]:
    if width is None:
        return found
    try:
        wanted = width_of(width)
    except ValueError as error:
        raise BadConfig(f"Asked for the width {width!r}. Give a number, or one such as '16k' or '1m'.") from error
    near = [each for each in found if each.facets.width is not None and abs(each.facets.width / wanted - 1) < 0.05]
    if not near and all(each.facets.width is None for each in found):
        return found
    if not near:
        raise UnknownDictionary(f"Asked for the width {width} in {where}. There is {_possible(found)}.")
    return near


def _of_l0(group: list[Entry], l0: float | str | None) -> list[Entry]:
    """Of equal names but for the L0, the one that is asked for, or closest to it."""
    wanted = CANONICAL if l0 is None or l0 == "canonical" else _named(l0)
    told = [each for each in group if each.facets.l0 is not None]
    if len(told) < len(group) or len(group) < 2 or len({each.facets.width for each in group}) > 1:
        return group
    sizes = [abs((each.facets.l0 or 0.0) - wanted) for each in told]
    return [each for each, size in zip(told, sizes, strict=True) if size == min(sizes)]


def _named(l0: float | str) -> float:
    try:
        found = NOMINAL[l0] if isinstance(l0, str) and l0 in NOMINAL else float(l0)
        if not math.isfinite(found):
            raise ValueError("not finite")
        return found
    except ValueError as error:
        raise BadConfig(
            f"Asked for l0 = {l0!r}. Give a number, 'canonical', or one of 'small', 'medium' and 'big'."
        ) from error


def _listed(found: Sequence[Entry]) -> str:
    names = [each.at or "." for each in found[:SHOWN]]
    return ", ".join(names) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _possible(found: Sequence[Entry]) -> str:
    said = [f"{name} {', '.join(values[:30])}" for name, values in _values(found).items() if values]
    return "; ".join(said) or _listed(found)


def _apart(found: Sequence[Entry], **asked: object) -> str:
    """In what these differ that was not asked for, with the values."""
    named = {"layers": "layer", "widths": "width", "L0": "l0"}
    values = {named[name]: each for name, each in _values(found).items() if name in named and len(each) > 1}
    return " or ".join(f"{name} ({', '.join(each[:30])})" for name, each in values.items() if asked[name] is None)


def _values(found: Sequence[Entry]) -> dict[str, list[str]]:
    """What there is of each choice, in order."""
    layers = sorted({each.facets.layer for each in found if each.facets.layer is not None})
    widths = sorted({each.facets.width for each in found if each.facets.width is not None})
    sizes = sorted({size for each in found if (size := _shown(each)) is not None})
    kinds = sorted({each.kind for each in found if each.kind})
    return {
        "sites": kinds, "layers": list(map(str, layers)), "widths": list(map(str, widths)),
        "L0": [f"{size:g}" for size in sizes],
    }  # fmt: skip


def _shown(each: Entry) -> float | None:
    """Its L0 for people: as it was asked for; else as it is known, to three digits."""
    if each.asked is not None or each.facets.l0 is None:
        return each.asked
    return float(f"{each.facets.l0:.3g}")
