"""The head of a feature bundle, `bundle.json`: what it must say, and whether the files beside it are as it says.

A bundle may come from anybody, cut short or altered: each is told with a sentence before anything is shown.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micrographia.core.errors import BadBundle
from micrographia.core.store import manifest
from micrographia.core.store.formats import json_bytes
from micrographia.core.store.ranges import RangeTable

FORMAT = 1
HEAD, INDEX, PAGES, TOKENS = "bundle.json", "index.parquet", "pages.parquet", "tokens.parquet"
NEEDED = ("files", "groups", "before", "window", "n_ctx", "n_latents", "n_tokens", INDEX, PAGES, TOKENS)
"""What a head tells, itself or below `about` and `files`."""
COUNTS = {"n_latents": 1, "n_tokens": 1, "n_ctx": 1, "window": 1, "before": 0}
"""The least of each."""
TEXTS = ("name", "model", "site", "weights")


def check_head(folder: Path, head: Mapping[str, Any]) -> None:
    """Raise BadBundle for a head that says what none can, and for files that are not as it says."""
    about = head.get("about")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else "something else"
        raise BadBundle(
            f"Asked for a feature bundle of format {FORMAT} in {folder}. Found {found}. Build it again, or open it "
            "with the version that wrote it."
        )
    files = head.get("files", {})
    if not manifest.is_list(files):
        raise _altered(folder, "files", files)
    known = {**head, **about, **files}
    if missing := [name for name in NEEDED if name not in known]:
        raise BadBundle(
            f"Asked for the feature bundle in {folder}, whose {HEAD} lacks {', '.join(missing)}. Copy or "
            "build it again."
        )
    if odd := [name for name, least in COUNTS.items() if not _counts(known[name], least)]:
        raise _altered(folder, odd[0], known[odd[0]])
    if odd := [name for name in TEXTS if not isinstance(known.get(name), str | None)]:
        raise _altered(folder, odd[0], known[odd[0]])
    groups = head["groups"]
    if not isinstance(groups, list) or not groups or not all(map(_is_group, groups)):
        raise _altered(folder, "groups", groups)
    if head["before"] >= head["window"]:
        raise _altered(folder, "before", head["before"])
    for name in (INDEX, PAGES, TOKENS):
        size = (folder / name).stat().st_size if (folder / name).is_file() else -1
        wanted = files[name]["bytes"]
        if size != wanted:
            what = "is missing" if size < 0 else f"has {size:,} bytes where {wanted:,} were written"
            raise BadBundle(f"Asked for the feature bundle in {folder}, where {name} {what}. Copy or build it again.")
    check_files(folder, files, INDEX, TOKENS)


def check_files(folder: Path, files: Mapping[str, Any], *names: str) -> None:
    """Raise BadBundle for files that have not their hash. Pages have checksums of their own, and are read by range."""
    for name in names:
        if problem := manifest.check(folder, name, files[name]):
            raise BadBundle(
                f"Asked for the feature bundle in {folder}, where {name} is {problem.what}. Copy or build it again."
            )


def check_pages(folder: Path, head: Mapping[str, Any], pages: RangeTable) -> None:
    """Raise BadBundle for a head of other pages, and for one that has not its own hash, which older bundles lack."""
    sizes, n = [size for _, size in head["groups"]], head["about"]["n_latents"]
    if len(pages) != n:
        raise BadBundle(
            f"Asked for the feature bundle in {folder}, which tells of {n} latents and holds the pages of "
            f"{len(pages)}. Copy or build it again."
        )
    if pages.width("ids") != sum(sizes) * head["window"]:
        raise _altered(folder, "window", head["window"])
    if "sha256" in head and sealed(head) != head:
        raise _altered(folder, "sha256", head["sha256"])


def sealed(head: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the hash of all else that it says."""
    rest = {name: value for name, value in head.items() if name != "sha256"}
    return {**rest, "sha256": manifest.entry(json_bytes(rest))["sha256"]}


def _altered(folder: Path, name: str, value: Any) -> BadBundle:
    return BadBundle(
        f"Asked for the feature bundle in {folder}, whose {HEAD} was altered: it says {value!r:.60} of {name}. Copy or "
        "build it again."
    )


def _counts(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_group(each: Any) -> bool:
    return isinstance(each, list) and len(each) == 2 and isinstance(each[0], str) and _counts(each[1], 0)
