"""`micrographia lab NAME`: any lab of the catalogue, with every field of its Config as a flag."""

import sys
from collections.abc import Sequence
from functools import partial

from micrographia.core.config import flat
from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.commands import entry
from micrographia.faces.cli.options import Deciding, only, read_run_arguments
from micrographia.labs.catalogue import LABS, Lab, lab, nearest


def main(words: Sequence[str], name: str = "", command: str = "") -> int:
    """Run the lab of this name, which has a command of its own; else the one that the first word names."""
    if not name and (not words or words[0] in ("-h", "--help")):
        listed = "\n".join(entry(each.name, each.question, 12) for each in LABS)
        print(f"usage: micrographia lab NAME [--preset paper|quick|tiny] [--field value ...]\n\nlabs\n{listed}")
        return 0 if words else 2
    name, *rest = [name, *words] if name else words
    chosen = lab(name)
    if chosen is None:
        near = ", ".join(nearest(name))
        print(f"micrographia lab: there is no lab {name!r}. There is: {near}.", file=sys.stderr)
        return 2
    return run_lab(chosen, rest, command=command or f"lab {name}")


def run_lab(chosen: Lab, words: Sequence[str], *, command: str) -> int:
    """Parse the lab's Config from the words, run it, and show what it found."""
    module, preset = chosen.config, chosen.preset(only(Deciding, words)[0].model)
    config, output = read_run_arguments(
        module.Config,
        words,
        presets=module.PRESETS,
        preset=preset,
        prog=f"micrographia {command}",
        description=chosen.question,
    )
    make, identity = partial(chosen.run, config), flat(config)
    return carry_out(make, output=output, lab=chosen.name, identity=identity, command=command, words=words)
