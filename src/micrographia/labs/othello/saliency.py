"""Latent saliency: which squares of the board inside the model a prediction depends on.

Every disc is flipped in the activations in turn, and the fall of the probability of one move is that square's saliency
(Li et al. 2023, arXiv 2210.13382, section 5 and algorithm 1). By the rules a square matters to a move if flipping its
disc makes the move illegal; a model that computes legality from its board has its saliency there. Null: the same with
another square's direction. Axes: case (a position and a square) vocab.
"""

import itertools
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.core.model import Model
from micrographia.core.runtime import batch_generator
from micrographia.labs.othello.cases import SHORTEST, Cases, every_disc
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.engine.games import random_games
from micrographia.labs.othello.flips import WAYS, edits_of, logits_at_last
from micrographia.labs.othello.intervene import Chosen
from micrographia.methods.probes.probe import SiteProbes

SALIENT_ON, POSITIONS = 80, 100
SHOWN = 4


class Saliency(NamedTuple):
    """Of some positions: the model's first choice, what each disc does to it, and whether it matters by the rules."""

    cases: Cases
    move: Float[Tensor, "case"]
    """The token whose probability falls: the first choice of the position."""
    fall: Float[Tensor, "case"]
    matters: Bool[Tensor, "case"]

    def area(self) -> float:
        """Area under the ROC curve: how often a disc that matters has more saliency than one that does not."""
        yes, no = self.fall[self.matters], self.fall[~self.matters]
        return float((yes[:, None] > no).double().mean() + 0.5 * (yes[:, None] == no).double().mean())


def saliency(config: Config, model: Model, probe: SiteProbes, chosen: Chosen, way: str = "add") -> Saliency:
    """Flip every disc of some positions. Two runs of about 20 cases a position; legal first choices alone count."""
    board, drawn_by = config.board, batch_generator(config.seed, (1 << 31) + SALIENT_ON)
    games = random_games(board, POSITIONS, drawn_by)
    longest = max(SHORTEST + 1, 3 * board.most_moves // 4)
    ply = torch.randint(SHORTEST, longest, (POSITIONS,), generator=drawn_by).numpy()
    plays = games.length > ply
    cases = every_disc(games.some(plays), ply[plays])
    return _of(model, probe, chosen, way, cases, drawn_by)


def _of(model: Model, probe: SiteProbes, chosen: Chosen, way: str, cases: Cases, drawn_by: Generator) -> Saliency:
    untouched = logits_at_last(model, cases).softmax(-1)
    move = untouched[:, 1:].argmax(-1) + 1
    edits = edits_of(WAYS[way], probe, cases, *chosen, drawn_by)
    flipped = logits_at_last(model, cases, edits).softmax(-1)
    at = torch.arange(len(move))
    legal = cases.before[at, move].numpy()
    found = Saliency(cases, move, untouched[at, move] - flipped[at, move], ~cases.after[at, move])
    return Saliency(cases.some(np.flatnonzero(legal)), *(each[torch.from_numpy(legal)] for each in found[1:]))


def saliency_figure(found: Saliency, group: str) -> Figure:
    """The first positions: how much the first choice falls with each disc; rings around those that matter."""
    board = found.cases.board
    starts = [0, *(1 + _changes(found.cases)).tolist(), len(found.move)][: SHOWN + 1]
    z = np.full((len(starts) - 1, board.n_squares), np.nan)
    marks, panels, texts = [], [], []
    for panel, (first, last) in enumerate(itertools.pairwise(starts)):
        chosen = board.playable[int(found.move[first]) - 1]
        z[panel, found.cases.square[first:last].numpy()] = found.fall[first:last].numpy()
        panels.append(f"to play {board.name(chosen)}")
        rings = found.cases.square[first:last][found.matters[first:last]].tolist()
        marks += [{"panel": panel, "row": s // board.size, "column": s % board.size, "name": "matters"} for s in rings]
        texts.append(_texts(found.cases, first, last, chosen))
    return figures.board(
        "saliency", "What a move depends on", z.reshape(-1, board.size, board.size), panels=panels, marks=marks,
        texts=texts, value="fall of its probability", diverging=True, group=group, claims=("saliency-is-legality",),
        source="Li et al. 2023, figure 5",
        caption="Each disc flipped in turn: how much the probability of the model's first choice (*) falls. Rings: by "
        "the rules the move is then illegal. X of the player who moves, O of the other.",
    )  # fmt: skip


def _changes(cases: Cases) -> np.ndarray:
    """Where the next position begins."""
    return np.flatnonzero((cases.tokens[1:] != cases.tokens[:-1]).any(1).numpy())


def _texts(cases: Cases, first: int, last: int, chosen: int) -> list[list[str]]:
    board, signs = cases.board, [" "] * cases.board.n_squares
    for square, old in zip(cases.square[first:last].tolist(), cases.old[first:last].tolist(), strict=True):
        signs[square] = "X" if old == 1 else "O"
    signs[chosen] = "*"
    return [signs[i : i + board.size] for i in range(0, board.n_squares, board.size)]
