"""Suite: many dictionaries of one model as a value: what there is, and the one that is asked for.

A folder or repository is read by the names of its files, so that nothing is downloaded before it is asked for: those of
Gemma Scope 1 and 2, and of other tools that keep many. Our own suite is a folder with a folder for each dictionary, in
SAELens' format, and `suite.json`, which says of each its site, width, L0 and metrics, and the hashes of its files.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from micrographia.core import figures
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.dictionaries.formats.facets import Facets
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.load import HubName, found_below, hub_files, hub_listing
from micrographia.core.dictionaries.formats.save import written_as
from micrographia.core.dictionaries.formats.suites import Entry, asked_place, canonical, chosen, entries, narrowed
from micrographia.core.dictionaries.formats.table import format_of
from micrographia.core.errors import BadConfig, Corrupt, UnknownDictionary, UnknownSite, UnreadableWeights
from micrographia.core.events import Note, Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.runtime import dtype_named, pick_device
from micrographia.core.sites import Site
from micrographia.core.store import json_bytes, manifest, read_json
from micrographia.core.store.atomic import new_folder, write_chunks

INDEX = "suite.json"
INNER = "suite"
"""The folder of a Run that holds its suite."""
FORMAT = "saelens"
MOST_PRINTED = 60


class SuiteRow(NamedTuple):
    """A dictionary of a suite, as far as it is known before its weights are read."""

    site: str
    """The kind of the Site where it reads: resid_post, z, mlp_out; "" where it is not known."""
    layer: int | None
    width: int | None
    l0: float | None
    """As published; of our own suites, as measured."""
    asked: float | None
    """The L0 that was asked for in training."""
    canonical: bool
    """Whether its L0 is the closest to 100 of this site, layer and width."""
    path: str


class SuiteMember(NamedTuple):
    """A dictionary to write into a suite, with what is to be said of it."""

    dictionary: Dictionary
    l0: float | None = None
    """That was asked for."""
    metrics: Mapping[str, Any] = {}
    """What was measured; `l0` among them."""


@dataclass(frozen=True, slots=True, eq=False)
class Suite:
    """The dictionaries of a folder or repository. `print(suite)` is its table; nothing is read until `get`."""

    where: str
    found: tuple[Entry, ...]
    root: Path | None = None
    """The folder; None of a repository."""
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """Path -> what suite.json says."""
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What it says of the whole."""
    watch: Watch = field(default=silent, repr=False)

    @staticmethod
    def load(where: str | Path, revision: str | None = None, *, watch: Watch = silent) -> "Suite":
        """What lies in this folder, in this Run, or in this repository of the Hub (`owner/name[/folder][@revision]`).

        Lists names; no weights are read or fetched. Raises UnknownDictionary where there are none, Corrupt for a
        suite.json that was altered, MissingExtra for a name without huggingface_hub.
        """
        path = Path(where).expanduser()
        if path.exists():
            return _of_folder(path, watch)
        name = HubName.parse(str(where), revision)
        paths = hub_listing(name, watch)
        index = f"{name.folder}/{INDEX}".lstrip("/")
        content = read_json(hub_files(name, [index], watch) / index) if index in paths else {}
        return _listed(str(name), entries(paths, str(name)), None, content, watch, name.folder)

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[SuiteRow]:
        return iter(self.rows())

    def __getitem__(self, path: str) -> Dictionary:
        """The Dictionary at this path. Raises what `get` raises."""
        return self._read(self._at(path))

    def rows(self) -> list[SuiteRow]:
        """One for each dictionary: site, layer, width, L0, whether it is canonical, and where it lies."""
        nearest = canonical(self.found)
        rows = []
        for each in self.found:
            layer, width, l0 = each.facets
            asked = self.told.get(each.at, {}).get("l0_asked")
            rows.append(SuiteRow(each.kind, layer, width, l0, asked, each.at in nearest, each.at))
        return sorted(rows, key=_order)

    def only(
        self,
        *,
        site: str | Site | None = None,
        layer: int | None = None,
        width: int | str | None = None,
        l0: float | str | None = None,
    ) -> "Suite":
        """The part that fits. `l0`: a number or "canonical" takes, of each site, layer and width, the closest."""
        kind, at = asked_place(site, layer)
        return replace(self, found=tuple(narrowed(self.found, self.where, layer=at, width=width, l0=l0, site=kind)))

    def get(
        self,
        *,
        site: str | Site | None = None,
        layer: int | None = None,
        width: int | str | None = None,
        l0: float | str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> Dictionary:
        """The one Dictionary that fits, read now. `l0` None or "canonical": the L0 closest to 100.

        `site` is a kind ("resid_post"), a Site ("L3.resid_post"), or the name of a folder. Raises UnknownDictionary,
        saying what there is, where none fits, or several do, as those of several sites; Corrupt for files that have
        not their hash; UnreadableWeights where they contradict the suite.
        """
        kind, at = asked_place(site, layer)
        fit = chosen(self.found, self.where, layer=at, width=width, l0=l0, site=kind)
        if len(fit) > 1:
            layers = ", ".join(str(each.facets.layer) for each in fit)
            raise UnknownDictionary(
                f"Asked for one dictionary in {self.where}. One of each layer fits ({layers}): name one."
            )
        return self._read(fit[0], device, dtype)

    def save(self, folder: str | Path, *, watch: Watch = silent) -> "Suite":
        """Write all of it into a new folder as a suite of ours, one dictionary after the other in memory."""
        return write_suite(folder, self._members(watch), about={**self.about, "source": self.where})

    def _members(self, watch: Watch) -> Iterator[SuiteMember]:
        for i, row in enumerate(self.rows()):
            watch(Progress("save the suite", i, len(self), "folder"))
            yield SuiteMember(self[row.path], row.l0 if row.asked is None else row.asked, self._metrics(row))

    def figures(self) -> list[Figure]:
        """Its table."""
        rows = [row._asdict() for row in self.rows()]
        names = {
            "site": "site",
            "layer": "layer",
            "width": "width",
            "l0": "L0",
            "canonical": "canonical",
            "path": "path",
        }
        return [figures.table("suite", f"Dictionaries of {self.where}", rows, columns=names)]

    def __repr__(self) -> str:
        return f"Suite({len(self)} dictionaries, {self.where!r})"

    def __str__(self) -> str:
        """A line for each site, layer and width, the canonical L0 in brackets."""
        lines: dict[tuple[str, int | None, int | None], list[str]] = {}
        for row in self.rows():
            l0 = "?" if row.l0 is None else f"{row.l0:g}" if row.l0 >= 100 else f"{row.l0:.3g}"
            lines.setdefault(row[:3], []).append(f"[{l0}]" if row.canonical else l0)
        cells = [(site or "?", _cell(layer), _cell(width), " ".join(l0)) for (site, layer, width), l0 in lines.items()]
        table = [("site", "layer", "width", "L0, [canonical]"), *cells[:MOST_PRINTED]]
        wide = [max(len(row[i]) for row in table) for i in range(3)]
        shown = [f"  {a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}  {d}".rstrip() for a, b, c, d in table]
        more = [f"  and {len(cells) - MOST_PRINTED} more lines"] if len(cells) > MOST_PRINTED else []
        return "\n".join([f"{len(self)} dictionaries in {self.where}", *shown, *more])

    def _at(self, path: str) -> Entry:
        found = [each for each in self.found if each.at == path]
        if not found:
            raise UnknownDictionary(f"Asked for {path} in {self.where}, which is not there. `rows()` lists the paths.")
        return found[0]

    def _metrics(self, row: SuiteRow) -> Mapping[str, Any]:
        known = self.told.get(row.path, {}).get("metrics", {})
        return known or ({} if row.l0 is None else {"l0": row.l0})

    def _read(
        self, each: Entry, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None
    ) -> Dictionary:
        root = self.root or hub_files(HubName.parse(self.where), each.files, self.watch)
        told = self.told.get(each.at, {})
        for name, expected in told.get("files", {}).items():
            if problem := manifest.check(root, f"{each.at}/{name}", expected):
                raise Corrupt(
                    f"Asked for {each.at} of {self.where}. Its file {name} is {problem.what}, by the hash in {INDEX}. "
                    "Restore it, or write the suite again."
                )
        here = Holding.at(root / each.at)
        one = format_of(here).read(here)
        if not isinstance(one, Dictionary):
            raise UnknownDictionary(f"Asked for {each.at} of {self.where}. It is no single dictionary: {one!r}.")
        _refuse_misfit(self.where, each.at, told, one)
        place = None if device is None else pick_device(str(device))
        to = {key: value for key, value in (("device", place), ("dtype", dtype_named(dtype))) if value is not None}
        return one.to(**to) if to else one


def write_suite(folder: str | Path, members: Iterable[SuiteMember], *, about: Mapping[str, Any] | None = None) -> Suite:
    """Write dictionaries into the new folder `folder`, as one suite, whole or not at all; the Suite.

    Each must know its Site. Members are taken one by one, so that a generator of them keeps one in memory. `about`:
    what is said of the whole. Raises BadConfig for two of one site, width and L0, CannotCarry, CannotWrite.
    """
    path, told = Path(folder).expanduser(), dict[str, Any]()
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise BadConfig(f"Asked to write a suite into {path}, which holds something already. Choose a new folder.")
    with new_folder(path) as draft:
        for member in members:
            one, at = member.dictionary, _folder_of(member)
            if at in told:
                raise BadConfig(
                    f"Asked to write two dictionaries as {at}. Those of a suite differ in site, width or L0."
                )
            written = written_as(one, FORMAT)
            for name, data in written.files.items():
                write_chunks(draft / at / name, [data])
            site = one.about.site
            told[at] = {
                "site": str(site), "target": None if one.about.target is None else str(one.about.target),
                "width": one.n_latents, "d_in": one.d_in, "l0_asked": member.l0, "l0": member.metrics.get("l0"),
                "metrics": dict(member.metrics), "not_carried": list(written.lost),
                "files": {name: manifest.entry(data) for name, data in written.files.items()},
            }  # fmt: skip
        write_chunks(draft / INDEX, [json_bytes({"about": dict(about or {}), "dictionaries": told})])
    return Suite.load(path)


def _folder_of(member: SuiteMember) -> str:
    """resid_post/layer_3_width_2048_l0_50: names that say what `facets` reads."""
    site, l0 = member.dictionary.about.site, member.l0
    if site is None:
        raise BadConfig(
            f"Asked to write {member.dictionary!r} into a suite. It does not know its Site: set about.site."
        )
    layer = "" if site.layer is None else f"layer_{site.layer}_"
    return f"{site.kind}/{layer}width_{member.dictionary.n_latents}" + ("" if l0 is None else f"_l0_{l0:g}")


def _of_folder(path: Path, watch: Watch) -> Suite:
    root = path / INNER if (path / INNER / INDEX).is_file() else path
    if not root.is_dir():
        raise UnknownDictionary(f"Asked for the suite in {root}, which is a file. Give its folder.")
    content = read_json(root / INDEX) if (root / INDEX).is_file() else {}
    return _listed(str(root), found_below(root), root, content, watch)


def _listed(
    where: str, found: Sequence[Entry], root: Path | None, content: Mapping[str, Any], watch: Watch, below: str = ""
) -> Suite:
    """The entries with what suite.json says of them; those that it names and that are not there are told."""
    _refuse_altered(content, where)
    told = {f"{below}/{at}".lstrip("/"): said for at, said in content.get("dictionaries", {}).items()}
    gone = [at for at in told if at not in {each.at for each in found}]
    if gone:
        watch(
            Note(f"{len(gone)} dictionaries that {INDEX} names are not in {where}: {', '.join(gone[:8])}.", "warning")
        )
    known = tuple(_known(each, told[each.at]) if each.at in told else each for each in found)
    if not known:
        raise UnknownDictionary(
            f"Asked for the suite in {where}. Found no file of weights of a format known here. A suite is a folder or "
            "repository of many dictionaries, such as google/gemma-scope-2b-pt-res."
        )
    return Suite(where, known, root, told, content.get("about", {}), watch)


def _refuse_altered(content: Mapping[str, Any], where: str) -> None:
    """Raise Corrupt for a suite.json that says what `write_suite` never does."""
    listed = content.get("dictionaries", {})
    odd = [at for at, said in listed.items() if not _is_said(said)] if isinstance(listed, dict) else ["dictionaries"]
    if odd or not isinstance(content.get("about", {}), dict):
        raise Corrupt(
            f"Asked for the suite in {where}. Its {INDEX} was altered, at {(odd or ['about'])[0]!r}: it should say of "
            "each dictionary its site, width, L0 and files. Restore it, or write the suite again."
        )


def _is_said(said: Any) -> bool:
    if not isinstance(said, dict) or not {"site", "width", "l0", "l0_asked"} <= said.keys():
        return False
    sizes = [said["l0"], said["l0_asked"]]
    good = isinstance(said["width"], int) and all(each is None or isinstance(each, int | float) for each in sizes)
    with suppress(UnknownSite):
        Site.parse(str(said["site"]))
        return good and manifest.is_list(said.get("files", {})) and isinstance(said.get("metrics", {}), dict)
    return False


def _known(each: Entry, said: Mapping[str, Any]) -> Entry:
    site = Site.parse(said["site"])
    l0 = said["l0_asked"] if said["l0"] is None else said["l0"]
    return replace(each, facets=Facets(site.layer, said["width"], l0), kind=site.kind, asked=said["l0_asked"])


def _refuse_misfit(where: str, at: str, told: Mapping[str, Any], one: Dictionary) -> None:
    found = {"site": str(one.about.site), "width": one.n_latents, "d_in": one.d_in}
    if odd := [name for name, value in found.items() if name in told and told[name] != value]:
        said = "; ".join(f"{name} {told[name]}, and its own files {found[name]}" for name in odd)
        raise UnreadableWeights(
            f"Asked for {at} of {where}. {INDEX} says {said}. Restore them, or write the suite again."
        )


def _order(row: SuiteRow) -> tuple[Any, ...]:
    return row.site, -1 if row.layer is None else row.layer, row.width or 0, row.l0 or 0, row.path


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)
