"""`micrographia verify DIR`: hold a Run's files against the hashes in its manifest.

Prints what it found, with --json too; the exit code is 1 where a file is not as it was written.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.options import Printed, parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(Printed):
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A Run's folder, or a unique beginning of its name."""


def main(words: Sequence[str]) -> int:
    arguments = parse(Arguments, words, prog="micrographia verify", description=__doc__ or "")
    from micrographia.core.store import verify

    path = _folder(arguments.run)
    problems = verify(path)
    if arguments.json:
        print_json({"run": path, "problems": [{"file": problem.file, "what": problem.what} for problem in problems]})
        return 1 if problems else 0
    console = Console()
    for problem in problems:
        console.print(f"{problem.file}: {problem.what}", markup=False, highlight=False, soft_wrap=True)
    if problems:
        console.print(f"{len(problems)} of this Run's files are not as they were written.")
        return 1
    console.print("Every file is as it was written.")
    return 0


def _folder(text: str) -> Path:
    """The folder itself where there is one: what is damaged should still be found."""
    from micrographia.core.store import find_run

    return Path(text).absolute() if Path(text).is_dir() else find_run(text)
