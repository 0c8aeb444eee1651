"""A question to a model from the command line: the workbench's Config from flags, the Run, and its results.

The commands of `QUESTIONS` differ in nothing but the Config. With `--resume` the question of the Run that is in
`--out` is the default, so that `--resume --out DIR` is enough.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.options import Destination, Folder, only, parse, stored_config
from micrographia.labs.workbench.config import QUESTIONS, Question, read_question, stored


def main(words: Sequence[str], name: str) -> int:
    """Parse the question of this kind, ask it, and print what was found."""
    kind = QUESTIONS[name]
    fields = [("question", kind), ("output", Destination, dataclasses.field(default_factory=Destination))]
    arguments = dataclasses.make_dataclass("Arguments", fields, frozen=True, kw_only=True)
    there = _stored_question(kind, words)
    default = None if there is None else arguments(question=there)
    found: Any = parse(arguments, words, prog=f"micrographia {name}", description=kind.__doc__ or "", default=default)
    from micrographia.labs.workbench.run import run  # imports torch, which --help does without

    make, identity = partial(run, found.question), stored(found.question)
    return carry_out(make, output=found.output, lab="workbench", identity=identity, command=name, words=words)


def _stored_question(kind: type[Question], words: Sequence[str]) -> Question | None:
    """The question of the Run that is to be resumed, where there is one of this kind."""
    folder, _ = only(Folder, words)
    config = stored_config(folder.out) if folder.out and folder.resume else {}
    if not config or QUESTIONS.get(str(config.get("question"))) is not kind:
        return None
    return read_question(config)
