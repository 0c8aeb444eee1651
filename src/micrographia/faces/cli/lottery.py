"""`micrographia grok lottery`: which frequencies will win, told from the weights up to a step.

Every field of the problem is a flag too, such as --base.modulus 113: they are those of `micrographia grok --help`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from micrographia.core.claims import Run
from micrographia.core.events import Watch
from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.options import Output, asks_for_help, parse
from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.lottery.config import LotteryConfig, past_grokking

COMMAND = "grok lottery"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    lottery: Annotated[LotteryConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=LotteryConfig)
    workers: int | None = None
    """Networks at a time; by default one on each core."""
    output: tyro.conf.OmitArgPrefixes[Output] = dataclasses.field(default_factory=Output)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownConfig(LotteryConfig):
    """The choices without the thirty fields of the problem, for --help."""

    base: Annotated[Config, tyro.conf.Suppress] = dataclasses.field(default_factory=past_grokking)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown(Arguments):
    lottery: Annotated[ShownConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=ShownConfig)


def main(words: Sequence[str]) -> int:
    kind = Shown if asks_for_help(words) else Arguments
    asked = parse(kind, words, prog=f"micrographia {COMMAND}", description=__doc__ or "")
    from micrographia.core.store import new_run_path
    from micrographia.labs.grokking.lottery.run import lottery

    def make(out: Path, watch: Watch) -> Run:
        return lottery(asked.lottery, out=out, resume=asked.output.resume, watch=watch, workers=asked.workers)

    out = (asked.output.out or new_run_path("grokking", asked.lottery)).absolute()
    return carry_out(make, output=asked.output, out=out, command=COMMAND, words=words)
