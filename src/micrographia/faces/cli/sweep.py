"""`micrographia grok sweep`: many networks, varied along the axes that the flags or a TOML file name.

An axis without a value keeps the base's. Every field of the base is a flag too, such as --base.lr 0.001: they are those
of `micrographia grok --help`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from micrographia.core.claims import Run
from micrographia.core.errors import BadConfig
from micrographia.core.events import Watch
from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.options import Output, asks_for_help, flag_value, parse
from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.sweep.config import BASES, SweepConfig, read_plan, small

COMMAND = "grok sweep"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    preset: Literal["small", "paper", "quick", "tiny"] = "small"
    """The base that all members share."""
    plan: Path | None = None
    """A TOML file with the axes, and `preset` or `[base]` for the base; flags change what it says."""
    sweep: Annotated[SweepConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=SweepConfig)
    workers: int | None = None
    """Networks at a time; by default one on each core."""
    output: tyro.conf.OmitArgPrefixes[Output] = dataclasses.field(default_factory=Output)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownConfig(SweepConfig):
    """The axes without the thirty fields of the base, for --help."""

    base: Annotated[Config, tyro.conf.Suppress] = dataclasses.field(default_factory=small)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown(Arguments):
    sweep: Annotated[ShownConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=ShownConfig)


def main(words: Sequence[str]) -> int:
    said, prog = __doc__ or "", f"micrographia {COMMAND}"
    if asks_for_help(words):
        parse(Shown, words, prog=prog, description=said)
    asked = parse(Arguments, words, prog=prog, description=said, default=Arguments(sweep=_default_plan(words)))
    from micrographia.core.store import new_run_path
    from micrographia.labs.grokking.sweep.run import sweep

    def make(out: Path, watch: Watch) -> Run:
        return sweep(asked.sweep, out=out, resume=asked.output.resume, watch=watch, workers=asked.workers)

    out = (asked.output.out or new_run_path("grokking", asked.sweep)).absolute()
    return carry_out(make, output=asked.output, out=out, command=COMMAND, words=words)


def _default_plan(words: Sequence[str]) -> SweepConfig:
    """What holds where no flag says otherwise: the plan's file, or the standard axes around the preset."""
    file, preset = flag_value(words, "--plan"), flag_value(words, "--preset")
    if file is not None and preset is not None:
        raise BadConfig("Both --plan and --preset were given; a plan names its own preset. Leave one out.")
    if file is not None:
        return read_plan(Path(file))
    return SweepConfig(base=BASES[preset if preset in BASES else "small"]())  # of an unknown one tyro will complain
