"""Heads found twice: by what they look like, and, apart from it, by what is lost when their words are changed.

By behaviour: `heads.resembling`, from attention on repeated spans and prompts, and from what a head copies. By path
patching: the heads whose words to certain receivers carry most of the logit difference, as Wang et al. (2022, section
3) trace them: movers speak to the logits, S2 readers to queries and logits, duplicate-token heads to any later head,
previous-token heads to later keys. For these last the other word of the pair changes nothing, so their words are
replaced by the mean over prompts. The second way sees no attention and the first no effect.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Generator, Tensor

from micrographia.core.model import Model
from micrographia.core.pairs import metric_of
from micrographia.core.sites import Site
from micrographia.core.sweep import Donor
from micrographia.core.tokens import ids_of
from micrographia.labs.ioi import measure
from micrographia.labs.ioi.cases import Case
from micrographia.labs.ioi.heads import head_scores, resembling
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
    """One kind of head. `found`: as many heads by patching as there are by behaviour, of `candidates` that could be."""

    looks: list[Head]
    found: list[Head]
    candidates: int
    area: float
    """Area under the ROC curve of patching's effect for the heads that look the part; NaN where none or all do."""

    @property
    def both(self) -> int:
        return len(set(self.looks) & set(self.found))


def roles(model: Model, cases: Mapping[Behaviour, Case], n: int, draw: Generator) -> dict[str, Role]:
    """Every kind whose behaviour the network has learned."""
    looks: Mapping[str, list[Head]] = resembling(head_scores(model, n=n, generator=draw))
    return {
        kind: role(model, cases[how.behaviour], how, looks[kind])
        for kind, how in TRACED.items()
        if how.behaviour in cases
    }


def role(model: Model, case: Case, how: Traced, looks: Sequence[Head]) -> Role:
    effects = how.sign * traced(model, case, how)
    layers = effects.shape[0] - ("l" not in how.receivers)  # without the logits the last layer has nobody to speak to
    own = [head for head in looks if head[0] < layers]
    scores = effects[:layers].flatten().cpu().double().numpy()
    chosen = np.array([divmod(i, effects.shape[1]) in own for i in range(len(scores))])
    order = np.argsort(-scores, kind="stable")[: len(own)]
    found = [divmod(int(i), effects.shape[1]) for i in order]
    area = float(areas(scores[None], chosen[None])[0, 0]) if own else float("nan")
    return Role(own, found, len(scores), area)


def traced(model: Model, case: Case, how: Traced) -> Tensor:
    """What is lost when each head's words to these receivers are changed."""
    m = metric_of("logit-diff", case.pairs, model)
    letters = how.receivers.replace("l", "")
    receivers = measure.readers(model, letters, after=1) if letters else []
    receivers = [*receivers, *(measure.TO_LOGITS if "l" in how.receivers else [])]
    return measure.spoken(model, case.pairs, m, receivers, donor=_mean(model, case) if how.mean else None)


def _mean(model: Model, case: Case) -> Donor:
    sites = [Site("z", i) for i in range(model.shape.n_layers)]
    cache = model.run(case.pairs.clean, keep=sites, logits="last").cache
    n = len(ids_of(case.pairs.clean))
    return {site: cache[site].mean(0, keepdim=True).expand(n, *cache[site].shape[1:]) for site in sites}
