"""What is measured of one behaviour of one model, in the order in which the question is asked. Any Model will do.

Which parts carry the answer, exactly (1) and by estimate (2); who speaks to the logits and to whom (3); which set of
parts does it alone (4). m is the metric, the logit difference; clean and corrupt prompts are Pairs. An effect is a
change of m from the run that is patched; a share is of the gap between clean and corrupt m.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.graph import LOGITS, Node, graph_of
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, first_difference
from micrographia.core.sites import Site
from micrographia.core.sweep import Donor, Patch, Place, grids
from micrographia.core.tokens import ids_of
from micrographia.labs.ioi.spots import HELD, METHODS, cell, places_of, scores_at
from micrographia.methods.attribution.edges import EdgeAttribution
from micrographia.methods.attribution.estimate import Mode
from micrographia.methods.circuits.ablate import Ablation, Alone, nodes_alone
from micrographia.methods.circuits.judge import Areas, areas
from micrographia.methods.circuits.members import Member, Part, edge_scores, greedy_order, parts_of, ranked
from micrographia.methods.lens import direct_logit_attribution
from micrographia.methods.patching import patch, patch_both
from micrographia.methods.paths import path_patch

Shares = dict[str, Float[Tensor, "row pos"]]
MAPS = {"z": ("layer", "pos", "head"), "mlp_out": ("layer", "pos"), "resid_pre": ("layer", "pos")}


def maps(model: Model, pairs: Pairs, m: Metric, kinds: Iterable[str] = tuple(MAPS)) -> dict[str, Shares]:
    """(1) The share of the gap that each place brings back (denoise) or takes away (noise), rows by layer and head."""
    found: dict[str, Shares] = {}
    for kind in kinds:
        (grid,) = grids(model, f"L*.{kind}", MAPS[kind], ids_of(pairs.clean).shape[1])
        both = patch_both(model, pairs, [m], grid.patches)
        shares = {"denoise": both.denoise.recovered()[:, 0], "noise": 1 - both.noise.recovered()[:, 0]}
        tables = {mode: grid.table(share) for mode, share in shares.items()}
        found[kind] = {mode: x.mT.flatten(0, 1) if x.ndim == 3 else x for mode, x in tables.items()}
    return found


class Kind(NamedTuple):
    """(2) Places of one kind of Site: their exact effects, estimates by method, and the size of what is written."""

    places: list[Place]
    exact: Float[Tensor, "place prompt"]
    estimates: dict[str, Float[Tensor, "place prompt"]]
    change: Float[Tensor, "place prompt"]
    """How far the activation itself moves: what an estimate must beat to have learned something from the gradient."""


def estimates(
    model: Model, pairs: Pairs, m: Metric, kinds: Iterable[str], *, mode: Mode, most: int, generator: Generator
) -> dict[str, Kind]:
    """(2) Every estimate beside the exact effect, at all places of a kind, or at `most` of them by lot."""
    chosen = {kind: places_of(model, pairs, kind, most, generator) for kind in kinds}
    sites = sorted({place.site for found in chosen.values() for place in found})
    scores = {name: scores_at(model, pairs, m, sites, mode, name) for name in METHODS}
    into, other = (pairs.corrupt, pairs.clean) if mode == "denoise" else (pairs.clean, pairs.corrupt)
    here, there = (model.run(side, keep=sites, logits="last").cache for side in (into, other))
    flat = [place for found in chosen.values() for place in found]
    exact = patch(model, pairs, [m], [(place,) for place in flat], mode=mode).effects()[..., 0]
    found = {}
    for (kind, own), effect in zip(chosen.items(), exact.split([len(own) for own in chosen.values()])):
        moved = torch.stack([cell(there[p.site] - here[p.site], p).reshape(len(pairs), -1).norm(dim=1) for p in own])
        told = {
            name: torch.stack([cell(score[p.site], p) for p in own])
            for name, score in scores.items()
            if kind not in HELD.get(name, ())
        }
        found[kind] = Kind(own, effect, told, moved)
    return found


def heads_of(model: Model) -> list[Node]:
    """Every head, in the order of a run."""
    return [Node(Site("z", i), head) for i in range(model.shape.n_layers) for head in range(model.shape.n_heads)]


def spoken(
    model: Model, pairs: Pairs, m: Metric, receivers: Sequence[Node], *, donor: Donor | None = None
) -> Float[Tensor, "layer head"]:
    """(3) How much m falls when what each head says directly to these receivers is the corrupt run's, or donor's."""
    senders: list[Patch] = [(Place(node.site, {"head": node.head or 0}),) for node in heads_of(model)]
    given = None if donor is None else [donor]
    effects = path_patch(model, pairs, [m], senders, receivers, mode="noise", donors=given).effects()[..., 0]
    return -effects.mean(1).unflatten(0, (model.shape.n_layers, -1))


def readers(model: Model, kinds: str, *, after: int = 0) -> list[Node]:
    """(3) The q, k, v inputs, as named, of all heads from layer `after` on."""
    return [node for node in graph_of(model).readers if node.site.kind in kinds and (node.site.layer or 0) >= after]


TO_LOGITS = [Node(LOGITS)]
TOLD = 12


def direct(model: Model, pairs: Pairs) -> list[tuple[str, float]]:
    """(3) The parts that write most straight to m on the clean prompts, in logits, the largest first."""
    return direct_logit_attribution(model, pairs.clean, pairs.answer, pairs.wrong).top(TOLD)


def part_scores(parts: Sequence[Part], found: Mapping[str, Kind]) -> dict[str, dict[Part, float]]:
    """(4) How much each of these helps, by every method: its effect when noised, turned round."""
    scores = {name: dict.fromkeys(parts, 0.0) for name in ("exact", *METHODS)}
    for kind in found.values():
        for name, values in {"exact": kind.exact, **kind.estimates}.items():
            for place, value in zip(kind.places, values.mean(1).tolist()):
                part = Part(Node(place.site, place.where.get("head")), place.where["pos"])  # type: ignore[arg-type]  # single cells
                if part in scores[name]:
                    scores[name][part] = -value
    return scores


def universe(model: Model, *sides: Pairs) -> tuple[Part, ...]:
    """(4) What circuits are cut from: heads and MLPs by position, where they can reach the answer.

    None before the first word that differs; in the last layer, which speaks to its own position alone, the last one.
    """
    begin, n_pos = min(map(first_difference, sides)), ids_of(sides[0].clean).shape[1]
    early = range(begin, n_pos)
    late = {model.shape.n_layers - 1: range(n_pos - 1, n_pos)}
    return tuple(
        part for part in parts_of(model, n_pos=n_pos) if part.pos in late.get(part.node.site.layer or 0, early)
    )


def node_game(model: Model, pairs: Pairs, m: Metric, parts: Sequence[Part], ablation: Ablation) -> Alone:
    """(4) m of the circuit alone, everything outside ablated."""
    return nodes_alone(model, pairs, m, parts, ablation=ablation)


def ladder(alone: Alone, scores: Mapping[Member, float]) -> tuple[Areas, Areas]:
    """(4) Faithfulness of the largest scores by size (for CMD) and of the most helpful (for CPR)."""
    return areas(alone, ranked(scores)), areas(alone, ranked(scores, signed=True))


def edge_ladder(alone: Alone, found: EdgeAttribution) -> Areas:
    """(4) The same of edges, which grow greedily from the logits backward."""
    return areas(alone, greedy_order(found.graph, edge_scores(found.graph, found.mean())))
