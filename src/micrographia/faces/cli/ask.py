"""A question from the command line: its Config from flags, the Run, and its results.

The commands differ in nothing but the Config and the room that answers it. With `--resume` the question of the Run that
is in `--out` is the default, so that `--resume --out DIR` is enough.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from micrographia.core.questions import read_question, stored
from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.options import Destination, Folder, only, parse, stored_config
from micrographia.labs.sae.config import ASKED
from micrographia.labs.workbench.config import QUESTIONS


class Room(NamedTuple):
    """Who answers: the name of its Runs and package, and its questions."""

    lab: str
    table: Mapping[str, type]

    @property
    def run(self) -> Callable[..., Any]:
        """Imports torch, which --help does without."""
        return import_module(f"micrographia.labs.{self.lab}.run").run


WORKBENCH, SAE = Room("workbench", QUESTIONS), Room("sae", ASKED)


def main(words: Sequence[str], name: str) -> int:
    """Ask the workbench a question of this kind, and print what was found."""
    return ask(WORKBENCH, name, name, words)


def sae(words: Sequence[str], name: str) -> int:
    """Train or evaluate dictionaries. The dictionary may be named first, without a flag."""
    words = list(words)
    if name == "eval" and words and not words[0].startswith("-"):
        words = ["--dictionary", *words]
    return ask(SAE, name, f"sae {name}", words)


def ask(room: Room, name: str, command: str, words: Sequence[str]) -> int:
    """Parse the question, let the room answer it, and print."""
    kind = room.table[name]
    fields = [("question", kind), ("output", Destination, dataclasses.field(default_factory=Destination))]
    arguments = dataclasses.make_dataclass("Arguments", fields, frozen=True, kw_only=True)
    there = _stored_question(room, kind, words)
    default = None if there is None else arguments(question=there)
    description = kind.__doc__ or ""
    found: Any = parse(arguments, words, prog=f"micrographia {command}", description=description, default=default)
    make, identity = partial(room.run, found.question), stored(found.question, room.table)
    return carry_out(make, output=found.output, lab=room.lab, identity=identity, command=command, words=words)


def _stored_question(room: Room, kind: type, words: Sequence[str]) -> Any:
    """The question of the Run that is to be resumed, where there is one of this kind."""
    folder, _ = only(Folder, words)
    config = stored_config(folder.out) if folder.out and folder.resume else {}
    if not config or room.table.get(str(config.get("question"))) is not kind:
        return None
    return read_question(config, room.table)
