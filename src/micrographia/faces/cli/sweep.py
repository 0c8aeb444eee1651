"""`micrographia grok sweep`: many networks, varied along the axes that the flags or a TOML file name.

Without an axis the standard ones are varied; where one is named, those that are named alone, and all else keeps the
base's value. Every field of the base is a flag too, such as --base.lr 0.001: they are those of
`micrographia grok --help`.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from micrographia.core.errors import BadConfig
from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.options import Deciding, Destination, only, parse
from micrographia.labs.grokking.sweep.config import AXES, BASES, SweepConfig, read_plan

COMMAND = "grok sweep"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    preset: Literal["small", "paper", "quick", "tiny"] = "small"
    """The base that all members share."""
    plan: Path | None = None
    """A TOML file with the axes, and `preset` or `[base]` for the base; flags change its values."""
    sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
    workers: int | None = None
    """Networks at a time; by default one on each core."""
    output: Destination = dataclasses.field(default_factory=Destination)


def main(words: Sequence[str]) -> int:
    default = Arguments(sweep=_default_plan(words))
    found = parse(Arguments, words, prog=f"micrographia {COMMAND}", description=__doc__ or "", default=default)
    from micrographia.labs.grokking.sweep.run import sweep

    make = partial(sweep, found.sweep, workers=found.workers)
    return carry_out(make, output=found.output, lab="grokking", identity=found.sweep, command=COMMAND, words=words)


def _default_plan(words: Sequence[str]) -> SweepConfig:
    """The defaults of all flags: the plan's file, or the standard axes around the preset where no axis is named."""
    first, _ = only(Deciding, words)
    if first.plan is not None and first.preset is not None:
        raise BadConfig("Both --plan and --preset were given; a plan names its own preset. Leave one out.")
    if first.plan is not None:
        return read_plan(first.plan)
    flags = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    axes = dict.fromkeys(AXES.fields, ()) if flags & AXES.fields.keys() else {}
    base = BASES.get(first.preset or "small", BASES["small"])()  # tyro refuses an unknown one
    return SweepConfig(base=base, **axes)
