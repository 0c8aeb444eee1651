"""The scripts that draw widgets: each lives with its lab, and is carried in the page once.

A widget names its script as "package:file.js". The script registers a function, `micrographia.widgets[asset] = fn`,
which the page calls as `fn(element, data, tools)`: an empty element, the Figure's data with arrays of more than one
axis as {values, shape}, and Plotly, theme(), onTheme(callback), number(x). Only packages of this house are read.
"""

import re
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from micrographia.core.figures import Figure

HOUSE = ("micrographia.",)


class Scripts(NamedTuple):
    """By asset: the scripts that the page carries, and why the others are missing."""

    texts: dict[str, str]
    missing: dict[str, str]


def read_scripts(figures: Sequence[Figure], packages: Sequence[str] = HOUSE) -> Scripts:
    """The scripts of all widgets among these Figures, each once, from packages whose names begin with one of these."""
    found = Scripts({}, {})
    for asset in dict.fromkeys(str(each.data["asset"]) for each in figures if each.kind == "widget"):
        package, _, file = asset.partition(":")
        if not re.fullmatch(r"\w+(\.\w+)*", package) or not package.startswith(tuple(packages)):
            found.missing[asset] = f"its script {asset!r} is not in a package that begins with {' or '.join(packages)}"
        elif not re.fullmatch(r"[\w-]+\.js", file):
            found.missing[asset] = f"its script {asset!r} is no .js file"
        elif (text := _text(package, file)) is None:
            found.missing[asset] = f"its script {asset!r} is not in this version of micrographia"
        elif re.search(r"</script|<!--", text, re.IGNORECASE):
            found.missing[asset] = f"its script {asset!r} holds a tag that would end it within a page"
        else:
            found.texts[asset] = text
    return found


def _text(package: str, file: str) -> str | None:
    try:
        return (resources.files(package) / file).read_text(encoding="utf-8")
    except (OSError, ImportError, TypeError, UnicodeDecodeError):
        return None
