"""Suites: many dictionaries below one folder or in one repository, and the choice of one by layer, width and L0.

Works on the names of files alone, so that a repository is chosen from before anything of it is downloaded. What a
folder says of its dictionary is in `facets`; canonical is the one whose published L0 is closest to 100, as Neuronpedia
and SAELens have it for Gemma Scope.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from micrographia.core.dictionaries.formats.facets import NOMINAL, Facets, facets, width_of
from micrographia.core.dictionaries.formats.holding import is_aside
from micrographia.core.errors import BadConfig, UnknownDictionary

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

    @property
    def family(self) -> str:
        """What is the same in the names of all layers of one kind."""
        return re.sub(r"\d+", "#", self.at)


def entries(paths: Iterable[str]) -> list[Entry]:
    """The dictionaries among these paths of files."""
    paths = sorted(paths)
    found: dict[str, None] = {}
    for path in paths:
        for mark in MARKS:
            if (match := re.fullmatch(mark, path)) and not is_aside(path):
                found[match["at"]] = None
                break
    return [Entry(at, _files(at, paths), facets(at)) for at in found]


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
) -> list[Entry]:
    """The entries that fit: one, or one for each layer where no layer is asked for.

    Raises UnknownDictionary where none fits, or several differ in what cannot be asked for.
    """
    if not found:
        raise UnknownDictionary(f"Asked for a dictionary in {where}. Found no file of weights of a format known here.")
    left = _of_layer(found, where, layer)
    left = _of_width(left, where, width)
    left = [each for group in _by_layer(left).values() for each in _of_l0(group, l0)]
    crowded = {at: group for at, group in _by_layer(left).items() if len(group) > 1}
    if crowded or (None in _by_layer(left) and len(left) > 1):
        raise UnknownDictionary(
            f"Asked for one dictionary in {where}. Found {len(left)} that fit: {_listed(left)}. Give the path of one, "
            f"or layer, width or l0 ({_possible(left)})."
        )
    return left


def _by_layer(found: Sequence[Entry]) -> dict[int | None, list[Entry]]:
    groups: dict[int | None, list[Entry]] = {}
    for each in found:
        groups.setdefault(each.facets.layer, []).append(each)
    return groups


def _of_layer(found: Sequence[Entry], where: str, layer: int | None) -> list[Entry]:
    left = [each for each in found if layer is None or each.facets.layer == layer]
    if not left and all(each.facets.layer is None for each in found):
        return list(found)  # names that say nothing; the dictionary itself may
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
    told = [each for each in group if each.facets.l0 is not None]
    if len(told) < len(group) or len(group) < 2 or len({each.facets.width for each in group}) > 1:
        return group
    wanted = CANONICAL if l0 is None or l0 == "canonical" else _named(l0)
    sizes = [abs((each.facets.l0 or 0.0) - wanted) for each in told]
    return [each for each, size in zip(told, sizes, strict=True) if size == min(sizes)]


def _named(l0: float | str) -> float:
    try:
        return NOMINAL[l0] if isinstance(l0, str) and l0 in NOMINAL else float(l0)
    except ValueError as error:
        raise BadConfig(
            f"Asked for l0 = {l0!r}. Give a number, 'canonical', or one of 'small', 'medium' and 'big'."
        ) from error


def _listed(found: Sequence[Entry]) -> str:
    names = [each.at or "." for each in found[:SHOWN]]
    return ", ".join(names) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _possible(found: Sequence[Entry]) -> str:
    layers = sorted({each.facets.layer for each in found if each.facets.layer is not None})
    widths = sorted({each.facets.width for each in found if each.facets.width is not None})
    sizes = sorted({each.facets.l0 for each in found if each.facets.l0 is not None})
    told = {"layers": layers, "widths": widths, "L0": [f"{size:g}" for size in sizes]}
    said = [f"{name} {', '.join(map(str, values[:30]))}" for name, values in told.items() if values]
    return "; ".join(said) or _listed(found)
