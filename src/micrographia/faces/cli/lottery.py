"""`micrographia grok lottery`: which frequencies will win, predicted from the weights up to a step.

Every field of the problem is a flag too, such as --base.modulus 113: they are those of `micrographia grok --help`.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.options import Destination, parse
from micrographia.labs.grokking.lottery.config import LotteryConfig

COMMAND = "grok lottery"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    lottery: LotteryConfig = dataclasses.field(default_factory=LotteryConfig)
    workers: int | None = None
    """Networks at a time; by default one on each core."""
    output: Destination = dataclasses.field(default_factory=Destination)


def main(words: Sequence[str]) -> int:
    found = parse(Arguments, words, prog=f"micrographia {COMMAND}", description=__doc__ or "")
    from micrographia.labs.grokking.lottery.run import lottery

    make = partial(lottery, found.lottery, workers=found.workers)
    return carry_out(make, output=found.output, lab="grokking", identity=found.lottery, command=COMMAND, words=words)
