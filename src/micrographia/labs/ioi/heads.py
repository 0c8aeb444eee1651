"""Kinds of head, found by two criteria that share nothing, and how far the two agree.

The attention criterion: what a head attends to on repeated spans and prompts, and what it copies (`resembling`). The
path-patching criterion: heads whose direct effect on certain receivers carries most of the logit difference, as Wang et
al. (2022, section 3) trace them: movers act on the logits, S2 readers on queries and logits, duplicate-token heads on
any later head, previous-token heads on later keys. For these last the other prompt of the pair changes nothing, so they
are replaced by the mean over prompts. Expected by chance: as many heads drawn at random within the layers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.stats import hypergeom
from torch import Generator, Tensor

from micrographia.core.graph import LOGITS, Node, graph_of
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, baselines, metric_of
from micrographia.core.ranking import areas
from micrographia.core.sites import Site
from micrographia.core.sweep import Donor, Place
from micrographia.labs.ioi.grammar import BOS, IDS, PROMPT_SPAN, WORDS, Behaviour, repeatable
from micrographia.labs.ioi.task import Case, PromptPairs, prompt_pairs
from micrographia.methods import heads as methods
from micrographia.methods.heads import COPIED, attention, evenly, repeated_spans
from micrographia.methods.paths import path_patch

Head = tuple[int, int]
ATTENDED: dict[Behaviour, dict[str, tuple[str, str]]] = {
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
"""Where heads of the published circuits attend, as (query, key) roles. Wang et al. (2022), figure 2: name movers from
END to IO, S-inhibition heads from END to S2, duplicate-token heads from S2 to S1, induction heads from S2 to S1+1,
previous-token heads from S1+1 to S1. Hanna et al. (2023), section 3: from the last century to the year."""
CLEAR = 1 / 3
"""A head meets a criterion from this score, or this share of the largest effect. Our choice, made before measuring."""
NEGLIGIBLE = 0.01
"""A part whose removal changes less than this share of the gap does nothing. Our choice."""
KINDS: dict[str, tuple[str, ...]] = {
    "previous token": ("previous token",),
    "duplicate token": ("duplicate token",),
    "induction": ("induction",),
    "name mover": ("ioi: END to IO", "copies names"),
    "negative name mover": ("ioi: END to IO", "suppresses names"),
    "S2 reader": ("ioi: END to S2",),
}
"""Kind of head -> its scores. An S-inhibition head reads S2 from END; that it inhibits is for patching to find."""


class PathCriterion(NamedTuple):
    """How a kind of head is looked for by path patching. `sign` -1: it works against the answer."""

    behaviour: Behaviour
    receivers: str
    """Letters of the readers in later layers; "l" is the logits."""
    mean: bool = False
    """Replaced by the mean over prompts, not by the other prompt."""
    sign: int = 1


PATHS: Mapping[str, PathCriterion] = {
    "previous token": PathCriterion("induction", "k", mean=True),
    "duplicate token": PathCriterion("ioi", "qkv"),
    "induction": PathCriterion("induction", "l"),
    "name mover": PathCriterion("ioi", "l"),
    "negative name mover": PathCriterion("ioi", "l", sign=-1),
    "S2 reader": PathCriterion("ioi", "ql"),
}


class HeadKind(NamedTuple):
    """The heads of one kind by either criterion, in layers of `n_heads`."""

    by_attention: list[Head]
    by_path: list[Head]
    n_heads: int
    area: float
    """Area under the ROC curve of the direct effects for the heads of the other criterion; NaN where none or all."""

    @property
    def both(self) -> int:
        return len(set(self.by_attention) & set(self.by_path))

    @property
    def either(self) -> int:
        return len(set(self.by_attention) | set(self.by_path))

    @property
    def agreement(self) -> float:
        """Jaccard's: the share of heads found by either criterion that both find; NaN where neither finds any."""
        return self.both / self.either if self.either else math.nan

    @property
    def agreement_by_chance(self) -> float:
        """Its expectation when the heads by attention are drawn at random, as many in each layer."""
        if not self.either:
            return math.nan
        chance = self._by_chance()
        both = np.arange(len(chance))
        return float((chance * both / (len(self.by_attention) + len(self.by_path) - both)).sum())

    @property
    def both_by_chance(self) -> float:
        """How many both would find then, in expectation."""
        chance = self._by_chance()
        return float((chance * np.arange(len(chance))).sum())

    def _by_chance(self) -> NDArray[np.float64]:
        """The probability of each number that both find: hypergeometric in a layer, layers independent."""
        chance = np.ones(1)
        for layer in sorted({layer for layer, _ in self.by_attention}):
            drawn, marked = (sum(head[0] == layer for head in heads) for heads in (self.by_attention, self.by_path))
            counts = np.arange(min(drawn, marked) + 1)
            chance = np.convolve(chance, hypergeom.pmf(counts, self.n_heads, marked, drawn))
        return chance


def head_kinds(model: Model, cases: Mapping[Behaviour, Case], n: int, draw: Generator) -> dict[str, HeadKind]:
    """Every kind whose behaviour the network has learned."""
    attended = resembling(head_scores(model, n=n, generator=draw))
    return {
        kind: head_kind(model, cases[path.behaviour], path, attended[kind])
        for kind, path in PATHS.items()
        if path.behaviour in cases
    }


def head_kind(model: Model, case: Case, path: PathCriterion, attended: Sequence[Head]) -> HeadKind:
    """By path: heads whose effect is at least `CLEAR` of the largest, as by attention, and not `NEGLIGIBLE`."""
    effects = path.sign * direct_effects(model, case, path)
    n_layers, n_heads = effects.shape[0] - ("l" not in path.receivers), effects.shape[1]
    own = [head for head in attended if head[0] < n_layers]  # without the logits the last layer has no receiver
    scores = effects[:n_layers].flatten().cpu().double().numpy()
    chosen = np.array([divmod(i, n_heads) in own for i in range(len(scores))])
    least = max(CLEAR * float(scores.max(initial=0.0)), NEGLIGIBLE)
    found = [divmod(int(i), n_heads) for i in np.argsort(-scores, kind="stable") if scores[i] >= least]
    return HeadKind(own, found, n_heads, float(areas(scores[None], chosen[None])[0, 0]) if own else math.nan)


def direct_effects(model: Model, case: Case, path: PathCriterion) -> Float[Tensor, "layer head"]:
    """What is lost when each head's direct effect on the receivers is replaced, as a share of the gap."""
    m = metric_of("logit-diff", case.pairs, model)
    letters = path.receivers.replace("l", "")
    readers = [n for n in graph_of(model).readers if n.site.kind in letters and (n.site.layer or 0) >= 1]
    receivers = [*readers, *([Node(LOGITS)] if "l" in path.receivers else [])]
    lost = path_patch_heads(model, case.pairs, m, receivers, donor=_mean(model, case) if path.mean else None)
    _, clean, corrupt = baselines(model, case.pairs, m)
    return lost / (float(clean.mean()) - float(corrupt.mean()))


def path_patch_heads(
    model: Model, pairs: Pairs, m: Metric, receivers: Sequence[Node], *, donor: Donor | None = None
) -> Float[Tensor, "layer head"]:
    """How much m falls when each head's direct effect on these receivers is the corrupt run's, or the donor's."""
    shape = model.shape
    senders = [(Place(Site("z", i), {"head": h}),) for i in range(shape.n_layers) for h in range(shape.n_heads)]
    donors = None if donor is None else [donor]
    effects = path_patch(model, pairs, [m], senders, receivers, mode="noise", donors=donors).effects()[..., 0]
    return -effects.mean(1).unflatten(0, (shape.n_layers, -1))


def _mean(model: Model, case: Case) -> Donor:
    sites = [Site("z", i) for i in range(model.shape.n_layers)]
    cache = model.run(case.pairs.clean, keep=sites, logits="last").cache
    return {site: cache[site].mean(0, keepdim=True).expand_as(cache[site]) for site in sites}


class HeadScore(NamedTuple):
    """One score of every head. `null`: that of a head with uniform attention, or of copying by chance."""

    values: Float[Tensor, "layer head"]
    null: float


def head_scores(model: Model, *, n: int, generator: Generator, held_out: bool = True) -> dict[str, HeadScore]:
    """Every score, by name ("induction", "ioi: END to IO", "copies names" ...), on n prompts of each behaviour.

    Two forward passes over n prompts a behaviour, and the cost of `copy_scores`.
    """
    tokens = repeated_spans(n, PROMPT_SPAN, repeatable(), generator, bos=IDS[BOS])
    values = methods.repeat_scores(model, _on_device(model, tokens), PROMPT_SPAN)
    null = evenly(torch.arange(tokens.shape[1] - PROMPT_SPAN, tokens.shape[1]))
    names = ("previous token", "duplicate token", "induction")
    found = {name: HeadScore(x.cpu(), null) for name, x in zip(names, values, strict=True)}
    for behaviour, attended in ATTENDED.items():
        pairs = prompt_pairs(behaviour, n, generator, held_out=held_out)
        found |= _attended(model, pairs, {f"{behaviour}: {name}": roles for name, roles in attended.items()})
        found |= _copied(model, pairs) if behaviour == "ioi" else {}
    return found


def resembling(scores: Mapping[str, HeadScore]) -> dict[str, list[Head]]:
    """The heads that meet every score of a kind, the clearest first."""
    found = {}
    for kind, names in KINDS.items():
        least = torch.stack([scores[name].values for name in names]).amin(0)
        layers, heads = (least >= CLEAR).nonzero(as_tuple=True)
        order = least[layers, heads].argsort(descending=True)
        found[kind] = list(zip(layers[order].tolist(), heads[order].tolist()))
    return found


def _attended(model: Model, pairs: PromptPairs, names: dict[str, tuple[str, str]]) -> dict[str, HeadScore]:
    roles = [(pairs.roles[query], pairs.roles[key]) for query, key in names.values()]
    values = attention(model, _on_device(model, pairs.clean), roles).cpu()
    return {name: HeadScore(x, evenly(query)) for name, x, (query, _) in zip(names, values, roles, strict=True)}


def _copied(model: Model, pairs: PromptPairs) -> dict[str, HeadScore]:
    tokens, at, chance = _on_device(model, pairs.clean), pairs.roles["IO"], COPIED / len(WORDS)
    return {
        "copies names": HeadScore(methods.copy_scores(model, tokens, at), chance),
        "suppresses names": HeadScore(methods.copy_scores(model, tokens, at, sign=-1), chance),
        "copying eigenvalues": HeadScore(methods.copying_eigenvalues(model), 0.0),
    }


def _on_device(model: Model, tokens: Int[Tensor, "n pos"]) -> Int[Tensor, "n pos"]:
    return tokens.to(model.weights.W_E.device)
