"""What the browser shows: what it reads of a bundle, and the pages' own files."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from micrographia.core.errors import UserError

NAME = re.compile(r"[\w.-]+")
"""What a bundle is called in addresses and in the names of files."""

KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
"""Of the pages' own files."""


@cache
def static_files() -> dict[str, bytes]:
    """The pages' own files by name."""
    folder = resources.files("micrographia.faces.browser") / "static"
    return {each.name: each.read_bytes() for each in folder.iterdir() if Path(each.name).suffix in KINDS}


@runtime_checkable
class Browsed(Protocol):
    """What the browser reads of a bundle; `methods.dictionaries.features.Bundle` is one."""

    @property
    def about(self) -> dict[str, Any]: ...

    def index(self) -> dict[str, list[Any]]: ...

    def page(self, latent: int) -> dict[str, Any]: ...

    def pages(self, latents: Sequence[int]) -> list[dict[str, Any]]: ...

    def by_token(self, text: str) -> list[dict[str, Any]]: ...

    def tokens(self) -> list[dict[str, Any]]: ...

    def compare(self, other: Any) -> dict[str, Any]: ...


def check_names(bundles: Mapping[str, Browsed]) -> None:
    """Raise UserError for no bundles, and for a name that cannot stand in an address."""
    if not bundles:
        raise UserError("Asked for a browser of no bundle at all. Give at least one.")
    if odd := [name for name in bundles if not NAME.fullmatch(name) or name.strip(".") == ""]:
        raise UserError(
            f"Asked to show a bundle under the name {odd[0]!r}. Use letters, digits, dot, dash and _ alone."
        )
