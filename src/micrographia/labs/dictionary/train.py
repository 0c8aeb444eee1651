"""The dictionaries of a Run, trained: first those that need nothing, then those that need what the first one gave."""

from pathlib import Path

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Watch, renamed
from micrographia.core.model import Model
from micrographia.core.stream.batches import ActivationStream
from micrographia.labs.dictionary.analysis import Moment, look, moment
from micrographia.labs.dictionary.config import Config
from micrographia.labs.dictionary.recipes import (
    PROJECTED,
    SITE,
    blind_batches,
    blind_to,
    first_recipes,
    later_recipes,
    projected_recipe,
)
from micrographia.labs.dictionary.text import Text
from micrographia.methods.dictionaries.evaluation.reading import counted_by
from micrographia.methods.dictionaries.geometry.rare import rare_cluster
from micrographia.methods.dictionaries.training.train import train_dictionaries

COURSE_ROWS = 1_024
"""Held-out rows that the course of training is followed on."""


def train_all(
    config: Config, model: Model, text: Text, folder: Path, watch: Watch
) -> tuple[dict[str, Dictionary], list[Moment]]:
    d_in = model.shape.d_mlp
    some = text.held_out[:COURSE_ROWS]
    batches = ActivationStream(
        model, SITE, text.train, batch=config.dictionaries.activations, buffer_bytes=config.dictionaries.buffer_mb * 2**20,
        seed=config.seed, steps=config.dictionaries.dictionary_steps, watch=watch,
    )  # fmt: skip
    first = first_recipes(config)
    made = train_dictionaries(batches, list(first.values()), d_in=d_in, watch=renamed(watch, "train dictionaries"))
    found = dict(zip(first, made))
    one = next(iter(found.values()))
    metrics = look(one, model, some, counted_by(model))
    later = later_recipes(config, metrics.l0)
    made = train_dictionaries(batches, list(later.values()), d_in=d_in, watch=renamed(watch, "train JumpReLU")) if later else []
    found |= dict(zip(later, made))
    found |= dict(zip(later, made))
    direction = rare_cluster(one, metrics.firing.frequencies).direction
    if direction.isfinite().all():
        without = blind_batches(batches, direction)
        (made,) = train_dictionaries(
            without, [projected_recipe(config)], d_in=d_in, watch=renamed(watch, "train projected")
        )
        found[PROJECTED] = blind_to(made, direction)
    return found, [moment(config.dictionaries.dictionary_steps, n, d, model, some) for n, d in found.items()]
