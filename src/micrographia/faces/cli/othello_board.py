"""`micrographia othello board`: the board inside a model, at one move of a game, and what flipping a disc there does.

Prints the true board, the one that a probe reads, and the model's next move side by side; --html writes the page in
which a game is stepped through and every disc can be flipped. Probes that the model does not bring are fitted first,
which takes half a minute.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from micrographia.core.errors import BadConfig, UserError
from micrographia.faces.boards import column_letters
from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.options import Printed, parse
from micrographia.faces.cli.progress import shown

if TYPE_CHECKING:
    from micrographia.labs.othello.engine.board import Board
    from micrographia.labs.othello.engine.games import Games
    from micrographia.labs.othello.stepping import GameSteps
    from micrographia.labs.othello.studied import Studied

SIGNS = {"X": "●", "O": "○", "-": "·"}
Panel = tuple[str, Sequence[Sequence[Text]]]
"""A title, and what stands in each square."""
GAMES = 3
"""Games of a page for which none was given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(Printed):
    model: str = "shipped"
    """The model: "shipped", a Run of the lab (a folder or a unique beginning of its name), or a file of weights."""
    game: str = ""
    """The moves, such as "b3 b4 b5" or b3b4b5 on 6x6; without them a random legal game."""
    seed: int = 0
    """Seed of the random game."""
    layer: int | None = None
    """Show the probe after this layer; by default the one that misreads fewest squares of the game."""
    ply: int | None = None
    """Show the board after so many moves; by default half of the game."""
    flip: str = ""
    """A square, such as c4, whose disc is flipped inside the model."""
    allow_pickle: bool = False
    """Read a .pt or .pth file, which is a pickle: only tensors in it are made, nothing is run."""
    html: Path | None = None
    """Write the page to step through the game into this file; with random games, three of them."""

    def __post_init__(self) -> None:
        if self.ply is not None and self.ply < 1:
            raise BadConfig(f"--ply is {self.ply}. The model has read something from move 1 on. Give 1 or more.")


def main(words: Sequence[str]) -> int:
    asked = parse(Arguments, words, prog="micrographia othello board", description=__doc__ or "")
    from micrographia.labs.othello.stepping import position, refuse, step_through
    from micrographia.labs.othello.studied import model_and_board, studied

    with shown() as watch:
        model, board = model_and_board(asked.model, allow_pickle=asked.allow_pickle, watch=watch)
        games = _games(asked, board)
        flip = board.square(asked.flip) if asked.flip else None
        refuse(games, ply=asked.ply, flip=flip)
        _check_layer(asked.layer, model.shape.n_layers)
        found = studied(asked.model, allow_pickle=asked.allow_pickle, watch=watch)
        steps = step_through(found.model, found.probe, games, found.chosen, watch)
    first = steps[0]
    place = {
        "step": first.read // 2 or 1 if asked.ply is None else asked.ply,
        "site": _site(asked.layer, steps),
        "flip": flip,
    }
    told = {"size": found.board.size, **position(first, **place)}
    if told["flip"]:
        told["flip"] |= {"layers": list(found.chosen.layers), "scale": found.chosen.scale}
    page = None if asked.html is None else _write(asked.html, steps, found, place)
    if asked.json:
        print_json({"model": asked.model, **told, "page": page})
    else:
        _print(Console(), told, page)
    return 0


def _games(asked: Arguments, board: "Board") -> "Games":
    from micrographia.core.runtime import generator
    from micrographia.labs.othello.engine.games import random_games
    from micrographia.labs.othello.stepping import given_game

    if asked.game.strip():
        return given_game(board, asked.game)
    games = random_games(board, GAMES, generator(asked.seed))
    return games if asked.html else games.some(slice(1))


def _check_layer(layer: int | None, n: int) -> None:
    if layer is not None and not 0 <= layer < n:
        raise UserError(f"Asked for the probe after layer {layer}. The model has {n} layers: give 0 to {n - 1}.")


def _site(layer: int | None, steps: Sequence["GameSteps"]) -> int:
    from micrographia.labs.othello.reading import place_of
    from micrographia.labs.othello.stepping import clearest

    return clearest(steps[:1]) if layer is None else place_of(layer)


def _write(path: Path, steps: Sequence["GameSteps"], found: "Studied", place: Mapping[str, Any]) -> Path:
    from micrographia.core.store import write_bytes
    from micrographia.faces.report.page import render_figures
    from micrographia.labs.othello.stepping import game_widget

    path = path.absolute()
    write_bytes(path, render_figures([game_widget(steps, found.chosen, about=place)]).encode())
    return path


def _print(console: Console, told: Mapping[str, Any], page: Path | None) -> None:
    flip = told["flip"]
    panels: list[Panel] = [
        ("the board", _discs(told["board"], marked=told["legal"], sign="+")),
        (f"probe, {told['site']}", _discs(told["probe"], marked=told["wrong"])),
        ("the next move, %", _percents(told, told["legal"])),
    ]
    lines = _sentences(told)
    if flip:
        panels[0] = ("the changed board", _discs(flip["board"], marked=flip["legal"], sign="+", ringed=flip["square"]))
        panels[1] = (f"probe, {told['site']}", _discs(flip["probe"], marked=flip["wrong"]))
        panels.append((f"with {flip['square']} flipped, %", _percents(flip, flip["legal"])))
        lines += _flip_sentences(flip)
    for row in _fitting(console.width, told["size"], panels):
        grid = Table.grid(padding=(0, 4, 0, 0))
        grid.add_row(*(Text(title, style="bold", no_wrap=True) for title, _ in row))
        grid.add_row(*(_squares(squares) for _, squares in row))
        console.print(grid)
        console.print()
    for line in [*lines, *([] if page is None else [str(page)])]:
        console.print(line, markup=False, highlight=False, soft_wrap=page is not None and line == str(page))


def _fitting(width: int, size: int, panels: Sequence[Panel]) -> list[Sequence[Panel]]:
    """As many panels to a row as the terminal holds; of four, two or all."""
    widest = max(4 * size + 2, *(len(title) for title, _ in panels)) + 4
    across = max(1, min(len(panels), width // widest))
    across = 2 if (across, len(panels)) == (3, 4) else across
    return [panels[i : i + across] for i in range(0, len(panels), across)]


def _squares(rows: Sequence[Sequence[Text]]) -> Table:
    drawn = Table(box=None, header_style="bright_black", padding=0)
    drawn.add_column("", style="bright_black", justify="right")
    for letter in column_letters(len(rows)):
        drawn.add_column(f"{letter} ", justify="right", min_width=4)
    for i, row in enumerate(rows):
        drawn.add_row(str(i + 1), *row)
    return drawn


def _discs(rows: Sequence[str], *, marked: Sequence[str], sign: str = "", ringed: str = "") -> list[list[Text]]:
    """Discs; marked squares have the sign, or without one stand in brackets, as the ringed one does."""
    return [
        [_disc(disc, name in marked, sign, name == ringed) for name, disc in zip(_names(i, len(row)), row)]
        for i, row in enumerate(rows)
    ]


def _disc(disc: str, marked: bool, sign: str, ringed: bool) -> Text:
    if marked and sign:
        return Text(f"{sign} ", style="green")
    around = ringed or marked
    style = "yellow" if ringed else "red" if marked else "bright_black" if disc == "-" else ""
    return Text(f"[{SIGNS[disc]}]" if around else f"{SIGNS[disc]} ", style=style)


def _percents(told: Mapping[str, Any], legal: Sequence[str]) -> list[list[Text]]:
    """Whole percents: of legal moves as they are, of others in brackets."""
    n = len(told["board"])
    return [[_percent(told["predictions"].get(name, 0.0), name in legal) for name in _names(i, n)] for i in range(n)]


def _percent(p: float, legal: bool) -> Text:
    if p < 0.005 and not legal:
        return Text("· ", style="bright_black")
    return Text(f"{100 * p:.0f} ", style="green") if legal else Text(f"[{100 * p:.0f}]", style="red")


def _names(row: int, n: int) -> list[str]:
    return [f"{letter}{row + 1}" for letter in column_letters(n)]


def _sentences(told: Mapping[str, Any]) -> list[str]:
    wrong = told["wrong"]
    n = told["size"] ** 2
    reads = (
        f"misreads {len(wrong)} of {n} squares ([ ]): {', '.join(wrong)}" if wrong else f"reads all {n} squares right"
    )
    untouched = "Before the flip t" if told["flip"] else "T"
    return [
        f"Moves: {' '.join(told['moves'])}. Now {told['mover']} (● black, ○ white) moves; + is legal.",
        f"{untouched}he probe at {told['site']} {reads}.",
        f"{untouched}he model has {told['legal_mass']:.1%} of its probability on legal moves; others are in [ ].",
    ]


def _flip_sentences(flip: Mapping[str, Any]) -> list[str]:
    layers, square = flip["layers"], flip["square"]
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
    legal = f"legal now: {', '.join(flip['gained']) or 'none'}; no longer: {', '.join(flip['lost']) or 'none'}"
    wrong = f"misreads {', '.join(flip['wrong'])}" if flip["wrong"] else "reads all of it right"
    return [
        f"{square} was flipped in the model, after {where}, by {flip['scale']:g} along the probe; {legal}.",
        f"On the changed board {flip['legal_mass_before']:.1%} of the untouched model's probability is legal, and "
        f"{flip['legal_mass']:.1%} after the flip; the probe {wrong}.",
    ]
