"""When the board appears: linear probes of every layer at the snapshots along training, beside the legal moves.

Probes of a tenth of the games, so that their levels are lower than those of the finished model's; they are alike at
every snapshot, and so is that of the model before its first step. Axes: snapshot site.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from micrographia.core import figures
from micrographia.core.config import with_fields
from micrographia.core.events import Progress, Watch
from micrographia.core.figures import Figure
from micrographia.core.model import Model
from micrographia.core.small.trained import load_trained
from micrographia.core.store import snapshots
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.network import LOOKED_AT, LegalScores, legal_scores, unseen_games
from micrographia.labs.othello.reading import probe_board, reader, sites_of
from micrographia.labs.othello.task import predicted

FRAMES = ("mover", "absolute")


class Grown(NamedTuple):
    """A snapshot: how well it plays, and how well each site is read."""

    step: int
    scores: LegalScores
    accuracy: dict[str, list[float]]
    """Frame -> accuracy at every site."""


def growth(config: Config, model: Path, untrained: Model, watch: Watch) -> list[Grown]:
    """Of every snapshot of the model's Run, and of the model before training. Cost: a tenth of `probe_board` each."""
    small = with_fields(config, probe_games=max(config.probing.probe_rows, config.probing.probe_games // 10))
    judged = predicted(unseen_games(config, LOOKED_AT))
    steps = sorted(snapshots(model))
    found = []
    for i, step in enumerate((0, *steps)):
        watch(Progress("probes along training", i, len(steps) + 1, "snapshot"))
        here = load_trained(model, step=step) if step else untrained
        read = probe_board(small, reader(here), FRAMES)
        accuracy = {frame: read.counts[frame].accuracy().tolist() for frame in FRAMES}
        found.append(Grown(step, legal_scores(here.arch, dict(here.state), judged), accuracy))  # pyright: ignore[reportAttributeAccessIssue] (a Transformer)
    watch(Progress("probes along training", len(steps) + 1, len(steps) + 1, "snapshot"))
    return found


def growth_figures(model: Model, found: list[Grown], group: str) -> list[Figure]:
    """The board beside the rules, by step; and every site's."""
    steps = np.array([max(each.step, 1) for each in found])
    lines = {
        "mover, best layer": [max(each.accuracy["mover"]) for each in found],
        "absolute, best layer": [max(each.accuracy["absolute"]) for each in found],
        "first choice legal": [each.scores.legal_rate for each in found],
        "all legal above all others": [each.scores.full_sets for each in found],
    }
    by_site = np.array([each.accuracy["mover"] for each in found]).T
    return [
        figures.lines(
            "growth", "When the board appears", steps, np.array(list(lines.values())), names=list(lines), log_x=True,
            x_label="step (1: before training)", y_label="share right", group=group, highlight=[0],
            claims=("mover-is-linear", "legal-moves"),
            caption="Linear probes of a tenth of the games at each snapshot.",
        ),
        figures.lines(
            "growth-by-site", "By layer", steps, by_site, names=[str(site) for site in sites_of(model)], log_x=True,
            x_label="step (1: before training)", y_label="squares read right, mover's frame", group=group,
            claims=("mover-is-linear",), essential=False,
        ),
    ]  # fmt: skip
