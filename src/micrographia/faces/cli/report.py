"""`micrographia report RUN`: draw a Run's page anew, export its pictures, or show it in the terminal."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from micrographia.core.claims import Run
from micrographia.core.errors import BadConfig
from micrographia.core.events import Progress
from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.options import Printed, parse
from micrographia.faces.cli.progress import shown
from micrographia.faces.report.write import write_report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(Printed):
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A Run's folder, or a unique beginning of its name."""
    png: Path | None = None
    """Write every picture as PNG into this folder (extra `png`, and Chrome or Chromium)."""
    svg: Path | None = None
    """The same as SVG."""
    terminal: bool = False
    """Show all sections and figures in the terminal."""

    def __post_init__(self) -> None:
        if self.json and self.terminal:
            raise BadConfig("--json prints one object and nothing else, so --terminal shows nothing. Leave one out.")


def main(words: Sequence[str]) -> int:
    arguments = parse(Arguments, words, prog="micrographia report", description=__doc__ or "")
    from micrographia.core.store import find_run, load_run

    run = load_run(find_run(arguments.run))
    page = write_report(run)
    pictures = [path for kind in ("png", "svg") for path in _export(run, getattr(arguments, kind), kind)]
    if arguments.json:
        print_json({"run": run.path, "report": page, "pictures": pictures})
        return 0
    console = Console()
    if arguments.terminal:
        from micrographia.faces.terminal import print_run

        print_run(console, run, pictures=True)
    for path in [page, *pictures]:
        console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    return 0


def _export(run: Run, folder: Path | None, kind: str) -> list[Path]:
    """Every picture of the Run as a file of this kind in the folder."""
    if folder is None:
        return []
    from micrographia.core.store import write_bytes
    from micrographia.faces.figures.export import drawable, pictures

    total, paths = len(drawable(run.figures)), []
    with shown() as watch:
        for name, data in pictures(run.figures, kind):
            paths.append(folder.absolute() / f"{name}.{kind}")
            write_bytes(paths[-1], data)
            watch(Progress(f"draw as {kind.upper()}", len(paths), total, "picture"))
    return paths
