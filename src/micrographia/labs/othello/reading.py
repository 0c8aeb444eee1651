"""Probe every layer for the board, all frames and layers in one pass, beside what can be known without the model.

Probes are fitted on games that the model was not trained on, split by game from those that judge them. Baselines: the
same model untrained, the commonest class of each square at each ply, the board of another game (shuffled labels), and
the moves without a network, which are in `history`. Axes: site game pos row square.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.events import Watch, silent
from micrographia.core.intervals import Interval, clustered_ratio
from micrographia.core.model import Model
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.network import unseen_games
from micrographia.labs.othello.task import (
    FRAMES,
    OTHER_RULES,
    OTHERS,
    PARITIES,
    UNFLIPPED,
    labels_of,
    targets_of,
    tokens_of,
)
from micrographia.methods.probes.fit import IGNORED, Fitting, fit_probes
from micrographia.methods.probes.probe import LabelledRows, Probes, SiteProbes
from micrographia.methods.probes.score import ProbeCounts, score_probes

Read = Callable[[Int[Tensor, "game pos"]], Float[Tensor, "site game pos d"]]
SHUFFLED = "shuffled"
TARGETS = (*FRAMES, UNFLIPPED, *PARITIES, *OTHERS, SHUFFLED, OTHER_RULES)
TRAINED_ON, JUDGED_ON = 1, 2  # numbers of samples; 0 is that of the measures along training
RATE = 1e-2
"""Lee's, for linear probes; those with a hidden layer, for which Li took 1e-3 on many more games, have it too."""


class BoardProbes(NamedTuple):
    """Probes and how they did, by target. `counts` are by ply."""

    probes: Probes
    counts: Mapping[str, ProbeCounts]


def sites_of(model: Model) -> list[Site]:
    """The residual stream before the first layer, after its attention, and after each layer."""
    first = [Site("resid_pre", 0), Site("resid_mid", 0)]
    return [*first, *(Site("resid_post", layer) for layer in range(model.shape.n_layers))]


def place_of(layer: int) -> int:
    """Which of these sites comes after a layer."""
    return layer + 2


def reader(model: Model, place: int | None = None) -> Read:
    """Activations of every layer in one pass, or of one of `sites_of` alone."""
    sites = sites_of(model) if place is None else [sites_of(model)[place]]

    def read(tokens: Tensor) -> Tensor:
        cache = model.run(tokens, keep=sites, logits="last").cache
        return torch.stack([cache[site] for site in sites])

    return read


def probe_board(
    config: Config,
    read: Read,
    names: tuple[str, ...] = TARGETS,
    *,
    hidden: int | None = None,
    watch: Watch = silent,
    task: str = "probe",
) -> BoardProbes:
    """Fit and judge probes of these targets. Cost: a run of the model over every game once, and the products."""
    chosen, board = config.probing, config.board
    targets = targets_of(board, tuple(name for name in names if name != SHUFFLED))
    if SHUFFLED in names:
        targets[SHUFFLED] = targets_of(board, ("mover",))["mover"]
    steps = max(1, chosen.probe_games // chosen.probe_rows)
    fitting = Fitting(steps=steps, hidden=hidden, lr=RATE)
    rows = labelled(config, read, TRAINED_ON, chosen.probe_games, names)
    probes = fit_probes(rows, targets, fitting, generator=generator(config.seed), watch=watch, task=task)
    judged = labelled(config, read, JUDGED_ON, chosen.test_games, names)
    return BoardProbes(probes, score_probes(probes, judged, n_groups=config.n_ctx))


def labelled(config: Config, read: Read, sample: int, n: int, names: tuple[str, ...]) -> Iterator[LabelledRows]:
    """Activations and boards after every move that another follows, some games at a time."""
    size = config.probing.probe_rows
    for i, first in enumerate(range(0, n, size)):
        games = unseen_games(config, min(size, n - first), (sample << 20) + i)
        tokens = tokens_of(games)[:, :-1]
        there = tokens_of(games)[:, 1:] > 0
        labels = labels_of(games, tuple(name for name in names if name != SHUFFLED))
        if SHUFFLED in names:
            labels[SHUFFLED] = labels_of(games, ("mover",))["mover"].roll(1, 0)  # the board of another game
        ply = torch.arange(tokens.shape[1]).expand_as(tokens)
        x = read(tokens)
        yield LabelledRows(x[:, there], {name: each[there] for name, each in labels.items()}, ply[there])


def over_games(config: Config, read: Read, probe: SiteProbes) -> Interval:
    """Accuracy in the mover's frame at one site, with its interval over the games that judge it. One run over them."""
    n = config.probing.test_games
    rows = _numbered(labelled(config, read, JUDGED_ON, n, ("mover",)))
    cells = score_probes(Probes({"mover": probe}), rows, n_groups=n)["mover"].counts[0].double()
    right, of = cells.diagonal(dim1=-2, dim2=-1).sum((1, 2)), cells.sum((1, 2, 3))
    return clustered_ratio(right.numpy(), of.numpy(), np.arange(n), generator=generator(0))


def _numbered(batches: Iterable[LabelledRows]) -> Iterator[LabelledRows]:
    first = 0
    for rows in batches:
        assert rows.group is not None
        game = first + (rows.group == 0).cumsum(0) - 1  # every game has a first ply
        first = int(game[-1]) + 1
        yield rows._replace(group=game)


def where_parity_errs(config: Config, read: Read, probes: Probes) -> dict[str, Float[Tensor, "site"]]:
    """Accuracy of both frames' probes at the positions, after a pass, where the parity of the ply is not the mover."""

    def odd(a: Tensor, b: Tensor) -> Tensor:
        return (a != b).any(-1, keepdim=True).expand_as(a)

    return _where(config, read, probes, ("mover", "parity"), odd)


def where_rules_differ(config: Config, read: Read, probes: Probes) -> dict[str, Float[Tensor, "site"]]:
    """Accuracy of the probe of the board, and of the probe of the board that other rules make of the same moves, each
    by its own labels at the squares where these two boards differ. 0 where they nowhere do."""
    return _where(config, read, probes, ("mover", OTHER_RULES), torch.ne)


def _where(
    config: Config, read: Read, probes: Probes, names: tuple[str, str], odd: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Float[Tensor, "site"]]:
    def some(rows: LabelledRows) -> LabelledRows:
        at = odd(*(rows.labels[name] for name in names))
        return rows._replace(labels={name: each.where(at, IGNORED) for name, each in rows.labels.items()}, group=None)

    rows = labelled(config, read, JUDGED_ON, config.probing.test_games, names)
    counts = score_probes(Probes({name: probes[name] for name in names}), map(some, rows))
    return {name: each.accuracy() for name, each in counts.items()}
