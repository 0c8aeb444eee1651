"""Effects: a score at every place, measured by patching or estimated, as one result for every method.

A score is the change of the metric against the run that was patched (the base), per prompt, in the metric's unit. The
share of a denoising patch is what it restores, (m - corrupt) / (clean - corrupt); that of a noising patch what it
destroys, (clean - m) / (clean - corrupt): both are 0 where nothing happens and 1 where everything does. m, clean and
corrupt are means over the prompts.
Source: Heimersheim and Nanda, "How to use and interpret activation patching" (2024), section 2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from micrographia.core.errors import UserError
from micrographia.core.figures import Figure
from micrographia.core.prompts import gap_of
from micrographia.core.sites import Site, SiteLike, as_site
from micrographia.core.spoken import at_position, component_name
from micrographia.core.sweep.places import Place, words_of
from micrographia.core.titles import MODES, Mode

NEGLIGIBLE = 1e-4
"""Of the largest effect: what is smaller is left out of a list of the largest."""
SHOWN = 10
"""Places that are printed."""
SUMMED = "-sum"
"""Behind the kind of a map that was summed along an axis."""
COORDINATES = ("layer", "pos", "head", "unit", "query", "key")


@dataclass(frozen=True, eq=False, slots=True)
class Effects:
    """A score for every place of every Site, per prompt. Print it, or show it in a notebook.

    `scores` by Site: (prompt, *axes), with `axes[site]` naming the axes behind the prompt ("pos", "head", "unit",
    "query", "key"). What was patched whole along an axis lacks that axis. With `together`, each score is of the same
    place in the Sites of all layers at once, and stands under the first of them.
    """

    mode: Mode
    method: str
    """A name of `core.titles.METHODS`; "exact" for patching."""
    scores: dict[Site, Tensor]
    axes: Mapping[Site, tuple[str, ...]]
    clean: Float[Tensor, "prompt"]
    corrupt: Float[Tensor, "prompt"]
    metric: str = "metric"
    unit: str = ""
    gives: Literal["effect", "size"] = "effect"
    """Whether scores are (estimated) effects of the exact patch, or only rank places by size (AtP*)."""
    replace: str = "other"
    """What was written: "other", the other run's value; or zero, mean, resample, noise."""
    source: str = ""
    """Where the values that were written came from, as a phrase."""
    n_passes: Any = None
    """What an estimate took, in passes over the model."""
    notes: tuple[str, ...] = ()
    together: bool = False
    positions: tuple[str, ...] = ()
    """A name for each position, for people; their numbers where there are none."""
    taken: Mapping[Site, Bool[Tensor, "*axes"]] = field(default_factory=dict)
    """Of Sites of which only some places were asked for, which; the scores of the others are NaN."""
    group: int = 1
    """Heads that share a key and a value, under grouped-query attention."""

    @property
    def exact(self) -> bool:
        return self.method == "exact"

    @property
    def base(self) -> Float[Tensor, "prompt"]:
        """The metric of the run that was patched: a score is a change of this."""
        return self.corrupt if self.mode == "denoise" else self.clean

    @property
    def gap(self) -> float | None:
        """Clean less corrupt, over the prompts; None where rounding alone tells them apart."""
        return gap_of(self.clean, self.corrupt)

    def __getitem__(self, site: SiteLike) -> Tensor:
        """The scores of one Site, (prompt, *axes)."""
        found = self.scores.get(as_site(site))
        if found is None:
            known = ", ".join(map(str, self.scores))
            raise UserError(f"Asked for the effects at {site}, which were not taken. There are {known}.")
        return found

    def __repr__(self) -> str:
        how = "exact" if self.exact else f"estimated by {self.method}"
        n = sum(int(self.taken[site].sum()) if site in self.taken else s[0].numel() for site, s in self.scores.items())
        counts = (_counted(n, "place"), _counted(len(self.scores), "site"), _counted(len(self.clean), "prompt"))
        return f"Effects({self.mode}, {how}, {counts[0]} of {counts[1]}, {counts[2]})"

    def __str__(self) -> str:
        sign, gap = MODES[self.mode].sign, self.gap
        one, other = f"{_mean(self.clean):.4g}", f"{_mean(self.corrupt):.4g}"
        both = f"{one}, as it is" if torch.equal(self.clean, self.corrupt) else f"clean {one}, corrupt {other}"
        lines = [repr(self), f"{self.metric}: {both}"]
        from micrographia.core.effect_stories import apart, by_position, followed

        maps = self.maps()
        lines += [sentence for each in maps if by_position(each) for sentence in followed(each, self.positions)]
        for each, flat in apart(maps, SHOWN):
            value, at = float(each.raw[self.mode].mean(0).ravel()[flat]), each.cell(flat).get("pos")
            share = "" if gap is None or self.gives == "size" else f"  {sign * value / gap:+.1%} of the gap"
            token = f"  at {self.positions[at]!r}" if self.positions and at is not None else ""
            lines.append(f"  {each.name(flat):<32} {value:+.4g}{share}{token}")
        return "\n".join([*lines, *numberless(self.maps())])

    def share(self) -> dict[Site, Tensor]:
        """By Site the share of the gap, (*axes), over the prompts. Raises UserError where there is no gap."""
        if self.gap is None:
            raise UserError(
                f"Asked for shares of the gap in {self.metric}, but clean and corrupt prompts score alike "
                f"({_mean(self.clean):.4g}). Choose prompts that the metric tells apart, or read the scores."
            )
        sign = MODES[self.mode].sign
        return {site: sign * score.double().mean(0) / self.gap for site, score in self.scores.items()}

    def top(self, n: int = 10) -> list[tuple[Place, float]]:
        """The n places with the largest score in size, mean over prompts, the largest first.

        Places whose score is NaN or infinite come before all others: nothing says that they are small.
        """
        maps = self.maps()
        return [
            (each.place(flat), float(each.raw[self.mode].mean(0).ravel()[flat]))
            for each, flat in [*without_number(maps), *largest(maps, n)][: max(n, 0)]
        ]

    def maps(self) -> "list[EffectMap]":
        """The scores of each kind of Site as one array over layers."""
        return effect_maps([self])

    def table(self) -> dict[str, Any]:
        """A row a place, as columns: kind, coordinates (-1 where there is none), share, change and spread."""
        return columns(self.maps())

    def figures(self) -> list[Figure]:
        """Heat maps, token strips or bars of the effects, whatever the axes are."""
        from micrographia.core.effect_figures import figures_of_maps

        done = "patched" if self.exact else "estimated"
        return figures_of_maps(self.maps(), self.positions, metric=self.metric, done=done)

    def named(self, positions: Sequence[str]) -> "Effects":
        """The same with names for its positions."""
        return replace(self, positions=tuple(positions))


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


class EffectMap(NamedTuple):
    """Effects of all places of one kind of Site, of one direction or of both side by side.

    `shares[mode]` (*lengths) in shares of the gap; `raw[mode]` (prompt, *lengths) in the metric's unit. `layers`: those
    along the axis "layer", or, without that axis, those that were patched together.
    """

    kind: str
    axes: tuple[str, ...]
    lengths: tuple[int, ...]
    layers: tuple[int, ...]
    raw: dict[Mode, NDArray[Any]]
    shares: dict[Mode, NDArray[Any]]
    replace: str = "other"
    taken: NDArray[Any] | None = None
    """Which places (*lengths) were asked for, where not all were."""
    group: int = 1
    gives: Literal["effect", "size"] = "effect"

    @property
    def size(self) -> int:
        return int(np.prod(self.lengths))

    @property
    def asked(self) -> NDArray[Any]:
        """Whether each place, in the order of their numbers, was asked for."""
        return np.ones(self.size, dtype=bool) if self.taken is None else self.taken.ravel()

    def cell(self, flat: int) -> dict[str, int]:
        """The coordinates of a place, layers by their number in the model."""
        at = dict(zip(self.axes, (int(i) for i in np.unravel_index(flat, self.lengths)))) if self.lengths else {}
        if "layer" in at and self.layers:
            at["layer"] = self.layers[at["layer"]]
        elif "layer" in at:
            del at["layer"]
        return at

    def place(self, flat: int) -> Place:
        """The place; of several layers patched together, that in the first of them."""
        at = self.cell(flat)
        layer = at.pop("layer", self.layers[0] if self.layers else None)
        kind, _, part = self.kind.removesuffix(SUMMED).partition("[")
        name, _, part = part.partition("].")
        return Place(Site(kind, layer, name, part), at)

    def name(self, flat: int) -> str:
        """The place as it is written: L9.z[pos=14, head=6]."""
        at = self.cell(flat)
        layer = at.pop("layer", None)
        several = "L*." if self.layers and "layer" not in self.axes else ""
        site = f"L{layer}.{self.kind}" if layer is not None else f"{several}{self.kind}"
        inside = ", ".join(f"{axis}={i}" for axis, i in at.items())
        return f"{site}[{inside}]" if inside else site

    def component(self, flat: int) -> str:
        """The place as people call it, without its position: L9H6."""
        at = {axis: i for axis, i in self.cell(flat).items() if axis not in ("layer", "pos", "query")}
        return component_name(self.place(flat).site, at, self.group, layered=not self.layers or "layer" in self.axes)

    def spoken(self, flat: int, positions: Sequence[str] = ()) -> str:
        """The place as people call it, with its position: L9H6 at 'to' (14)."""
        at = self.cell(flat)
        where = at.get("pos", at.get("query"))
        name = self.component(flat)
        name = f"the {name}" if name.startswith("stream") else name
        return name + ("" if where is None else f" at {at_position(positions, where)}")


def effect_map(
    kind: str,
    axes: Sequence[str],
    lengths: Sequence[int],
    layers: Sequence[int],
    raw: Mapping[Mode, NDArray[Any]],
    gap: float | None,
    replace: str = "other",
    taken: NDArray[Any] | None = None,
    group: int = 1,
) -> EffectMap:
    """An EffectMap from the changes of a metric, per prompt. `gap` is clean less corrupt; None where there is none."""
    whole: dict[Mode, NDArray[Any]] = {
        mode: np.asarray(each, dtype=np.float64).reshape(-1, *lengths) for mode, each in raw.items()
    }
    shares: dict[Mode, NDArray[Any]] = {
        mode: MODES[mode].sign * each.mean(0) / (gap or np.nan) for mode, each in whole.items()
    }
    return EffectMap(kind, tuple(axes), tuple(lengths), tuple(layers), whole, shares, replace, taken, group)


def effect_maps(effects: Sequence[Effects]) -> list[EffectMap]:
    """The effects by kind of Site, over layers; several Effects are the two directions of one question."""
    first = effects[0]
    families: dict[tuple[str, tuple[str, ...], tuple[int, ...]], list[Site]] = {}
    for site, score in first.scores.items():  # layers of other sizes are a map of their own
        families.setdefault((kind_of(site), first.axes[site], tuple(score.shape)), []).append(site)
    return [_family(kind, axes, sites, effects) for (kind, axes, _), sites in families.items()]


def _family(kind: str, axes: tuple[str, ...], sites: Sequence[Site], effects: Sequence[Effects]) -> EffectMap:
    raw: dict[Mode, NDArray[Any]] = {
        each.mode: np.stack([_array(each.scores[site]) for site in sites], 1) for each in effects
    }
    layers = [site.layer for site in sites if site.layer is not None]
    lengths = next(iter(raw.values())).shape[2:]
    if effects[0].together:
        raw = {mode: each[:, 0] for mode, each in raw.items()}
    else:
        axes, lengths = ("layer", *axes), (len(sites), *lengths)
    known, taken = effects[0].taken, None
    if any(site in known for site in sites):
        whole = np.ones(lengths[1:], dtype=bool)
        taken = np.stack([known[site].cpu().numpy() if site in known else whole for site in sites])
    gap = effects[0].gap if effects[0].gives == "effect" else None  # sizes are no shares of anything
    found = effect_map(kind, axes, lengths, layers, raw, gap, effects[0].replace, taken, effects[0].group)
    return found._replace(gives=effects[0].gives)


def kind_of(site: Site) -> str:
    """The Site without its layer: z, resid_pre[sae].latents."""
    return str(site).partition(".")[2] if site.layer is not None else str(site)


def _array(values: Tensor) -> NDArray[Any]:
    return values.detach().double().cpu().numpy()


def axes_of_scores(site: Site, *, summed: bool = False) -> tuple[str, ...]:
    """The axes behind the prompt of scores that sum over what makes one place; with `summed` over positions too."""
    whole = {"d_model", "d_head", "one"} | ({"pos", "query", "key"} if summed else set())
    return tuple(word for axis, word in zip(site.axes, words_of(site)) if axis not in whole)[1:]


def summed_along(each: EffectMap, axis: str) -> EffectMap:
    """The effects summed along an axis: a linear estimate of patching all of it."""
    at = each.axes.index(axis)
    left = [i for i in range(len(each.axes)) if i != at]
    return each._replace(
        kind=each.kind + SUMMED,
        axes=tuple(each.axes[i] for i in left),
        lengths=tuple(each.lengths[i] for i in left),
        raw={mode: raw.sum(at + 1) for mode, raw in each.raw.items()},
        shares={mode: share.sum(at) for mode, share in each.shares.items()},
    )


def largest(maps: Sequence[EffectMap], n: int) -> list[tuple[EffectMap, int]]:
    """The places with the largest effect in size, of either direction, the largest first; see `without_number`."""
    ranked: list[tuple[float, int, int]] = []
    for which, each in enumerate(maps):
        size = _sizes(each)
        size = np.where(np.isfinite(size), size, -1.0)
        best = [flat for flat in np.argsort(-size, kind="stable")[:n] if size[flat] >= 0]
        ranked += [(-float(size[flat]), which, int(flat)) for flat in best]
    ranked.sort()
    least = -NEGLIGIBLE * ranked[0][0] if ranked else 0.0
    return [(maps[which], flat) for size, which, flat in ranked[:n] if -size > least or size == ranked[0][0]]


def without_number(maps: Sequence[EffectMap]) -> list[tuple[EffectMap, int]]:
    """The places whose effect, in either direction, is NaN or infinite: they are never among the largest."""
    return [(each, int(flat)) for each in maps for flat in np.flatnonzero(each.asked & ~np.isfinite(_sizes(each)))]


def numberless(maps: Sequence[EffectMap]) -> list[str]:
    """A sentence on the places without a number, if there are any."""
    found, n_places = without_number(maps), sum(int(each.asked.sum()) for each in maps)
    if not found:
        return []
    (first, flat), several = found[0], len(found) > 1
    return [
        f"{len(found):,} of {_counted(n_places, 'place')} {'have' if several else 'has'} no number and "
        f"{'are' if several else 'is'} not ranked{', among them' if several else ':'} {first.name(flat)}. The metric "
        "of such a run, or what its estimate is made of, is NaN or infinite: an activation overflowed, or a "
        "probability is 0."
    ]


def _sizes(each: EffectMap) -> NDArray[Any]:
    """The larger effect of the two directions, of every place."""
    return np.max(np.abs(np.stack([effect.mean(0).ravel() for effect in each.raw.values()])), axis=0)


def record(each: EffectMap, flat: int, positions: Sequence[str]) -> dict[str, Any]:
    """A place as a row: its name and token, then for each direction the share, the change and its spread."""
    at = each.cell(flat)
    where = at.get("pos", at.get("query"))
    row: dict[str, Any] = {
        "place": each.name(flat),
        "part": each.component(flat),
        "token": None if where is None else positions[where],
    }
    for mode, raw in each.raw.items():
        row |= effect_cells(mode, raw.reshape(len(raw), -1)[:, flat], float(each.shares[mode].ravel()[flat]))
    return row


def effect_cells(mode: Mode, changes: Float[np.ndarray, "prompt"], share: float) -> dict[str, float | None]:
    """An effect in a row: its share of the gap, None where there is none, its change, and the spread of that."""
    shown = None if np.isnan(share) else share
    return {MODES[mode].verb: shown, f"{mode}_change": float(changes.mean()), f"{mode}_sd": spread(changes)}


def spread(values: Tensor | NDArray[Any]) -> float | None:
    """The standard deviation over prompts; None for one prompt."""
    column = _array(values) if isinstance(values, Tensor) else values
    return float(column.std(ddof=1)) if len(column) > 1 else None


def columns(maps: Sequence[EffectMap]) -> dict[str, NDArray[Any] | list[str]]:
    """Every place that was asked for as columns: kind, coordinates (-1 where there is none), share, change, spread."""
    kinds = [each.kind for each in maps for _ in range(each.size)]
    found: dict[str, NDArray[Any] | list[str]] = {"kind": kinds}
    found |= {axis: np.concatenate([_along(each, axis) for each in maps]) for axis in COORDINATES}
    for mode in maps[0].raw:
        flat = [each.raw[mode].reshape(len(each.raw[mode]), -1) for each in maps]
        found[f"{mode}_share"] = np.concatenate([each.shares[mode].ravel() for each in maps])
        found[f"{mode}_change"] = np.concatenate([raw.mean(0) for raw in flat])
        with np.errstate(invalid="ignore"):  # of infinite changes: NaN
            found[f"{mode}_sd"] = np.concatenate(
                [raw.std(0, ddof=1) if len(raw) > 1 else np.full(raw.shape[1], np.nan) for raw in flat]
            )
    if any(each.taken is not None for each in maps):
        asked = np.concatenate([each.asked for each in maps])
        found = {name: np.asarray(column)[asked] for name, column in found.items()}
        found["kind"] = [kind for kind, wanted in zip(kinds, asked) if wanted]
    return found


def _along(each: EffectMap, axis: str) -> NDArray[Any]:
    """The coordinate of every place along an axis."""
    if axis not in each.axes or (axis == "layer" and not each.layers):
        return np.full(each.size, -1)
    at = np.indices(each.lengths)[each.axes.index(axis)].ravel()
    return np.asarray(each.layers)[at] if axis == "layer" else at
