"""The dictionaries of a Run, trained in three stages: what a later one needs, the first dictionary of the earlier gave.

Each stage has checkpoints in a folder of its own and goes on from them. On the way the dictionaries are looked at, on a
part of the held-out rows; what was seen is written down at once, so that a stop loses none of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Watch, renamed
from micrographia.core.model import Model
from micrographia.core.small.split_text import SplitText
from micrographia.core.store import json_bytes, read_json, write_bytes
from micrographia.core.stream.batches import ActivationStream, Batches
from micrographia.labs.dictionary.config import Config
from micrographia.labs.dictionary.recipes import (
    PLACE,
    PROJECTED,
    SITE,
    at_neurons,
    blind_batches,
    blind_to,
    first_recipes,
    later_recipes,
    projected_recipe,
)
from micrographia.methods.dictionaries.evaluation.reading import counted_by
from micrographia.methods.dictionaries.geometry.analysis import look
from micrographia.methods.dictionaries.geometry.firing_together import Fired, count_firings
from micrographia.methods.dictionaries.geometry.neuron_sparsity import neuron_shares, sparsity_classes
from micrographia.methods.dictionaries.geometry.rare import rare_cluster
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.train import Course, train_dictionaries

COURSE_TOKENS = 2**17
"""Held-out tokens that the course of training is followed on: one firing is 8e-6."""
FIDELITY_ROWS = 64
CHECKPOINT_EVERY = 250
SAVED = "saelens"
"""The folder of the finished dictionaries, each in SAELens' format."""


class Moment(NamedTuple):
    """A dictionary at one step of its training."""

    step: int
    name: str
    rare: float
    aligned: float
    """Of the rare latents' encoders with their mean."""
    dense: float
    l0: float
    fvu: float


def moments(step: int, dictionaries: Mapping[str, Dictionary], model: Model, rows: Tensor) -> list[Moment]:
    """The course of the findings: on fewer rows than at the end, and fidelity on fewer still."""
    each = list(dictionaries.values())
    firing = count_firings(each, model, PLACE, rows, counted_by(model))
    return [_moment(step, name, one, fired, model, rows) for (name, one), fired in zip(dictionaries.items(), firing)]


def _moment(step: int, name: str, dictionary: Dictionary, firing: Fired, model: Model, rows: Tensor) -> Moment:
    metrics = look(dictionary, model, PLACE, rows[:FIDELITY_ROWS])
    cluster = rare_cluster(dictionary, firing.frequencies.to(dictionary.weights.W_enc.device))
    dense = sparsity_classes(neuron_shares(dictionary.weights.W_dec)).dense
    return Moment(step, name, cluster.share, cluster.aligned(), dense, metrics.l0, metrics.fvu)


class Trained(NamedTuple):
    """The dictionaries by name, and what was seen of them on the way."""

    dictionaries: dict[str, Dictionary]
    course: list[Moment]


def train_all(config: Config, model: Model, text: SplitText, folder: Path, watch: Watch) -> Trained:
    """Every dictionary of the config, trained to the end, or gone on with. Raises Interrupted and NonFiniteLoss."""
    d = config.dictionaries
    some = text.held_out[: max(1, COURSE_TOKENS // config.n_ctx)]
    batches = ActivationStream(
        model, SITE, text.train, batch=d.activations, buffer_bytes=d.buffer_mb * 2**20, seed=config.seed,
        steps=d.dictionary_steps, watch=watch,
    )  # fmt: skip
    width = d.expansion * model.shape.d_mlp
    stage = _Stage(config, model, some, folder, watch)
    found = stage.train("first", first_recipes(config, width), batches)
    one = next(iter(found.values()))
    (firing,) = count_firings([one], model, PLACE, some, counted_by(model))
    l0 = float(firing.frequencies.sum())
    found |= stage.train("jumprelu", later_recipes(config, width, l0), batches)
    direction = rare_cluster(one, firing.frequencies.to(one.weights.W_enc.device)).direction
    if direction.isfinite().all():  # else none is rare, and there is nothing to take out
        last = {PROJECTED: projected_recipe(config, width)}
        found |= stage.train(PROJECTED, last, blind_batches(batches, direction), direction)
    for name, one in found.items():
        if not (place := folder / SAVED / name.replace(" ", "-")).exists():
            one.save(place)
    return Trained(found, stage.course)


@dataclass
class _Stage:
    """Trains some dictionaries at once, and keeps what was seen of all."""

    config: Config
    model: Model
    rows: Tensor
    folder: Path
    watch: Watch

    def __post_init__(self) -> None:
        self.course: list[Moment] = []

    def train(
        self, name: str, recipes: Mapping[str, Recipe], batches: Batches, blind: Tensor | None = None
    ) -> dict[str, Dictionary]:
        """These recipes by name; `blind`: the direction that their encoders do not see."""
        record = self.folder / f"{name}.json"
        stored = read_json(record)["moments"] if record.is_file() else []
        seen = {(m.step, m.name): m for m in map(_read, stored)}

        def whole(one: Dictionary) -> Dictionary:
            return at_neurons(one if blind is None else blind_to(one, blind))

        def see(step: int, made: Sequence[Dictionary]) -> None:
            each = moments(step, dict(zip(recipes, map(whole, made))), self.model, self.rows)
            seen.update({(m.step, m.name): m for m in each})
            write_bytes(record, json_bytes({"moments": [m._asdict() for m in seen.values()]}))

        d = self.config.dictionaries
        steps = {round(d.dictionary_steps * (i + 1) / d.moments) for i in range(d.moments)}
        like = torch.zeros((), device=self.model.weights.W_E.device)
        course = Course(looks=steps, look=see, checkpoint_every=CHECKPOINT_EVERY, like=like)
        watch, d_in = renamed(self.watch, f"train {', '.join(recipes)}"), self.model.shape.d_mlp
        made = train_dictionaries(
            batches, list(recipes.values()), d_in=d_in, folder=self.folder / name, watch=watch, course=course
        )
        if (d.dictionary_steps, next(iter(recipes))) not in seen:  # it was stopped between the last step and the look
            see(d.dictionary_steps, made)
        self.course += [seen[key] for key in sorted(seen)]
        return dict(zip(recipes, map(whole, made)))


def _read(stored: Mapping[str, Any]) -> Moment:
    known: dict[str, Any] = {name: math.nan if x is None else x for name, x in stored.items()}
    return Moment(**known)
