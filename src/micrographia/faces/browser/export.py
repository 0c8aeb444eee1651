"""The browser's pages as plain files that are read from disk: no server, and no request to anywhere.

A page from a file may neither fetch nor load modules. So the data are scripts that hand themselves over, a group of
latents each, loaded when they are looked at; and the modules become one script, in the order in which they need one
another, each in a function of its own. Nothing else is changed.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

from micrographia.core.errors import RunExists
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.store.atomic import new_folder, write_chunks
from micrographia.faces.browser.sources import Browsed, check_names, static_files

CHUNK = 16
"""Latents in a file of data."""
MOST_PAIRS = 30
"""Of bundles that are compared, in either direction."""
SCRIPT = "browser.js"
OWN = ("style.css", SCRIPT, "index.html")
"""The files beside the data."""
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
GIVE = """\
"use strict";
window.micrographia = { given: new Map(), waiting: new Map(), give(key, value) { this.given.set(key, value); } };
"""


def export(
    bundles: Mapping[str, Browsed],
    folder: Path,
    *,
    notes: Mapping[str, Mapping[str, str]] | None = None,
    watch: Watch = silent,
) -> Path:
    """Write the pages of these bundles into a folder, whole or not at all, and give the page to open.

    Every latent is read once; of more than 30 pairs of bundles the first are compared. An earlier export there gives
    way once this one is whole. Raises RunExists for a file and for a folder that holds anything else, CannotWrite.
    """
    check_names(bundles)
    if folder.exists() and not (folder.is_dir() and _is_ours(folder)):
        what = "holds other files" if folder.is_dir() else "is a file"
        raise RunExists(f"Asked to export into {folder}, which {what}. Give a new folder.")
    with new_folder(folder.resolve(), "--export", over=True) as draft:
        _write(bundles, draft, notes or {}, watch)
    return folder / "index.html"


def _is_ours(folder: Path) -> bool:
    """Whether all that lies there is of an earlier export."""
    found = {each.relative_to(folder) for each in folder.rglob("*") if not each.is_dir()}
    data = {each for each in found if each.parts[0] == "data" and each.suffix == ".js"}
    script = folder / SCRIPT
    return not found or (found - data == set(map(Path, OWN)) and script.read_bytes().startswith(GIVE.encode()))


def _write(bundles: Mapping[str, Browsed], folder: Path, notes: Mapping[str, Mapping[str, str]], watch: Watch) -> None:
    total = sum(each.about["n_latents"] for each in bundles.values())
    told = -1
    for done, (key, value) in _data(bundles, notes):
        write_chunks(folder / "data" / f"{key}.js", [handed_over(key, value)])
        if done != told:
            watch(Progress("export", done, total, "latent"))
            told = done
    files = static_files()
    pages = files["style.css"], (GIVE + one_script(files)).encode(), _page(files["index.html"].decode()).encode()
    for name, content in zip(OWN, pages):
        write_chunks(folder / name, [content])


def _data(
    bundles: Mapping[str, Browsed], notes: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[int, tuple[str, Any]]]:
    """How many latents are done, and the next file's key and content."""
    described = {name: each.about for name, each in bundles.items()}
    yield 0, ("about", {"bundles": described, "live": None, "chunk": CHUNK})
    yield 0, ("notes", notes)
    done = 0
    for name, each in bundles.items():
        yield done, (f"{name}/index", each.index())
        yield done, (f"{name}/tokens", each.tokens())
        n = each.about["n_latents"]
        for first in range(0, n, CHUNK):
            latents = range(first, min(first + CHUNK, n))
            group = dict(zip(latents, each.pages(latents)))
            done += len(group)
            yield done, (f"{name}/latents-{first // CHUNK:05d}", group)
    for one, other in list(permutations(bundles, 2))[:MOST_PAIRS]:
        yield done, (f"compare/{one}--{other}", bundles[one].compare(bundles[other]))


def handed_over(key: str, value: Any) -> bytes:
    """A script that hands over a value, in ASCII, so that no encoding can change it."""
    content = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return f"micrographia.give({json.dumps(key)},{content});\n".encode()


def _page(text: str) -> str:
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    changes = {
        '<meta charset="utf-8">': f'<meta charset="utf-8">\n{policy}',
        "static/style.css": "style.css",
        '<script type="module" src="static/app.js">': f'<script defer src="{SCRIPT}">',
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


IMPORT = re.compile(r'^import \{([^}]+)\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async function|function|const|class) (\w+))", re.MULTILINE)


def one_script(files: Mapping[str, bytes], first: str = "app.js") -> str:
    """These modules as one script. They may import names from one another, in no circle, and export declarations."""
    written: dict[str, str] = {}

    def add(name: str, above: tuple[str, ...] = ()) -> None:
        assert name not in above, f"modules import in a circle: {' '.join([*above, name])}"
        if name in written:
            return
        text = files[name].decode()
        for _, inner in IMPORT.findall(text):
            add(inner, (*above, name))
        names = EXPORT.findall(text)
        body = EXPORT.sub("", IMPORT.sub(lambda found: f"const {{{found[1]}}} = {_variable(found[2])};\n", text))
        assert not re.search(r"^(import|export)\b", body, re.MULTILINE), f"{name}: a form of import that is not known"
        written[name] = f"const {_variable(name)} = (() => {{\n{body}return {{ {', '.join(names)} }};\n}})();\n"

    add(first)
    return "".join(written.values())


def _variable(name: str) -> str:
    return "module_" + re.sub(r"\W", "_", name)
