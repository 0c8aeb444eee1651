"""`micrographia grok lottery`: which frequencies will win, told from the weights up to a step."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from micrographia.core.claims import Run
from micrographia.core.events import Watch
from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.options import Output, parse
from micrographia.labs.grokking.lottery.config import LotteryConfig

COMMAND = "grok lottery"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    workers: int | None = None
    """Networks at a time; by default one on each core."""
    output: Annotated[Output, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Output)
    lottery: Annotated[LotteryConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=LotteryConfig)


def main(words: Sequence[str]) -> int:
    asked = parse(Arguments, words, prog=f"micrographia {COMMAND}", description=__doc__ or "")
    from micrographia.core.store import new_run_path
    from micrographia.labs.grokking.lottery.run import lottery

    def make(out: Path, watch: Watch) -> Run:
        return lottery(asked.lottery, out=out, resume=asked.output.resume, watch=watch, workers=asked.workers)

    out = (asked.output.out or new_run_path("grokking", asked.lottery)).absolute()
    return carry_out(make, output=asked.output, out=out, command=COMMAND, words=words)
