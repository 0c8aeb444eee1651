"""Which heads look like previous-token, duplicate-token, induction and name-mover heads, by behaviour alone.

Every score is a (layer, head) tensor beside its null: what a head gets that attends evenly, or copying by chance. The
same scores of the network before training are the other null; `labs/ioi/train.network_at(..., 0)` gives it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.model import Model
from micrographia.labs.ioi.grammar import IDS, WORDS, repeatable
from micrographia.labs.ioi.task import PromptPairs, prompt_pairs
from micrographia.labs.ioi.templates import PROMPT_SPAN, Behaviour
from micrographia.labs.ioi.words import BOS
from micrographia.methods.heads import (
    COPIED,
    attention,
    copy_scores,
    copying_eigenvalues,
    evenly,
    repeat_scores,
    repeated_spans,
)

LOOKS: dict[Behaviour, dict[str, tuple[str, str]]] = {
    "ioi": {
        "END to IO": ("END", "IO"),
        "END to S1": ("END", "S1"),
        "END to S2": ("END", "S2"),
        "S2 to S1": ("S2", "S1"),
        "S2 to S1+1": ("S2", "S1+1"),
        "S1+1 to S1": ("S1+1", "S1"),
    },
    "induction": {"END to A1": ("END", "A1"), "END to A1+1": ("END", "A1+1")},
    "pronoun": {"END to N": ("END", "N")},
    "greater": {"END to YY": ("END", "YY"), "END to XX": ("END", "XX")},
}
"""Where heads of the published circuits look, as (query, key) roles. Wang et al. (2022), figure 2: name movers from END
to IO, S-inhibition heads from END to S2, duplicate-token heads from S2 to S1, induction heads from S2 to S1+1,
previous-token heads from S1+1 to S1. Hanna et al. (2023), section 3: from the last century to the year."""


CLEAR = 1 / 3
"""A head resembles a kind when every score of the kind is at least this: our choice, made before any was measured."""
KINDS: dict[str, tuple[str, ...]] = {
    "previous token": ("previous token",),
    "duplicate token": ("duplicate token",),
    "induction": ("induction",),
    "name mover": ("ioi: END to IO", "copies names"),
    "negative name mover": ("ioi: END to IO", "suppresses names"),
    "S2 reader": ("ioi: END to S2",),
}
"""Kind of head -> its scores. An S-inhibition head reads S2 from END; that it inhibits is for patching to tell."""


class HeadScore(NamedTuple):
    """One score of every head. `null`: what a head gets that attends evenly, or copies by chance."""

    values: Float[Tensor, "layer head"]
    null: float


def head_scores(model: Model, *, n: int, generator: Generator, held_out: bool = True) -> dict[str, HeadScore]:
    """Every score, by name ("induction", "ioi: END to IO", "copies names" ...), on n prompts of each behaviour.

    Two forward passes over n prompts a behaviour, and what `copy_scores` costs.
    """
    found = _repeats(model, n, generator)
    for behaviour, looks in LOOKS.items():
        pairs = prompt_pairs(behaviour, n, generator, held_out=held_out)
        found |= _looks(model, pairs, {f"{behaviour}: {name}": roles for name, roles in looks.items()})
        if behaviour == "ioi":
            found |= _copies(model, pairs)
    return found


def resembling(scores: Mapping[str, HeadScore]) -> dict[str, list[tuple[int, int]]]:
    """The heads, as (layer, head), that resemble each kind, the clearest first."""
    found = {}
    for kind, names in KINDS.items():
        least = torch.stack([scores[name].values for name in names]).amin(0)
        layers, heads = (least >= CLEAR).nonzero(as_tuple=True)
        order = least[layers, heads].argsort(descending=True)
        found[kind] = list(zip(layers[order].tolist(), heads[order].tolist()))
    return found


def _repeats(model: Model, n: int, generator: Generator) -> dict[str, HeadScore]:
    tokens = repeated_spans(n, PROMPT_SPAN, repeatable(), generator, bos=IDS[BOS])
    scores = repeat_scores(model, _there(model, tokens), PROMPT_SPAN)
    queries = torch.arange(tokens.shape[1] - PROMPT_SPAN, tokens.shape[1])
    names = ("previous token", "duplicate token", "induction")
    return {name: HeadScore(values.cpu(), evenly(queries)) for name, values in zip(names, scores, strict=True)}


def _looks(model: Model, pairs: PromptPairs, looks: dict[str, tuple[str, str]]) -> dict[str, HeadScore]:
    roles = [(pairs.roles[query], pairs.roles[key]) for query, key in looks.values()]
    values = attention(model, _there(model, pairs.clean), roles).cpu()
    return {name: HeadScore(x, evenly(query)) for name, x, (query, _) in zip(looks, values, roles, strict=True)}


def _copies(model: Model, pairs: PromptPairs) -> dict[str, HeadScore]:
    tokens, at, chance = _there(model, pairs.clean), pairs.roles["IO"], COPIED / len(WORDS)
    return {
        "copies names": HeadScore(copy_scores(model, tokens, at), chance),
        "suppresses names": HeadScore(copy_scores(model, tokens, at, sign=-1), chance),
        "copying eigenvalues": HeadScore(copying_eigenvalues(model), 0.0),
    }


def _there(model: Model, tokens: Int[Tensor, "n pos"]) -> Int[Tensor, "n pos"]:
    return tokens.to(model.weights.W_E.device)
