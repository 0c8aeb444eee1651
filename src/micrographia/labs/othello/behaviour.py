"""Whether the model acts on the board that is read from it: where that differs from the true one, in roll-outs after a
flip, and between histories that reach one board.

Three questions beyond the papers' own measures. Where the board as probes read it allows other moves than the true one,
which of the two do the predictions follow? Do moves played on after a flip stay legal on the changed board (Hravan,
othellogpt-deconstruction, reports 6.8 % illegal within ten plies)? Does another order of the same moves, which leaves
the same board, change the first choice (25.6 % there)? Each with its null. Axes: case pos vocab.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from micrographia.core.edits import Edit
from micrographia.core.model import Model
from micrographia.core.runtime import batch_generator
from micrographia.labs.othello.cases import Cases
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.games import NONE, Games, random_games, replay
from micrographia.labs.othello.engine.rules import Bits, Rules, played, unpack
from micrographia.labs.othello.network import unseen_games
from micrographia.labs.othello.reading import reader
from micrographia.labs.othello.task import MINE, THEIRS, predicted, tokens_of
from micrographia.methods.probes.probe import SiteProbes

PLIES = 10
"""Of a roll-out."""
READ_ON, ORDERED_ON = 20, 21  # numbers of samples


class ReadBoards(NamedTuple):
    """Positions in which the board that is read allows other moves than the true one."""

    share: float
    """Of all positions."""
    follows_read: float
    """Of the tokens that only one of the two boards allows, how many the predictions rank as the read board says: above
    or below the middle between the least likely move that both allow and the likeliest that neither does."""
    control: float
    """The same with as many squares wrong, but those of another position: what any wrong board would give."""


def read_boards(config: Config, model: Model, probe: SiteProbes, site: int, n: int = 500) -> ReadBoards:
    """Compare predictions with the board that a probe of the mover's frame reads. One run over `n` games."""
    games = unseen_games(config, n, sample=READ_ON)
    tokens, right = tokens_of(games)[:, :-1], predicted(games)
    there = right.there.numpy()
    said = probe.at(site).logits(reader(model, site)(tokens)[:, right.there])[0].argmax(-1)
    own, other = games.own[:, 1:-1][there], games.other[:, 1:-1][there]
    read = _packed(said == MINE), _packed(said == THEIRS)
    elsewhere = _of_another_game(there)
    moved = (own ^ read[0])[elsewhere], (other ^ read[1])[elsewhere]
    logits = model.run(tokens).logits[right.there]
    true = right.legal[right.there]
    differs, follows = _followed(logits, true, _legal_tokens(config, *read))
    _, control = _followed(logits, true, _legal_tokens(config, *_disjoint(own ^ moved[0], other ^ moved[1])))
    return ReadBoards(differs, follows, control)


def read_legal(config: Config, probe: SiteProbes, x: Float[Tensor, "one row d"]) -> Bool[Tensor, "row vocab"]:
    """The tokens that are legal on the board that a probe of the mover's frame reads."""
    said = probe.logits(x)[0].argmax(-1)
    return _legal_tokens(config, _packed(said == MINE), _packed(said == THEIRS))


def _of_another_game(there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each position that there is, the row of the same ply in another game, one that has not ended there."""
    row = np.where(there, np.cumsum(there).reshape(there.shape) - 1, -1)
    found = np.roll(row, 1, axis=0)
    for shift in range(2, len(there)):
        found = np.where(found < 0, np.roll(row, shift, axis=0), found)
    return found[there]


def _disjoint(own: Bits, other: Bits) -> tuple[Bits, Bits]:
    """No square is both."""
    return own & ~other, other & ~own


def _packed(inside: Bool[Tensor, "row square"]) -> Bits:
    weights = np.left_shift(np.uint64(1), np.arange(inside.shape[1], dtype=np.uint64))
    return (inside.numpy() * weights).sum(-1, dtype=np.uint64)


def _legal_tokens(config: Config, own: Bits, other: Bits) -> Bool[Tensor, "row vocab"]:
    board = config.board
    inside = unpack(Rules(board, len(own)).legal(own, other), board)[:, list(board.playable)]
    return torch.from_numpy(np.pad(inside, ((0, 0), (1, 0))))


def _followed(logits: Tensor, true: Tensor, said: Tensor) -> tuple[float, float]:
    """How often the sets differ, and how the tokens that are in one of them alone are ranked."""
    both, neither, odd = true & said, ~true & ~said, true ^ said
    middle = (logits.masked_fill(~both, torch.inf).amin(-1) + logits.masked_fill(~neither, -torch.inf).amax(-1)) / 2
    usable = odd & both.any(-1, keepdim=True)
    as_said = (logits > middle[:, None]) == said
    return float(odd.any(-1).double().mean()), float(as_said[usable].double().mean())


def rolled_out(model: Model, cases: Cases, edits: Sequence[Edit] = (), plies: int = PLIES) -> float:
    """How often a roll-out of first choices has an illegal move: on B' under the edits, which stay in force.

    With no edits give cases whose board is the true one. A run a ply.
    """
    tokens, board = cases.tokens.clone(), cases.board
    own, other = cases.own.copy(), cases.other.copy()
    illegal, going = np.zeros(len(own), np.bool_), np.ones(len(own), np.bool_)
    at = torch.arange(len(own))
    for ply in range(plies):
        here = cases.last + ply
        going &= (here < tokens.shape[1]).numpy()
        logits = model.run(tokens, edits=list(edits)).logits[at, here.clamp(max=tokens.shape[1] - 1)]
        choice = logits[:, 1:].argmax(-1) + 1
        square = np.array(board.playable, np.uint64)[choice.numpy() - 1]
        legal, move = Rules(board, len(own)), np.left_shift(np.uint64(1), square)
        allowed = (legal.legal(own, other) & move) != 0
        illegal |= going & ~allowed
        going &= allowed
        own, other = _after(board, own, other, np.where(going, move, np.uint64(0)))
        going &= Rules(board, len(own)).legal(own, other) != 0
        ahead = (here + 1).clamp(max=tokens.shape[1] - 1)
        tokens[at, ahead] = torch.where(here + 1 < tokens.shape[1], choice, tokens[at, ahead])
    return float(illegal.mean())


def _after(board: Board, own: Bits, other: Bits, move: Bits) -> tuple[Bits, Bits]:
    """The boards after these moves, from the side of who moves next; where there is no move they stay."""
    rules = Rules(board, len(own))
    rules.legal(own, other)
    moves = move != 0
    mine, theirs = played(board, own, other, move, rules.flips(move))
    own, other = np.where(moves, theirs, own), np.where(moves, mine, other)
    stuck = (Rules(board, len(own)).legal(own, other) == 0) & moves
    return np.where(stuck, other, own), np.where(stuck, own, other)


class Transpositions(NamedTuple):
    """Pairs of histories of the same moves in another order that leave the same board."""

    n: int
    first_choice_differs: float
    control: float
    """What two choices at random among the legal moves would give, the mean over the boards."""


def transpositions(config: Config, model: Model, n: int = 2_000) -> Transpositions:
    """Swap two moves of one player, and keep what is legal and leaves the same board. Two runs of the model."""
    board, drawn_by = config.board, batch_generator(config.seed, (1 << 31) + ORDERED_ON)
    games = random_games(board, 8 * n, drawn_by)
    length = torch.randint(5, max(6, board.most_moves - 4), (8 * n,), generator=drawn_by).numpy()
    first = (torch.rand(8 * n, generator=drawn_by).numpy() * (length - 3)).astype(np.int64)
    one, other = _ordered(games, length, first)
    a, b = replay(board, one)[0], replay(board, other)[0]
    rows = np.arange(len(one))
    same = (a.length == length) & (b.length == length)
    for field in ("own", "other", "black"):
        same &= getattr(a, field)[rows, length] == getattr(b, field)[rows, length]
    same &= a.legal[rows, length] != 0
    chosen = np.flatnonzero(same)[:n]
    last = torch.from_numpy(length[chosen]) - 1
    said = [_first_choice(model, tokens_of(each.some(chosen))[:, :-1], last) for each in (a, b)]
    differs = float((said[0] != said[1]).double().mean())
    n_legal = np.bitwise_count(a.legal[chosen, length[chosen]])
    return Transpositions(len(chosen), differs, float((1 - 1 / n_legal).mean()))


def _ordered(games: Games, length: NDArray[np.int64], first: NDArray[np.int64]) -> tuple[NDArray[np.int8], ...]:
    """Histories of these lengths, as played and with the moves `first` and `first` + 2 exchanged."""
    rows = np.arange(len(length))
    one = np.where(np.arange(games.moves.shape[1]) < length[:, None], games.moves, np.int8(NONE))
    other = one.copy()
    other[rows, first], other[rows, first + 2] = one[rows, first + 2], one[rows, first]
    return one, other


def _first_choice(model: Model, tokens: Int[Tensor, "case pos"], last: Tensor) -> Int[Tensor, "case"]:
    return model.run(tokens).logits[torch.arange(len(tokens)), last].argmax(-1)


def own_board(cases: Cases) -> Cases:
    """The same histories with the board that they truly leave."""
    return cases._replace(own=cases.own ^ cases.discs, other=cases.other ^ cases.discs, after=cases.before)
