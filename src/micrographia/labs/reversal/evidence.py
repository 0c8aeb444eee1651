"""Everything that is found out about the networks of a Run, before claims are judged.

Programs train one after the other, each in `RUN/networks/<program>`; what they answer, what their weights hold and what
edits do to them is computed anew from their final weights.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.events import Progress, Watch
from micrographia.core.runtime import batch_generator
from micrographia.core.small.transformer import Transformer
from micrographia.labs.reversal.arms import ARMS, BILINEAR, NONE_SHARED, Learner, programs
from micrographia.labs.reversal.behaviour import Score, score
from micrographia.labs.reversal.config import Config, preset_of
from micrographia.labs.reversal.inside import (
    MAPS,
    SAMPLE,
    Rewritten,
    blocks,
    embedding_and_unembedding,
    index_of,
    neuron_overlap,
    recogniser_and_writer,
    rewrite,
)
from micrographia.labs.reversal.task import DirectedFacts
from micrographia.labs.reversal.train import TrainedProgram, trained
from micrographia.methods.asymmetry import Asymmetry, Matched

NETWORKS = "networks"
OV_ARMS = ("attention only", "attention only, both directions", "attention only, identity bridge")
OV_TIED = "attention only, tied"
MLP_ARMS = ("plain", "both directions", "entity-reversed copies", "identity bridge", NONE_SHARED, "tied", "two layers")
EDITED = "plain"
SHOWN_PAIRS = 24
ABLATED = 150
"""Facts on which every neuron is ablated."""


class Cost(NamedTuple):
    """Of one network of an arm."""

    rows: int
    """Sequences that are taught, each of the forms that differ."""
    flops: float
    """Of all its training, by the sizes of its products."""
    seconds: float
    """A network's share of its program's time."""


@dataclass(slots=True)
class ReversalEvidence:
    """By arm; lists are in the order of the seeds."""

    scores: dict[str, dict[str, list[Score]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    """Arm -> kind of question -> scores."""
    costs: dict[str, Cost] = field(default_factory=dict)
    curves: dict[str, list[Mapping[str, Sequence[float]]]] = field(default_factory=lambda: defaultdict(list))
    """Arm -> columns of its training: step, loss, forward, reverse, forward nats, reverse nats."""
    indices: dict[tuple[str, str], list[Asymmetry]] = field(default_factory=lambda: defaultdict(list))
    """(arm, map)."""
    alike: dict[tuple[str, str], list[Matched]] = field(default_factory=lambda: defaultdict(list))
    """(arm, what)."""
    edits: list[Rewritten] = field(default_factory=list)
    maps: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Arm -> forward and reverse map of some pairs of the first seed."""


WHAT = {
    "neurons": "recogniser and writer, in the neurons",
    "embeddings": "embedding and unembedding",
    "overlap": "neurons of A -> B and of B -> A, by ablation",
    "same": "neurons of two questions with the same answer, by ablation",
}


def evidence(config: Config, folder: Path, *, lab: str, watch: Watch) -> ReversalEvidence:
    found = ReversalEvidence()
    for name in [*programs(ARMS), *programs(BILINEAR)]:
        out = folder / NETWORKS / name.replace(" ", "-")
        done = trained(config, name, out, lab=lab, preset=preset_of(config), watch=watch)
        n = len(done.program.learners)
        for k, one in enumerate(done.program.learners):
            watch(Progress(f"measure {name}", k, n, "network"))
            _add(found, config, done, k, one)
        watch(Progress(f"measure {name}", n, n, "network"))
    return found


def _add(found: ReversalEvidence, config: Config, done: TrainedProgram, k: int, one: Learner) -> None:
    arm, draw = one.arm.name, batch_generator(one.seed, SAMPLE)
    asker = done.program.asker(done.weights, k)
    for kind, asked in one.asked.items():
        found.scores[arm][kind].append(score(asker, asked, one.spelt, draw))
    found.costs[arm] = Cost(len(one.rows.tokens), float(done.program.flops) * done.program.steps, done.seconds)
    own = f"{one.label}: "
    columns = {name.removeprefix(own): column for name, column in done.curve.items() if name.startswith(own)}
    found.curves[arm].append({"step": done.curve["step"], **columns})
    if done.program.model is not None and one.seed < config.seed + config.seeds and one.spelt.width == 1:
        _look_inside(found, config, done.program.model(done.weights, k), one)


def _look_inside(found: ReversalEvidence, config: Config, model: Transformer, one: Learner) -> None:
    arm, draws, draw = one.arm.name, config.draws, batch_generator(one.seed, SAMPLE)
    if arm in (*OV_ARMS, OV_TIED):
        found.indices[arm, "W_OV"].append(index_of("W_OV", model, one, draw, draws))
        found.alike[arm, "embeddings"].append(embedding_and_unembedding(model, one, draw, draws))
        if one.seed == config.seed:
            found.maps[arm] = _shown(model, one)
    if arm in MLP_ARMS:
        for name in ("logits", "gradient"):
            found.indices[arm, name].append(index_of(name, model, one, draw, draws))
        found.alike[arm, "neurons"].append(recogniser_and_writer(model, one, draw, draws))
        found.alike[arm, "embeddings"].append(embedding_and_unembedding(model, one, draw, draws))
        ahead = one.world.taught.some(torch.arange(min(ABLATED, len(one.world.taught.source))))
        found.alike[arm, "overlap"].append(neuron_overlap(model, one, ahead, ahead.inverse, draw, draws))
        if arm == "entity-reversed copies":
            turned = DirectedFacts(ahead.target, ahead.relation, ahead.source)
            found.alike[arm, "same"].append(neuron_overlap(model, one, turned, ahead.inverse, draw, draws))
    if arm == EDITED:
        found.edits.append(rewrite(config, model, one))


def _shown(model: Transformer, one: Learner) -> tuple[Tensor, Tensor]:
    facts = blocks(one.world.taught)[0]
    facts = facts.some(torch.arange(min(SHOWN_PAIRS, len(facts.source))))
    ahead, back = (MAPS["W_OV"](model, each, one) for each in (facts, facts.inverse))
    return ahead - ahead.mean(0), back - back.mean(0)
