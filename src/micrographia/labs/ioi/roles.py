"""Heads found twice: by what they look like, and, apart from it, by what is lost when their words are changed.

By behaviour: `heads.resembling`, from attention on repeated spans and prompts, and from what a head copies. By path
patching: the heads whose words to certain receivers carry most of the logit difference, as Wang et al. (2022, section
3) trace them: movers speak to the logits, S2 readers to queries and logits, duplicate-token heads to any later head,
previous-token heads to later keys. For these last the other word of the pair changes nothing, so their words are
replaced by the mean over prompts. The second way sees no attention and the first no effect; each has a threshold of its
own, so that a head may be found by either alone. By lot: as many heads as look the part, drawn within their layers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom
from torch import Generator, Tensor

from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, baselines, metric_of
from micrographia.core.sites import Site
from micrographia.core.sweep import Donor
from micrographia.core.tokens import ids_of
from micrographia.labs.ioi import measure
from micrographia.labs.ioi.cases import Case
from micrographia.labs.ioi.circuit import IDLE
from micrographia.labs.ioi.heads import CLEAR, head_scores, resembling
from micrographia.labs.ioi.templates import Behaviour
from micrographia.methods.ranking import areas

Head = tuple[int, int]


class Traced(NamedTuple):
    """How a kind of head is looked for by patching. `sign` -1: it works against the answer."""

    behaviour: Behaviour
    receivers: str
    """Letters of the readers in later layers; "l" is the logits."""
    mean: bool = False
    """Replaced by the mean over prompts, not by the other prompt."""
    sign: int = 1


TRACED: Mapping[str, Traced] = {
    "previous token": Traced("induction", "k", mean=True),
    "duplicate token": Traced("ioi", "qkv"),
    "induction": Traced("induction", "l"),
    "name mover": Traced("ioi", "l"),
    "negative name mover": Traced("ioi", "l", sign=-1),
    "S2 reader": Traced("ioi", "ql"),
}


class Role(NamedTuple):
    """One kind of head: those that look the part, and those that patching finds, in layers of `n_heads`."""

    looks: list[Head]
    found: list[Head]
    n_heads: int
    area: float
    """Area under the ROC curve of patching's effect for the heads that look the part; NaN where none or all do."""

    @property
    def both(self) -> int:
        return len(set(self.looks) & set(self.found))

    @property
    def either(self) -> int:
        return len(set(self.looks) | set(self.found))

    @property
    def agreement(self) -> float:
        """Of the heads found either way, the share found both ways (Jaccard); NaN where neither finds any."""
        return self.both / self.either if self.either else math.nan

    @property
    def agreement_by_lot(self) -> float:
        """The mean of the same when the heads that look the part are drawn anew, as many in each layer."""
        if not self.either:
            return math.nan
        chance = self._by_lot()
        both = np.arange(len(chance))
        return float((chance * both / (len(self.looks) + len(self.found) - both)).sum())

    @property
    def both_by_lot(self) -> float:
        """How many would be found both ways then, on average."""
        chance = self._by_lot()
        return float((chance * np.arange(len(chance))).sum())

    def _by_lot(self) -> NDArray[np.float64]:
        """How likely each number of heads found both ways is then: hypergeometric in a layer, layers apart."""
        chance = np.ones(1)
        for layer in sorted({layer for layer, _ in self.looks}):
            own, told = (sum(head[0] == layer for head in heads) for heads in (self.looks, self.found))
            counts = np.arange(min(own, told) + 1)
            chance = np.convolve(chance, hypergeom.pmf(counts, self.n_heads, told, own))
        return chance


def roles(model: Model, cases: Mapping[Behaviour, Case], n: int, draw: Generator) -> dict[str, Role]:
    """Every kind whose behaviour the network has learned."""
    looks: Mapping[str, list[Head]] = resembling(head_scores(model, n=n, generator=draw))
    return {
        kind: role(model, cases[how.behaviour], how, looks[kind])
        for kind, how in TRACED.items()
        if how.behaviour in cases
    }


def role(model: Model, case: Case, how: Traced, looks: Sequence[Head]) -> Role:
    """By patching: heads whose effect is at least `CLEAR` of the largest, as with looks, and above `IDLE`."""
    effects = how.sign * traced(model, case, how)
    layers, n_heads = effects.shape[0] - ("l" not in how.receivers), effects.shape[1]
    own = [head for head in looks if head[0] < layers]  # without the logits the last layer has nobody to speak to
    scores = effects[:layers].flatten().cpu().double().numpy()
    chosen = np.array([divmod(i, n_heads) in own for i in range(len(scores))])
    least = max(CLEAR * float(scores.max(initial=0.0)), IDLE)
    found = [divmod(int(i), n_heads) for i in np.argsort(-scores, kind="stable") if scores[i] >= least]
    area = float(areas(scores[None], chosen[None])[0, 0]) if own else math.nan
    return Role(own, found, n_heads, area)


def traced(model: Model, case: Case, how: Traced) -> Tensor:
    """What is lost when each head's words to these receivers are changed, as a share of the gap: (layer, head)."""
    m = metric_of("logit-diff", case.pairs, model)
    letters = how.receivers.replace("l", "")
    receivers = measure.readers(model, letters, after=1) if letters else []
    receivers = [*receivers, *(measure.TO_LOGITS if "l" in how.receivers else [])]
    lost = measure.spoken(model, case.pairs, m, receivers, donor=_mean(model, case) if how.mean else None)
    return lost / _gap(model, case.pairs, m)


def _gap(model: Model, pairs: Pairs, m: Metric) -> float:
    """How far clean and corrupt prompts are apart in the mean. Two forward passes."""
    _, clean, corrupt = baselines(model, pairs, m)
    return float(clean.mean()) - float(corrupt.mean())


def _mean(model: Model, case: Case) -> Donor:
    sites = [Site("z", i) for i in range(model.shape.n_layers)]
    cache = model.run(case.pairs.clean, keep=sites, logits="last").cache
    n = len(ids_of(case.pairs.clean))
    return {site: cache[site].mean(0, keepdim=True).expand(n, *cache[site].shape[1:]) for site in sites}
