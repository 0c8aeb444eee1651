"""What a check of estimates costs beside them, counted in tokens through layers, so that it is the same anywhere.

A pass over a layer costs its tokens and about `OVERHEAD` more, for which its weights are read. A patch at layer l and
position p runs L - l layers of T - p positions, each `SLOWER` than of one long run. From this come the default number
of places to check (`affordable`), and the joint patches that are worth their cost (`within`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Bool
from torch import Tensor

from micrographia.core.effects import Effects
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.sweep import Patch, Place
from micrographia.core.sweep.places import first_position, words_of
from micrographia.core.sweep.writing import layer_of
from micrographia.core.tokens import ids_of
from micrographia.methods.attribution.estimation import cell_axes

TIMES = 2.0
"""The default check may take so many times the cost of the estimates, both then thrice. Our choice."""
JOINTLY = 0.25
"""The part of that for whole Sites and kinds. Our choice."""
OVERHEAD = 64
"""Tokens whose computation takes as long as reading a layer's weights: measured on SmolLM2-135M, one CPU thread."""
SLOWER = 2.75
"""How much more a patch costs than its tokens: patches join a batch layer by layer, each time in a run of its own.
Measured there too."""
MOST = 256
"""Places of the default check at most: from there on a bound on what was missed gains little. Our choice."""
FEWEST = 8
"""Places of a kind of Site at least, whatever they cost. Our choice."""

WRITTEN_AS = {"neurons": "mlp_out", "mlp_raw": "mlp_out", "z": "attn_out", "result": "attn_out", "attn_raw": "attn_out"}
"""What a Site decides completely where it is patched whole: the two patches are one."""


@dataclass(frozen=True)
class Work:
    """The size of a run: layers, prompts, positions, and from which position on anything can change."""

    n_layers: int
    n_prompts: int
    n_pos: int
    begin: int = 0
    limit: float = 0.0
    """What a check may cost."""

    @property
    def a_pass(self) -> float:
        return self.n_layers * (self.n_prompts * self.n_pos + OVERHEAD)

    def of(self, patch: Patch) -> float:
        """The cost of a patched run, restarted where it differs."""
        first = max(self.begin, min(first_position(place, self.n_pos) for place in patch))
        layers = self.n_layers - max(0, min(layer_of(place.site, self.n_layers) for place in patch))
        return SLOWER * layers * (self.n_pos - first) * self.n_prompts


def work_of(model: Model, pairs: Pairs, found: Effects, begin: int | None) -> Work:
    """The size of the runs of these estimates, and what checking them may cost beside them; the donor's and the base
    run of the check come off it.
    """
    n_prompts, n_pos = ids_of(pairs.clean).shape
    work = Work(model.shape.n_layers, n_prompts, n_pos, begin or 0)
    n_passes = sum(found.n_passes or (2, 1))
    return replace(work, limit=(TIMES * n_passes - 2) * work.a_pass)


def affordable(work: Work, able: Mapping[str, Mapping[Site, Bool[Tensor, "..."]]]) -> int:
    """How many places a check may patch: as many as cost `TIMES` the estimates with what else it does.

    `able`: by kind and Site which places can have an effect; all kinds get as many. Between `FEWEST` for each and
    `MOST`, and no more than there are.
    """
    mean = sum(_mean_cost(work, sites) for sites in able.values()) / len(able)
    n_able = sum(int(mask.sum()) for sites in able.values() for mask in sites.values())
    wanted = int((1 - JOINTLY) * work.limit / mean) if mean else MOST
    return max(len(able), min(max(wanted, FEWEST * len(able)), MOST, n_able))


def _mean_cost(work: Work, sites: Mapping[Site, Bool[Tensor, "..."]]) -> float:
    """Of a place of a kind that can have an effect, drawn evenly."""
    total, count = 0.0, 0
    for site, mask in sites.items():
        axes = cell_axes(site, mask[None])
        axis = next((i for i, word in enumerate(axes) if word in ("pos", "query")), None)
        each = (
            [int(mask.sum())] if axis is None else mask.movedim(axis, 0).reshape(mask.shape[axis], -1).sum(1).tolist()
        )
        for pos, n in enumerate(each):
            total += n * work.of((Place(site, {} if axis is None else {axes[axis]: pos}),))
        count += sum(each)
    return total / count if count else 0.0


def since(patch: Patch, begin: int, n_pos: int) -> Patch:
    """The patch, without the positions before `begin`, which it would leave as they are: so it runs from there on."""
    found = []
    for place in patch:
        axis = next((word for word in words_of(place.site) if word in ("pos", "query")), None)
        free = begin > 0 and axis is not None and axis not in place.where
        found.append(place._replace(where={**place.where, axis: tuple(range(begin, n_pos))}) if free else place)
    return tuple(found)


def same_run(patch: Patch) -> Patch:
    """Whole Sites named by what they decide, so that patches which are the same run are equal."""
    return tuple(
        Place(Site(WRITTEN_AS[place.site.kind], place.site.layer))
        if not place.where and not place.site.part and place.site.kind in WRITTEN_AS
        else place
        for place in patch
    )


def within(work: Work, several: Sequence[Patch], spent: float = 0.0) -> list[Patch]:
    """The first of these joint patches, as many as their part of the limit pays."""
    found: list[Patch] = []
    for patch in several:
        spent += work.of(patch)
        if spent > JOINTLY * work.limit:
            break
        found.append(patch)
    return found
