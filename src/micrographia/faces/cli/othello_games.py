"""`micrographia othello games FILE ...`: read files of Othello games and check them against the rules.

WTHOR (.wtb), GGF, tagged moves in the manner of PGN, and lines of moves. A damaged game does not keep the others from
being read. Ends with 1 only if no game could be read.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from micrographia.core.errors import BadConfig, UserError
from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.options import Printed, parse
from micrographia.faces.cli.progress import shown

if TYPE_CHECKING:
    from micrographia.labs.othello.records.check import FileCheck

ROWS = {
    "games": "games", "complete": "complete", "unfinished": "unfinished (somebody could still move)",
    "illegal": "with an illegal move", "skipped": "not read", "own_start": "from a board of their own",
    "with_pass": "with a pass", "plies": "moves", "off_parity": "moves not by whom parity names",
    "turns_differ": "written turns that differ", "compared": "scores compared", "scores_differ": "scores that differ",
    "decided_otherwise": "scores not decided on the board",
}  # fmt: skip
FILES = {
    "file": "file", "format": "format", "games": "games", "complete": "complete", "unfinished": "unfinished",
    "illegal": "illegal", "skipped": "not read", "scores_differ": "scores differ",
}  # fmt: skip

LEGEND = "On the boards X is Black, O is White, + is where the player to move may play."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(Printed):
    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE|DIR")]
    """Files of games, of any of these formats, or folders of them; one or more."""
    show: int = 5
    """Print so many problems of each kind and file; --json has all."""

    def __post_init__(self) -> None:
        if not self.files:
            raise BadConfig("No file was given. Give one or more files of games.")
        if self.show < 0:
            raise BadConfig(f"--show is {self.show}. Give 0 or more.")


def main(words: Sequence[str]) -> int:
    asked = parse(Arguments, words, prog="micrographia othello games", description=__doc__ or "")
    from micrographia.labs.othello.records.check import check_files, files_of, total

    with shown() as watch:
        checks = check_files(files_of(asked.files), watch)
    if not any(each.counts.games for each in checks):
        raise UserError("\n".join(each.why_empty for each in checks))
    if asked.json:
        print_json({"files": [each.as_json() for each in checks], "total": total(checks)})
    else:
        _print(Console(), checks, total(checks), asked.show)
    return 0


def _print(console: Console, checks: Sequence["FileCheck"], summary: dict[str, Any], show: int) -> None:
    _tables(console, checks, summary)
    lines = [line for each in checks for line in _lines(each, show)]
    if any("\n" in line for line in lines):
        lines.append(LEGEND)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(check: "FileCheck", show: int) -> Iterator[str]:
    """What a file says of itself, and its problems: the first few of each kind."""
    if check.error:
        yield check.error
        return
    yield f"{check.path}: {', '.join((check.format, *check.about))}"
    kinds = dict.fromkeys(problem.kind for problem in check.problems)
    for problems in ([each for each in check.problems if each.kind == kind] for kind in kinds):
        yield from (problem.told() for problem in problems[:show])
        if more := len(problems[show:]):
            yield f"and {more:,} more of this kind; --json has all"


def _tables(console: Console, checks: Sequence["FileCheck"], summary: dict[str, Any]) -> None:
    from micrographia.core.figures import table
    from micrographia.faces.tables import table_of
    from micrographia.faces.terminal import print_table

    if len(checks) > 1:
        rows = [{"file": each.path.name, **each.as_json()} for each in checks if not each.error]
        print_table(console, table_of(table("files", "Files", rows, columns=FILES).data))
    rows = [[title, _cell(summary, key)] for key, title in ROWS.items()]
    print_table(console, table_of(table("games", "Games", rows, columns=["all files", "found"], texts=["0"]).data))


def _cell(summary: Mapping[str, Any], key: str) -> str:
    share = summary.get(f"{key}_share")
    return f"{summary[key]:,}" if share is None else f"{summary[key]:,} ({share:.2%})"
