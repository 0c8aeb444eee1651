"""The battery of `methods.lookup` on one network: plain numbers and arrays by name.

`of_stack` is for the effective model, all of whose neurons serve the look-up; `at_the_name` for any that reads a
subject before the relation. Figures of several relations are their mean. Nulls: MLP weights dealt anew, a random
rotation of the neurons, the network before training, other entities' values.
"""

from typing import Any

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from micrographia.core.model import Model
from micrographia.core.shuffled import shuffled_mlps
from micrographia.core.sites import Site
from micrographia.core.small.transformer import Transformer
from micrographia.methods.lookup.bagging import bagging, votes
from micrographia.methods.lookup.best_neuron import best_neurons
from micrographia.methods.lookup.cells import entity_cells
from micrographia.methods.lookup.embedding import EmbeddingProbes, embedding_probes, probe_directions, weight_probe
from micrographia.methods.lookup.facts import Answered, Facts
from micrographia.methods.lookup.grid import and_fraction, interaction_fractions
from micrographia.methods.lookup.mlp_paths import mlp_paths
from micrographia.methods.lookup.neurons import NeuronEffects, neuron_effects, random_rotations
from micrographia.methods.lookup.norms import norm_gaps
from micrographia.methods.lookup.replace import replaced, table_of
from micrographia.methods.lookup.sharing import shared_neurons
from micrographia.methods.lookup.spread import over_neurons

Found = dict[str, Any]
DRAWS = 50
"""Of every null that is a permutation."""


def of_stack(
    model: Transformer, known: Facts, grid: Facts, is_known: Bool[Tensor, "subject"], draw: Generator
) -> Found:
    """Everything that is asked of neurons and of paths between MLPs. `grid`: every pair of names, known or not."""
    layers = list(range(model.shape.n_layers))
    null = shuffled_mlps(model, draw)
    rotations = random_rotations(len(layers), model.shape.d_mlp, draw)
    effects, rotated = neuron_effects(model, known), neuron_effects(model, known, rotations=rotations)
    best = best_neurons(model, known, draw, draws=DRAWS)
    shared = shared_neurons(effects, draw, draws=DRAWS) if len(known.relations) > 1 else []
    paths, kept = mlp_paths(model, known), bagging(model, known, draw, draws=3)
    gaps = norm_gaps(model, grid, is_known, draw, draws=DRAWS)
    return {
        "layers": layers,
        "interaction": {kind: fractions(model, grid, kind) for kind in ("resid_post", "mlp_out")},
        "interaction_null": {kind: fractions(null, grid, kind) for kind in ("resid_post", "mlp_out")},
        "by_single_neurons": by_single_neurons(model, grid, layers, is_known),
        "by_single_neurons_null": by_single_neurons(null, grid, layers, is_known),
        "paths_accuracy": paths.accuracy.mean(0).numpy(),
        "paths_loss": paths.loss.mean(0).numpy(),
        "clean_loss": float(paths.clean.loss.mean()),
        "clean_accuracy": float(paths.clean.accuracy.mean()),
        "shared": _mean([each.mean for each in shared]),
        "shared_null": _mean([float(each.null.mean()) for each in shared]),
        "participation": participation(effects),
        "participation_null": participation(rotated),
        "cells": _mean([each.share_alone for each in entity_cells(effects)]),
        "cells_null": _mean([each.share_alone for each in entity_cells(rotated)]),
        "lost_by_one": _mean([each.share_lost for each in entity_cells(effects)]),
        "best_neuron": float(best[0].best.nanmean()),
        "best_neuron_null": float(best[0].null.nanmean()),
        "kept": list(kept.shares),
        "kept_accuracy": kept.accuracy.mean((1, 2)).tolist(),
        "votes_correlation": float(votes(model, known, draw).error_correlation.nanmean()),
        "norm_area": [gap.area for gap in gaps.values()],
        "norm_area_null": [float(gap.null.mean()) for gap in gaps.values()],
    }


def fractions(model: Model, grid: Facts, kind: str) -> list[float]:
    """The share of the variance over the grid that is interaction, by layer."""
    return list(interaction_fractions(model, grid, f"L*.{kind}").values())


def by_single_neurons(model: Model, grid: Facts, layers: list[int], is_known: Bool[Tensor, "subject"]) -> float:
    """The median over known entities of how much of what a pair adds to its answer single neurons made."""
    each = [
        and_fraction(model, grid, weight_probe(model, own).T, layers=layers, answer=own.answer)[is_known]
        for own in grid.relations
    ]
    return float(torch.stack([x[x.isfinite()].median() for x in each]).mean())


def participation(effects: NeuronEffects) -> float:
    """How many neurons carry a fact: the median."""
    return _mean([float(each.participation.nanmedian()) for each in over_neurons(effects)])


def at_the_name(model: Transformer, fresh: Transformer, known: Facts, splits: int, draw: Generator) -> EmbeddingProbes:
    """Probes at the last name, before the relation is seen; at the embedding and after each sublayer."""
    sites = [Site("resid_pre", 0), *(site for site in model.sites if site.kind in ("resid_mid", "resid_post"))]
    return embedding_probes(model, known, draw, sites=sites, untrained=fresh, splits=splits)


def by_table(model: Transformer, contexts: list[Facts], layer: int, draw: Generator) -> Found:
    """Loss and accuracy when the stream at the last name is a table of names; probes' directions are fitted to half of
    the entities, and the other half judges."""
    site, known = Site("resid_post", layer), contexts[0]
    fitted, judged = torch.randperm(known.n, generator=draw).split([known.n // 2, known.n - known.n // 2])
    directions = probe_directions(model, known, site, fitted)
    table = table_of(model, contexts, site)[judged]
    found = replaced(model, known.rows(judged), site, table, directions, draw)
    each: dict[str, Answered] = {name: x for name, x in found._asdict().items() if name != "rank"}
    rows = {name: (float(x.loss.mean()), float(x.accuracy.mean())) for name, x in each.items()}
    return {"rank": found.rank, "rows": rows}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
