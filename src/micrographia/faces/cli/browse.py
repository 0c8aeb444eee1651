"""`micrographia browse RUN|DIR`: look at latents in the browser: find, read, test, steer and compare them.

RUN or DIR holds feature bundles, at any depth. Nothing leaves this machine, and nobody else can open the pages.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from micrographia.core.errors import BadConfig, MissingExtra
from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.options import Printed, parse
from micrographia.faces.cli.progress import shown

WEB = ("fastapi", "starlette", "pydantic", "uvicorn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(Printed):
    place: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|DIR")]
    """A Run, by its folder or a unique beginning of its name, or a folder with feature bundles below it."""
    model: str | None = None
    """The model that the latents are of, for texts of your own and steering: a name, folder or file."""
    export: Path | None = None
    """Write the pages as plain files into this folder instead, to be opened from disk."""
    port: int = 0
    """The port of the loopback interface; 0 is any that is free."""
    open: bool = True
    """Open the pages in the browser."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise BadConfig(f"--port is {self.port}. Ports go from 0 to {2**16 - 1}.")
        if self.export is not None and self.model is not None:
            raise BadConfig("--export writes files, for which no model can compute. Leave --model or --export out.")


def main(words: Sequence[str]) -> int:
    arguments = parse(Arguments, words, prog="micrographia browse", description=__doc__ or "")
    from micrographia.faces.browser.opening import open_bundles, place_of

    place = place_of(arguments.place)
    notes = place.with_name(f"{place.name}.notes.json")  # beside the folder: a Run's own files are all accounted for
    if arguments.export is not None:
        return _export(arguments, open_bundles(place), notes)
    return _serve(arguments, place, open_bundles(place), notes)


def _export(arguments: Arguments, bundles: dict[str, Any], notes: Path) -> int:
    from micrographia.faces.browser.export import export
    from micrographia.faces.browser.notes import Notes

    assert arguments.export is not None
    with shown() as watch:
        page = export(bundles, arguments.export.absolute(), notes=Notes(notes).all(), watch=watch)
    if arguments.json:
        print_json({"page": page, "bundles": list(bundles)})
    else:
        Console().print(str(page), soft_wrap=True, highlight=False, markup=False)
    return 0


def _serve(arguments: Arguments, place: Path, bundles: dict[str, Any], notes: Path) -> int:
    try:
        from micrographia.faces.browser.app import create_app
        from micrographia.faces.browser.serving import address, listening, serve
    except ModuleNotFoundError as error:
        if error.name not in WEB:
            raise
        raise MissingExtra(
            f"The browser needs {error.name}, which is not installed: pip install 'micrographia[web]'. Or write the "
            "pages as files, with --export DIR, which needs nothing."
        ) from error
    from micrographia.core.runtime import secret
    from micrographia.faces.browser.opening import load_live

    token = secret()
    with listening(arguments.port) as at:
        with shown() as watch:
            live = None if arguments.model is None else load_live(arguments.model, place, bundles, watch)
        app, url = create_app(bundles, notes=notes, live=live, token=token), address(at, token)
        _tell(arguments, url, bundles, live)
        try:
            serve(app, at, show=url if arguments.open else None)
        except KeyboardInterrupt:  # the usual way to end it
            return 0
    return 0


def _tell(arguments: Arguments, url: str, bundles: dict[str, Any], live: Any) -> None:
    if arguments.json:
        print_json({"address": url, "bundles": list(bundles), "live": None if live is None else sorted(live.names)})
    else:
        missing = [] if live is None else [name for name in bundles if name not in live.names]
        lines = [f"No weights were found for {', '.join(missing)}: their latents are not computed."] if missing else []
        if live is not None and not live.steers:
            lines.append("This model generates no text: its latents are not steered.")
        for line in (url, *lines, "Ctrl-C ends it."):
            Console().print(line, markup=False, highlight=False, soft_wrap=True)
    sys.stdout.flush()  # before it waits for hours
