"""One game, move by move: the board, what a probe reads in every layer, what the model predicts, and every flip.

All of it is plain arrays, computed at once, so that a page can step and flip without the model. A square is 0 empty, 1
black, 2 white, whichever frame the probe reads in. Steps count moves played; the model has read something from step 1
on, and does not read the last move of a full game. Axes: step read (steps from 1 on) site flip square.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure, widget
from micrographia.core.model import Model
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.labs.othello.cases import Cases, cases_of
from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.games import Games, replay
from micrographia.labs.othello.engine.rules import unpack
from micrographia.labs.othello.flips import WAYS, edits_of
from micrographia.labs.othello.intervene import CONTROLLED, Chosen
from micrographia.labs.othello.reading import sites_of
from micrographia.labs.othello.task import EMPTY, MINE, THEIRS, tokens_of
from micrographia.methods.probes.probe import SiteProbes

ASSET = "micrographia.labs.othello:board.js"
GROUP = "A game, step by step"
NO_DISC, BLACK, WHITE = 0, 1, 2
PARTS = 10_000
"""Probabilities are whole numbers of this part: of 0.01 %."""
ROWS = 256
"""Flips in a batch."""
SIGNS = "-XO"


class SquareFlips(NamedTuple):
    """Every disc of every board that the model read, flipped in the model alone."""

    row: NDArray[np.int16]
    """(read, square): the flip of the disc there; -1 on an empty square."""
    legal: NDArray[np.bool_]
    """(flip, square): where the mover may move on the changed board."""
    predicted: NDArray[np.int16]
    """(flip, square): the model's probabilities after the flip."""
    said: NDArray[np.uint8]
    """(flip, site, square): what the probe reads after the flip."""


class GameSteps(NamedTuple):
    """One game as one model reads it."""

    board: Board
    sites: tuple[Site, ...]
    moves: NDArray[np.int8]
    """(move,): squares."""
    boards: NDArray[np.uint8]
    """(step, square)."""
    black: NDArray[np.bool_]
    """(step,): whether Black moves next."""
    legal: NDArray[np.bool_]
    """(step, square)."""
    predicted: NDArray[np.int16]
    """(read, square): the model's probabilities of the next move."""
    said: NDArray[np.uint8]
    """(read, site, square): what the probe reads."""
    sure: NDArray[np.uint8]
    """(read, site, square): the probability that the probe gives it, in steps of 1/255."""
    flips: SquareFlips

    @property
    def read(self) -> int:
        """The last step that the model reads."""
        return len(self.predicted)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(read, site, square): where the probe reads another board."""
        return self.said != self.boards[1 : self.read + 1, None]


def step_through(
    model: Model, probe: SiteProbes, games: Games, chosen: Chosen, watch: Watch = silent
) -> list[GameSteps]:
    """Every game, with all its flips at these layers and this scale.

    `probe` is linear, in the mover's frame, of `reading.sites_of`. Cost a game: one run, and as many as it has discs on
    all its boards (620 on 6x6), 256 at a time. Raises UserError for a game without moves.
    """
    n, found = len(games.length), list[GameSteps]()
    for i in range(n):
        watch(Progress("flip every disc", i, n, "game"))
        found.append(_steps(model, probe, games.some(slice(i, i + 1)), chosen))
    watch(Progress("flip every disc", n, n, "game"))
    return found


def _steps(model: Model, probe: SiteProbes, game: Games, chosen: Chosen) -> GameSteps:
    board, n = game.board, int(game.length[0])
    if n == 0:
        raise UserError("A game without moves was to be stepped through: the model reads nothing. Give a move or more.")
    read, sites, moves = min(n, board.most_moves - 1), sites_of(model), game.moves[0, :n]
    black, legal = game.black[0, : n + 1], unpack(game.legal[0, : n + 1], board)
    blacks, whites = (unpack(discs[0, : n + 1], board) for discs in game.colours())
    boards = (BLACK * blacks + WHITE * whites).astype(np.uint8)
    run = model.run(tokens_of(game)[:, :read], keep=sites)
    x = torch.stack([run.cache[site][0] for site in sites])
    said, sure = _read(probe, x, black[1 : read + 1])
    flips = _flips(model, probe, board, moves[:read], boards, chosen)
    predicted = _by_square(board, run.logits[0])
    return GameSteps(board, tuple(sites), moves, boards, black, legal, predicted, said, sure, flips)


def _flips(
    model: Model, probe: SiteProbes, board: Board, moves: NDArray[np.int8], boards: NDArray[np.uint8], chosen: Chosen
) -> SquareFlips:
    step, square = np.nonzero(boards[1 : len(moves) + 1])
    row = np.full((len(moves), board.n_squares), -1, np.int16)
    row[step, square] = np.arange(len(step))
    cases = cases_of(board, [_case(moves, boards, int(i) + 1, int(j)) for i, j in zip(step, square)])
    parts = [_flipped(model, probe, cases.some(slice(i, i + ROWS)), chosen) for i in range(0, len(step), ROWS)]
    predicted, said = (np.concatenate(part) for part in zip(*parts))
    legal = np.zeros(predicted.shape, np.bool_)
    legal[:, list(board.playable)] = cases.after[:, 1:].numpy()
    return SquareFlips(row, legal, predicted, said)


def _case(moves: NDArray[np.int8], boards: NDArray[np.uint8], step: int, square: int) -> dict[str, Any]:
    colour = 2 if boards[step, square] == BLACK else 0  # as the published benchmark names them
    return {"history": moves[:step].tolist(), "pos_int": square, "ori_color": colour}


def _flipped(
    model: Model, probe: SiteProbes, cases: Cases, chosen: Chosen
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Predictions and readings of some flips, whose histories are cut to the longest."""
    cases = cases._replace(tokens=cases.tokens[:, : int(cases.last.max()) + 1])
    at, sites = torch.arange(len(cases.last)), sites_of(model)
    edits = edits_of(WAYS[CONTROLLED], probe, cases, chosen.layers, chosen.scale, generator(0))
    run = model.run(cases.tokens, keep=sites, edits=edits)
    x = torch.stack([run.cache[site][at, cases.last] for site in sites])
    said, _ = _read(probe, x, cases.black.numpy())
    return _by_square(cases.board, run.logits[at, cases.last]), said


def _read(
    probe: SiteProbes, x: Float[Tensor, "site row d"], black: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours and how sure the probe is of them, both (row, site, square): mine is the mover's."""
    sure, said = probe.logits(x).softmax(-1).max(-1)
    colours = np.zeros((2, 3), np.uint8)
    colours[:, EMPTY], colours[:, MINE], colours[:, THEIRS] = NO_DISC, (WHITE, BLACK), (BLACK, WHITE)
    by_row = said.cpu().numpy().transpose(1, 0, 2)
    found = colours[black.astype(np.intp)[:, None, None], by_row]
    return found, (255 * sure).round().byte().cpu().numpy().transpose(1, 0, 2)


def _by_square(board: Board, logits: Float[Tensor, "row vocab"]) -> NDArray[np.int16]:
    found = np.zeros((len(logits), board.n_squares), np.int16)
    probabilities = logits.double().softmax(-1)[:, 1:].cpu().numpy()
    found[:, list(board.playable)] = (PARTS * probabilities).round()
    return found


def game_widget(
    games: Sequence[GameSteps], chosen: Chosen, *, names: Sequence[str] = (), about: Mapping[str, Any] | None = None
) -> Figure:
    """The games as a page to step through. `about`: where it opens, any of game, step, site, flip (a square).

    It opens at the layer that misreads fewest squares of these games. About 0.1 MB in the page a game of 6x6 squares.
    """
    first = games[0]
    data = {
        "size": first.board.size,
        "sites": [site_words(site) for site in first.sites],
        "layers": list(chosen.layers),
        "scale": chosen.scale,
        "names": list(names) or [f"Game {i + 1}" for i in range(len(games))],
        "games": [_as_data(each) for each in games],
        "opening": {"game": 0, "step": first.read // 2, "site": clearest(games), "flip": None, **(about or {})},
    }
    return widget(
        "game",
        "One game, and the board inside the model",
        ASSET,
        data,
        group=GROUP,
        source="Nanda, Lee and Wattenberg 2023, section 4",
        caption="The model is given moves alone. A linear probe of one layer reads every square as mine, theirs or "
        "empty for the player who moves next; here these are drawn in colours. A click on a disc moves the residual "
        f"stream {after_layers(chosen.layers)} along the probe's direction for that square, by {chosen.scale:g}.",
    )


def _as_data(steps: GameSteps) -> dict[str, Any]:
    flips = steps.flips
    return {
        "moves": steps.moves,
        "boards": steps.boards,
        "black": steps.black.view(np.uint8),
        "legal": steps.legal.view(np.uint8),
        "predicted": steps.predicted,
        "said": steps.said,
        "sure": steps.sure,
        "flip_row": flips.row,
        "flip_legal": flips.legal.view(np.uint8),
        "flip_predicted": flips.predicted,
        "flip_said": flips.said,
    }


def clearest(games: Sequence[GameSteps]) -> int:
    """The site at which the probe misreads fewest squares of these games."""
    return int(np.sum([each.wrong.sum((0, 2)) for each in games], 0).argmin())


def site_words(site: Site) -> str:
    words = {"resid_pre": "before layer", "resid_mid": "after the attention of layer", "resid_post": "after layer"}
    return f"{words[site.kind]} {site.layer}"


def after_layers(layers: Sequence[int]) -> str:
    """ "after layer 3", or "after layers 2 to 5": flips are at one layer or at all from one on."""
    return f"after layer {layers[0]}" if len(layers) == 1 else f"after layers {layers[0]} to {layers[-1]}"


def refuse(games: Games, *, ply: int | None, flip: int | None) -> None:
    """Raise UserError, before anything is computed, for a ply that the first game lacks, or an empty square to flip."""
    read = min(int(games.length[0]), games.board.most_moves - 1)
    _check_step(ply, read)
    step = ply or read // 2 or 1
    discs = list(games.board.squares(int(games.own[0, step] | games.other[0, step])))
    if flip is not None and flip not in discs:
        raise _empty(games.board, flip, step, discs)


def _check_step(step: int | None, read: int) -> None:
    if step is not None and not 1 <= step <= read:
        raise UserError(f"Asked for the board after {step} moves. In this game the model reads 1 to {read}.")


def _empty(board: Board, square: int, step: int, discs: Sequence[int]) -> UserError:
    on = ", ".join(board.name(each) for each in discs)
    return UserError(f"Asked to flip {board.name(square)} after {step} moves. It is empty there. Discs are on {on}.")


def position(steps: GameSteps, step: int, site: int, flip: int | None = None) -> dict[str, Any]:
    """One step of a game in words and numbers, as JSON has them; with `flip` that square flipped in the model.

    Raises UserError for a step that the model does not read and for a flip of an empty square.
    """
    _check_step(step, steps.read)
    board, row = steps.board, step - 1
    legal = steps.legal[step]
    return {
        "step": step,
        "moves": _names(board, steps.moves[:step]),
        "mover": "black" if steps.black[step] else "white",
        "legal": _names(board, np.flatnonzero(legal)),
        "board": _rows(board, steps.boards[step]),
        "site": str(steps.sites[site]),
        "probe": _rows(board, steps.said[row, site]),
        "wrong": _names(board, np.flatnonzero(steps.wrong[row, site])),
        "predictions": _predictions(board, steps.predicted[row]),
        "legal_mass": _mass(steps.predicted[row], legal),
        "flip": None if flip is None else _flip(steps, step, site, flip),
    }


def _flip(steps: GameSteps, step: int, site: int, square: int) -> dict[str, Any]:
    board, found, i = steps.board, steps.flips, int(steps.flips.row[step - 1, square])
    if i < 0:
        raise _empty(board, square, step, np.flatnonzero(steps.boards[step]).tolist())
    changed = steps.boards[step].copy()
    changed[square] = BLACK + WHITE - changed[square]
    before, after, now, then = steps.legal[step], found.legal[i], steps.predicted[step - 1], found.predicted[i]
    return {
        "square": board.name(square),
        "board": _rows(board, changed),
        "legal": _names(board, np.flatnonzero(after)),
        "gained": _names(board, np.flatnonzero(after & ~before)),
        "lost": _names(board, np.flatnonzero(before & ~after)),
        "probe": _rows(board, found.said[i, site]),
        "wrong": _names(board, np.flatnonzero(found.said[i, site] != changed)),
        "predictions": _predictions(board, then),
        "legal_mass_before": _mass(now, after),
        "legal_mass": _mass(then, after),
    }


def _names(board: Board, squares: NDArray[Any]) -> list[str]:
    return [board.name(int(square)) for square in squares]


def _rows(board: Board, colours: NDArray[np.uint8]) -> list[str]:
    """X black, O white, - empty; a text a row."""
    return ["".join(SIGNS[colour] for colour in row) for row in colours.reshape(board.size, -1)]


def _predictions(board: Board, predicted: NDArray[np.int16]) -> dict[str, float]:
    """By square, the likeliest first; those that round to nothing are left out."""
    order = np.argsort(-predicted, kind="stable")
    return {board.name(int(i)): float(predicted[i] / PARTS) for i in order if predicted[i] > 0}


def _mass(predicted: NDArray[np.int16], legal: NDArray[np.bool_]) -> float:
    return float(predicted[legal].sum() / PARTS)


def given_game(board: Board, text: str) -> Games:
    """The game of a text such as "f5 d6 c3" or "f5d6c3". Raises UserError for an illegal move or what is no square."""
    names = list(_words(text))
    moves = np.full((1, board.most_moves), -1, np.int8)
    if len(names) > board.most_moves:
        raise UserError(
            f"Asked for a game of {len(names)} moves. A game on {board.size}x{board.size} squares has at most "
            f"{board.most_moves}: is the model of another board?"
        )
    for i, name in enumerate(names):
        try:
            moves[0, i] = board.square(name)
        except UserError as error:
            raise UserError(
                f"Move {i + 1} of the game cannot be read. {error} Is the model of another board?"
            ) from error
    games, illegal = replay(board, moves)
    if illegal:
        raise UserError(f"Asked for a game on {board.size}x{board.size} squares. In it {illegal[0].told(board)}")
    return games


def _words(text: str) -> Iterator[str]:
    """Words, of which those of several squares are taken apart."""
    for word in text.replace(",", " ").split():
        pairs = [word[i : i + 2] for i in range(0, len(word), 2)]
        yield from pairs if all(len(p) == 2 and p[0].isalpha() and p[1].isdigit() for p in pairs) else [word]
