"""A question to a model from the command line: the workbench's Config from flags, the Run, and what it says.

The commands of `QUESTIONS` differ in nothing but the Config. With `--resume` the question of the Run that is in
`--out` is the default, so that `--resume --out DIR` is enough.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.events import Watch
from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.options import Output, flag_value, parse, stored_config
from micrographia.labs.workbench.config import QUESTIONS, Question, read_question, stored


def ask(name: str, words: Sequence[str]) -> int:
    """Parse the question of this kind, ask it, and print what was found."""
    kind = QUESTIONS[name]
    fields = [("question", kind), ("output", Output, dataclasses.field(default_factory=Output))]
    arguments = dataclasses.make_dataclass("Arguments", fields, frozen=True, kw_only=True)
    there = _asked_before(kind, words)
    default = None if there is None else arguments(question=there)
    asked: Any = parse(
        arguments, words, prog=f"micrographia {name}", description=kind.__doc__ or "", default=default, flat=True
    )
    from micrographia.core.store import new_run_path  # imports torch, which --help does without
    from micrographia.labs.workbench.run import run

    def make(out: Path, watch: Watch) -> Run:
        return run(asked.question, out=out, resume=asked.output.resume, watch=watch)

    out = (asked.output.out or new_run_path("workbench", stored(asked.question))).absolute()
    return carry_out(make, output=asked.output, out=out, command=name, words=words)


def _asked_before(kind: type[Question], words: Sequence[str]) -> Question | None:
    """The question of the Run that is to be resumed, where there is one of this kind."""
    place = flag_value(words, "--out")
    config = stored_config(Path(place)) if place and "--resume" in words else {}
    if not config or QUESTIONS.get(str(config.get("question"))) is not kind:
        return None
    return read_question(config)
