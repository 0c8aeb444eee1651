"""Where a fact is on its way to the answer: activations of other entities patched in, place by place.

Noising: the run of an entity, with an activation of an entity that has another value written in; the share of the logit
difference that this destroys. The null: donors that have the same value. A place that carries the value itself tells
the two apart; one that carries who it is does not. Axes: stage pos.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Generator, Tensor

from micrographia.core.metrics import logit_difference
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.tokens import ids_of
from micrographia.methods.lookup.facts import Facts, Relation
from micrographia.methods.patching import patch_sites

POSITIONS = ("<bos>", "first name", "last name", "relation")
FIRST, LAST, ASKED = range(1, 4)


def boards(model: Model, facts: Facts, n: int, draw: Generator) -> dict[str, ndarray]:
    """Kind of Site -> (relation, layer, pos), of donors with another value; "same value" is the stream's null.

    The stream has one row more than layers: its last is what the final norm reads. Exact patching of `n` pairs, about a
    forward pass of them for each place.
    """
    found: dict[str, list[Tensor]] = {}
    for relation in facts.relations:
        other, same = (_pairs(relation, n, draw, same=same) for same in (False, True))
        for kind in ("stream", "attn_out", "mlp_out"):
            found.setdefault(kind, []).append(_destroyed(model, other, _sites(model, kind)))
        found.setdefault("same value", []).append(_destroyed(model, same, _sites(model, "stream")))
    return {kind: torch.stack(each).numpy() for kind, each in found.items()}


def _sites(model: Model, kind: str) -> list[Site]:
    layers = range(model.shape.n_layers)
    if kind != "stream":
        return [Site(kind, layer) for layer in layers]
    return [*(Site("resid_pre", layer) for layer in layers), Site("resid_post", layers[-1])]


def _pairs(relation: Relation, n: int, draw: Generator, *, same: bool) -> Pairs:
    """Entities and their donors; the wrong answer is the donor's, or another of the relation's where that is the same.

    Fewer than `n` where too few of the draws fit.
    """
    answer, tokens = relation.answer, ids_of(relation.inputs)
    one, other = torch.randint(len(answer), (2, 8 * n), generator=draw)
    fit = ((answer[one] == answer[other]) == same) & (one != other)
    one, other = one[fit][:n], other[fit][:n]
    away = torch.randint(1, len(relation.options), (len(one),), generator=draw)
    wrong = (answer[one] + away) % len(relation.options) if same else answer[other]
    return Pairs(tokens[one], tokens[other], relation.options[answer[one]], relation.options[wrong])


def _destroyed(model: Model, pairs: Pairs, sites: Sequence[Site]) -> Float[Tensor, "stage pos"]:
    """How far noising each place moves the logit difference, in units of twice its mean: 1 turns it round, as the
    donor's own run does."""
    assert pairs.wrong is not None
    metric = logit_difference(pairs.answer, pairs.wrong)
    whole = 2 * metric.of(model, pairs.clean).mean()
    effects = [
        patch_sites(model, pairs, [s for s in sites if s.kind == kind], [metric], mode="noise")[0]
        for kind in dict.fromkeys(site.kind for site in sites)
    ]
    return torch.stack([-own.scores[site].mean(0) / whole for own in effects for site in own.scores])
