"""Dictionaries on the residual stream, judged by the board: which latents are a square's state or a legal move.

Coverage and reconstruction of Karvonen et al. 2024 (arXiv 2408.00113), section 3: properties are (square, state) for
the player who moves next and (square, legal); published for 8x8 with 4,096 latents: .52 and .95, of an untrained model
.27 and .08, of a linear probe .99 and .99. The probe is the ceiling here, the untrained model the floor. Axes: row
property.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Watch, renamed
from micrographia.core.model import Model
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.stream.batches import ActivationStream
from micrographia.core.stream.rows import as_rows
from micrographia.labs.othello.config import BATCH, Config
from micrographia.labs.othello.network import unseen_games
from micrographia.labs.othello.reading import sites_of
from micrographia.labs.othello.task import EMPTY, PAD, labels_of, tokens_of
from micrographia.methods.dictionaries.evaluation.coverage import Coverage, Encode, coverage, random_encoder
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.train import train_dictionaries
from micrographia.methods.probes.probe import SiteProbes

TRAINED_ON, MEASURED_ON, HELD_OUT = 30, 31, 32  # numbers of samples
LEAST = 0.002
"""A property that is true less often, or false, is left out: on a few thousand rows its F1 means nothing."""
BUFFER = 2**28
PROBE, DICTIONARY, UNTRAINED = "linear probe", "dictionary", "untrained"


class BoardLatents(NamedTuple):
    """How much of the board single latents have, by what was read."""

    site: Site
    found: dict[str, Coverage]

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"of": name, "coverage": each.coverage, "reconstruction": each.mean_reconstruction, **_nulls(each)}
            for name, each in self.found.items()
        ]

    @property
    def order(self) -> list[str]:
        """Most coverage first."""
        return sorted(self.found, key=lambda name: -self.found[name].coverage)


def _nulls(each: Coverage) -> dict[str, float]:
    return {f"coverage, {name}": value for name, (value, _) in each.nulls.items()}


def board_latents(
    config: Config, model: Model, untrained: Model, probe: SiteProbes, place: int, folder: Path, watch: Watch
) -> BoardLatents:
    """Train a TopK dictionary at one site of the model, and of the model without its training, and judge both.

    `place`: the site of `reading.sites_of` that the probe reads. The dictionaries are kept in `folder`, with
    checkpoints.
    """
    site, chosen = sites_of(model)[place], config.latents
    made = {
        DICTIONARY: _trained(config, model, site, folder / "model", renamed(watch, "train the dictionary")),
        UNTRAINED: _trained(config, untrained, site, folder / "untrained", renamed(watch, "the same untrained")),
    }
    models = {DICTIONARY: model, UNTRAINED: untrained}
    found: dict[str, Coverage] = {}
    drawn_by, names = generator(config.seed), _names(config)
    own = [_labelled(config, model, site, sample, chosen.measured_games) for sample in (MEASURED_ON, HELD_OUT)]
    usable = _usable(own[0][1])
    own = [[(x, y[:, usable])] for x, y in own]
    shown = [name for name, use in zip(names, usable.tolist(), strict=True) if use]
    found[PROBE] = coverage(_probe_encoder(probe.at(place)), *own, shown)
    for name, dictionary in made.items():
        data = own
        if name == UNTRAINED:
            samples = (MEASURED_ON, HELD_OUT)
            data = [_labelled(config, models[name], site, sample, chosen.measured_games) for sample in samples]
            data = [[(x, y[:, usable])] for x, y in data]
        random = random_encoder(model.shape.d_model, chosen.n_latents, drawn_by)
        found[name] = coverage(dictionary.encode, *data, shown, generator=drawn_by, random=random)
    return BoardLatents(site, found)


def _trained(config: Config, model: Model, site: Site, folder: Path, watch: Watch) -> Dictionary:
    chosen = config.latents
    rows = as_rows(tokens_of(unseen_games(config, chosen.dictionary_games, TRAINED_ON))[:, :-1], special=[PAD])
    stream = ActivationStream(
        model, site, rows, batch=BATCH, buffer_bytes=BUFFER, seed=config.seed, sink=False,
        steps=chosen.dictionary_steps, watch=watch,
    )  # fmt: skip
    recipe = Recipe(kind="topk", n_latents=chosen.n_latents, k=chosen.k, steps=chosen.dictionary_steps, lr=1e-3)
    return train_dictionaries(stream, [recipe], d_in=model.shape.d_model, seed=config.seed, folder=folder, watch=watch)[
        0
    ]


def _labelled(
    config: Config, model: Model, site: Site, sample: int, n: int
) -> tuple[Float[Tensor, "row d"], Bool[Tensor, "row property"]]:
    """Activations, and which properties are true of each: (square, state), then (square, legal)."""
    games = unseen_games(config, n, sample)
    tokens = tokens_of(games)
    there = tokens[:, 1:] > PAD
    x = model.run(tokens[:, :-1], keep=site, logits="last").cache[site][there]
    labels = labels_of(games, ("mover", "legal"))
    state, legal = (labels[name][there] for name in ("mover", "legal"))
    return x, torch.cat([torch.stack([state == c for c in range(3)], -1).flatten(1), legal == 1], -1)


def _names(config: Config) -> list[str]:
    board, states = config.board, ("empty", "mine", "theirs")
    squares = [board.name(square) for square in range(board.n_squares)]
    return [*(f"{name} {state}" for name in squares for state in states), *(f"{name} legal" for name in squares)]


def _usable(labels: Bool[Tensor, "row property"]) -> Bool[Tensor, "property"]:
    share = labels.double().mean(0)
    return (share > LEAST) & (share < 1 - LEAST)


def _probe_encoder(probe: SiteProbes) -> Encode:
    """The probabilities of the mover's probe as latents, and of each square's being empty as one for its legality."""

    def encode(x: Tensor) -> Tensor:
        said = probe.logits(x[None])[0].softmax(-1)
        return torch.cat([said.flatten(1), said[..., EMPTY]], -1)

    return encode
