"""Which places an estimate is held against, and what a method says of them: how scores and places meet."""

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, first_difference
from micrographia.core.sites import Site
from micrographia.core.sweep import Place, places
from micrographia.core.tokens import ids_of
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.estimate import Mode

KINDS = {  # what is patched in one go, of each kind of Site
    **dict.fromkeys(("z", "q", "k", "v"), ("layer", "pos", "head")),
    **dict.fromkeys(("resid_pre", "attn_out", "mlp_out"), ("layer", "pos")),
    "neurons": ("layer", "pos", "unit"),
    "pattern": ("layer", "head", "query", "key"),
}
METHODS = ("atp", "atp-qk", "atp-star", "ig", "relp")
HELD = {"relp": ("q", "k", "pattern")}  # no gradient goes through attention patterns there


def scores_at(
    model: Model, pairs: Pairs, m: Metric, sites: Sequence[Site], mode: Mode, method: str
) -> Mapping[Site, Tensor]:
    """Estimates by one of `METHODS`, (prompt, *axes without features), at the Sites that it says anything of."""
    seen = [site for site in sites if site.kind not in HELD.get(method, ())]
    return attribute(model, pairs, m, seen, mode=mode, method=method).scores


def places_of(model: Model, pairs: Pairs, kind: str, most: int, generator: Generator) -> list[Place]:
    """The places of a kind that can have an effect, or `most` of them by lot, in the order of a run.

    None before the prompts differ, nor where a query cannot look.
    """
    begin = first_difference(pairs)
    every = [patch[0] for patch in places(model, f"L*.{kind}", KINDS[kind], ids_of(pairs.clean).shape[1])]
    able = [p for p in every if p.where.get("pos", p.where.get("query")) >= begin]
    able = [p for p in able if p.where.get("key", 0) <= p.where.get("query", 0)]
    drawn = torch.randperm(len(able), generator=generator)[:most].sort().values
    return [able[int(i)] for i in drawn]


def cell(values: Tensor, place: Place) -> Tensor:
    """What (prompt, *axes) holds at a place, for every prompt: places of `KINDS` name axes in the Site's order."""
    return values[(slice(None), *place.where.values())]
