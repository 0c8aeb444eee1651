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
from jaxtyping import Float
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
from micrographia.labs.ioi.grammar import BOS, IDS, PROMPT_SPAN, repeatable
from micrographia.labs.ioi.task import Case, prompt_pairs
from micrographia.methods.heads import attention, copy_scores, repeat_scores, repeated_spans
from micrographia.methods.paths import path_patch

Head = tuple[int, int]
ATTENDED: Mapping[str, tuple[str, ...]] = {
    "ioi": ("END to IO", "END to S1", "END to S2", "S2 to S1", "S2 to S1+1", "S1+1 to S1"),
    "induction": ("END to A1", "END to A1+1"),
    "pronoun": ("END to N",),
    "greater": ("END to YY", "END to XX"),
}
"""Where heads of the published circuits attend, from role to role. Wang et al. (2022), figure 2: name movers from END
to IO, S-inhibition heads from END to S2, duplicate-token heads from S2 to S1, induction heads from S2 to S1+1,
previous-token heads from S1+1 to S1. Hanna et al. (2023), section 3: from the last century to the year."""
CLEAR = 1 / 3
"""A head meets a criterion from this score, or this share of the largest effect. Our choice, made before measuring."""
NEGLIGIBLE = 0.01
"""A part whose removal changes less than this share of the gap does nothing. Our choice."""


class Kind(NamedTuple):
    """How a kind of head is looked for by either criterion: every one of `scores` is clear, or its direct effect is."""

    scores: tuple[str, ...]
    behaviour: str
    receivers: str
    """Letters of the readers in later layers; "l" is the logits."""
    mean: bool = False
    """Replaced by the mean over prompts, not by the other prompt."""
    sign: int = 1
    """-1: it works against the answer."""


KINDS: Mapping[str, Kind] = {
    "previous token": Kind(("previous token",), "induction", "k", mean=True),
    "duplicate token": Kind(("duplicate token",), "ioi", "qkv"),
    "induction": Kind(("induction",), "induction", "l"),
    "name mover": Kind(("ioi: END to IO", "copies names"), "ioi", "l"),
    "negative name mover": Kind(("ioi: END to IO", "suppresses names"), "ioi", "l", sign=-1),
    "S2 reader": Kind(("ioi: END to S2",), "ioi", "ql"),
}
"""An S-inhibition head reads S2 from END; that it inhibits is for patching to find."""


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
        chance, both = self._by_chance()
        return (
            float((chance * both / (len(self.by_attention) + len(self.by_path) - both)).sum())
            if self.either
            else math.nan
        )

    @property
    def both_by_chance(self) -> float:
        """How many both would find then, in expectation."""
        chance, both = self._by_chance()
        return float((chance * both).sum())

    def _by_chance(self) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
        """The probability of each number that both find: hypergeometric in a layer, layers independent."""
        chance = np.ones(1)
        for layer in sorted({layer for layer, _ in self.by_attention}):
            drawn, marked = (sum(head[0] == layer for head in heads) for heads in (self.by_attention, self.by_path))
            counts = np.arange(min(drawn, marked) + 1)
            chance = np.convolve(chance, hypergeom.pmf(counts, self.n_heads, marked, drawn))
        return chance, np.arange(len(chance))


def head_kinds(model: Model, cases: Mapping[str, Case], n: int, draw: Generator) -> dict[str, HeadKind]:
    """Every kind whose behaviour the network has learned."""
    attended = resembling(head_scores(model, n=n, generator=draw))
    learned = {name: kind for name, kind in KINDS.items() if kind.behaviour in cases}
    return {name: head_kind(model, cases[kind.behaviour], kind, attended[name]) for name, kind in learned.items()}


def head_kind(model: Model, case: Case, kind: Kind, attended: Sequence[Head]) -> HeadKind:
    """By path: heads whose effect is at least `CLEAR` of the largest, as by attention, and not `NEGLIGIBLE`."""
    effects = kind.sign * direct_effects(model, case, kind)
    n_layers, n_heads = effects.shape[0] - ("l" not in kind.receivers), effects.shape[1]
    own = [head for head in attended if head[0] < n_layers]  # without the logits the last layer has no receiver
    scores = effects[:n_layers].flatten().cpu().double().numpy()
    chosen = np.array([divmod(i, n_heads) in own for i in range(len(scores))])
    least = max(CLEAR * float(scores.max(initial=0.0)), NEGLIGIBLE)
    found = [divmod(int(i), n_heads) for i in np.argsort(-scores, kind="stable") if scores[i] >= least]
    return HeadKind(own, found, n_heads, float(areas(scores[None], chosen[None])[0, 0]) if own else math.nan)


def direct_effects(model: Model, case: Case, kind: Kind) -> Float[Tensor, "layer head"]:
    """What is lost when each head's direct effect on the receivers is replaced, as a share of the gap."""
    m = metric_of("logit-diff", case.pairs, model)
    letters = kind.receivers.replace("l", "")
    readers = [n for n in graph_of(model).readers if n.site.kind in letters and (n.site.layer or 0) >= 1]
    receivers = [*readers, *([Node(LOGITS)] if "l" in kind.receivers else [])]
    donor = None
    if kind.mean:
        cache = model.run(case.pairs.clean, keep="L*.z", logits="last").cache
        donor = {site: cache[site].mean(0, keepdim=True).expand_as(cache[site]) for site in cache}
    lost = path_patch_heads(model, case.pairs, m, receivers, donor=donor)
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


Scores = Mapping[str, Float[Tensor, "layer head"]]


def head_scores(model: Model, *, n: int, generator: Generator) -> Scores:
    """Every score, by name ("induction", "ioi: END to IO", "copies names"), on n held-out prompts of each behaviour.

    Two forward passes over n prompts a behaviour, and the cost of `copy_scores`.
    """
    device = model.weights.W_E.device
    spans = repeated_spans(n, PROMPT_SPAN, repeatable(), generator, bos=IDS[BOS]).to(device)
    repeated = repeat_scores(model, spans, PROMPT_SPAN)
    found = dict(zip(("previous token", "duplicate token", "induction"), repeated, strict=True))
    for behaviour, names in ATTENDED.items():
        pairs = prompt_pairs(behaviour, n, generator)
        tokens, roles = pairs.clean.to(device), [name.split(" to ") for name in names]
        values = attention(model, tokens, [(pairs.roles[query], pairs.roles[key]) for query, key in roles])
        found |= {f"{behaviour}: {name}": x for name, x in zip(names, values, strict=True)}
        if behaviour == "ioi":
            for name, sign in {"copies names": 1, "suppresses names": -1}.items():
                found[name] = copy_scores(model, tokens, pairs.roles["IO"], sign=sign)
    return {name: values.cpu() for name, values in found.items()}


def resembling(scores: Scores) -> dict[str, list[Head]]:
    """The heads that meet every score of a kind, the clearest first."""
    found = {}
    for name, kind in KINDS.items():
        least = torch.stack([scores[each] for each in kind.scores]).amin(0)
        layers, heads = (least >= CLEAR).nonzero(as_tuple=True)
        order = least[layers, heads].argsort(descending=True)
        found[name] = list(zip(layers[order].tolist(), heads[order].tolist()))
    return found
