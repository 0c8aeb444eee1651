"""`micrographia lab NAME`: any lab of the catalogue, with every field of its Config as a flag."""

import sys
from collections.abc import Sequence
from pathlib import Path

from micrographia.core.claims import Run
from micrographia.core.config import flat
from micrographia.core.events import Watch
from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.options import Deciding, only, read_run_arguments
from micrographia.labs.catalogue import LABS, Lab, lab, nearest


def main(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        listed = "\n".join(f"  {each.name:<14}{each.question}" for each in LABS)
        print(f"usage: micrographia lab NAME [--preset paper|quick|tiny] [--field value ...]\n\nlabs\n{listed}")
        return 0 if words else 2
    chosen = lab(words[0])
    if chosen is None:
        near = ", ".join(nearest(words[0]))
        print(f"micrographia lab: there is no lab {words[0]!r}. There is: {near}.", file=sys.stderr)
        return 2
    first, _ = only(Deciding, words[1:])
    return run_lab(chosen, words[1:], command=f"lab {chosen.name}", preset=chosen.preset(first.model))


def run_lab(chosen: Lab, words: Sequence[str], *, command: str, preset: str) -> int:
    """Parse the lab's Config from the words, run it, and show what it found."""
    module = chosen.config
    config, output = read_run_arguments(
        module.Config,
        words,
        presets=module.PRESETS,
        preset=preset,
        prog=f"micrographia {command}",
        description=chosen.question,
    )
    from micrographia.core.store import new_run_path  # imports torch, which --help does without

    def make(out: Path, watch: Watch) -> Run:
        return chosen.run(config, out=out, resume=output.resume, watch=watch)

    out = (output.out or new_run_path(chosen.name, flat(config))).absolute()
    return carry_out(make, output=output, out=out, command=command, words=words)
