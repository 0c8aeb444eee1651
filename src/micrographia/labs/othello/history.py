"""What can be read off the moves without a network: a probe of which square was taken at which ply so far.

The baseline that a probe of the model has to beat: linear, or with a hidden layer, trained on as many games as the
model and its probes together. Its input is one bit for each ply and square, so its first layer is a running sum of
embeddings. Published with a hidden layer on 8x8: .933 (nothello, 2026). Axes: game pos token hidden.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.events import Progress, Watch, silent
from micrographia.core.gradients import with_gradients
from micrographia.core.runtime import batch_generator, generator
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.engine.games import Games, random_games
from micrographia.labs.othello.network import unseen_games
from micrographia.labs.othello.task import labels_of, targets_of, tokens_of
from micrographia.methods.probes.fit import IGNORED

HIDDEN, ROWS = 512, 50
RATES = {None: 3e-2, HIDDEN: 1e-2}
"""Of AdamW, the best on 25,000 games."""
LAST_GAMES = 1 << 24
"""Added to the seed, with the number of a batch: games of no other sample."""


class HistoryProbe(NamedTuple):
    """Reads the board of one frame off the moves. Even and odd numbers of moves have weights of their own, since the
    mover's frame turns over with each. `readout` is None where the sum itself gives the classes."""

    embedding: Float[Tensor, "parity pos token out"]
    bias: Float[Tensor, "parity out"]
    readout: Float[Tensor, "parity out item_class"] | None
    last_bias: Float[Tensor, "parity item_class"] | None
    n_classes: int = 3

    def logits(self, tokens: Int[Tensor, "game pos"]) -> Float[Tensor, "game pos item class"]:
        at = torch.arange(tokens.shape[1]) * self.embedding.shape[2] + tokens
        halves = []
        for parity in (0, 1):
            x = F.embedding(at, self.embedding[parity].flatten(0, 1)).cumsum(1)[:, parity::2] + self.bias[parity]
            if self.readout is not None and self.last_bias is not None:
                x = F.relu(x) @ self.readout[parity] + self.last_bias[parity]
            halves.append(x)
        whole = halves[0].new_empty(*tokens.shape, halves[0].shape[-1])
        whole[:, 0::2], whole[:, 1::2] = halves
        return whole.unflatten(-1, (-1, self.n_classes))


def history_accuracy(
    config: Config,
    frame: str,
    hidden: int | None,
    n_games: int,
    *,
    watch: Watch = silent,
    task: str = "probe of the moves",
) -> float:
    """Accuracy over all squares and plies of other games, of `history_probe`."""
    return _judged(config, history_probe(config, frame, hidden, n_games, watch=watch, task=task), frame)


def history_probe(
    config: Config, frame: str, hidden: int | None, n_games: int, *, watch: Watch = silent, task: str
) -> HistoryProbe:
    """A probe of the moves that is trained on `n_games`.

    Cost a game: a running sum, and with a hidden layer three products of (hidden, 3 x squares) a ply.
    """
    steps = max(1, n_games // ROWS)
    probe = _fresh(config, frame, hidden, generator(config.seed))
    weights = [each.requires_grad_() for each in probe if isinstance(each, Tensor)]
    optimiser = torch.optim.AdamW(weights, lr=RATES[hidden and HIDDEN], weight_decay=0.0)
    for step, games in enumerate(itertools.islice(_games(config), steps)):
        optimiser.param_groups[0]["lr"] = RATES[hidden and HIDDEN] * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = _descend(probe, weights, games, frame)
        optimiser.step()
        watch(Progress(task, step + 1, steps, "batch", {"loss": loss}))
    return probe


def _fresh(config: Config, frame: str, hidden: int | None, drawn_by: Generator) -> HistoryProbe:
    board, n_pos = config.board, config.n_ctx
    target = targets_of(board, (frame,))[frame]
    out, n_classes = math.prod(target), target.n_classes
    shape = (2, n_pos, len(board.playable) + 1)
    if hidden is None:
        return HistoryProbe(torch.zeros(*shape, out), torch.zeros(2, out), None, None, n_classes)
    embedding = torch.randn(*shape, hidden, generator=drawn_by) * (2 / n_pos) ** 0.5
    readout = torch.randn(2, hidden, out, generator=drawn_by) / hidden**0.5
    return HistoryProbe(embedding, torch.zeros(2, hidden), readout, torch.zeros(2, out), n_classes)


def _games(config: Config) -> Iterator[Games]:
    for i in itertools.count():
        yield random_games(config.board, ROWS, batch_generator(config.seed + LAST_GAMES, i))


@with_gradients
def _descend(probe: HistoryProbe, weights: list[Tensor], games: Games, frame: str) -> float:
    labels = labels_of(games, (frame,))[frame]
    logits = probe.logits(tokens_of(games)[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 2), labels.flatten().long(), ignore_index=IGNORED)
    for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = slope
    return float(loss.detach())


@torch.no_grad()
def _judged(config: Config, probe: HistoryProbe, frame: str) -> float:
    right = total = 0
    for i in range(-(-config.probing.test_games // ROWS)):
        games = unseen_games(config, ROWS, (3 << 20) + i)
        labels = labels_of(games, (frame,))[frame]
        said = probe.logits(tokens_of(games)[:, :-1]).argmax(-1)
        known = labels != IGNORED
        right += int(((said == labels) & known).sum())
        total += int(known.sum())
    return right / total
