"""`micrographia claims`: every published claim beside what was measured, from the newest Runs.

For each claim, the newest finished Run in which it was judged; a claim that no Run has judged is *not run*.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from micrographia.core.claims import Claim, Judged, load_claims
from micrographia.core.errors import RunNotFound
from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.options import Printed, parse
from micrographia.labs.catalogue import LABS, Lab


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(Printed):
    root: Path | None = None
    """Look for Runs here; by default ./runs or $MICROGRAPHIA_RUNS."""
    verbose: bool = False
    """Print every claim with what was published and measured, not only those that fail."""


def main(words: Sequence[str]) -> int:
    arguments = parse(Arguments, words, prog="micrographia claims", description=__doc__ or "")
    if arguments.root is not None and not arguments.root.is_dir():
        raise RunNotFound(f"Asked for the Runs in {arguments.root}: there is no such folder. Check --root.")
    found = {lab.name: newest(lab, arguments.root) for lab in LABS}
    if arguments.json:
        print_json({"claims": [_record(name, *row) for name, rows in found.items() for row in rows]})
        return 0
    _print(Console(), found, arguments.verbose)
    return 0


def _print(console: Console, found: Mapping[str, Sequence[tuple[Judged, Path | None]]], verbose: bool) -> None:
    from micrographia.faces.terminal import print_claims, print_tally

    for lab in LABS:
        rows = found[lab.name]
        runs = dict.fromkeys(path for _, path in rows if path is not None)
        if not runs and not verbose:
            console.print(f"{lab.name}: {len(rows)} claims, no Run that judges them", highlight=False)
            continue
        console.print(f"\n[bold]{lab.name}[/bold]  {lab.question}", highlight=False)
        (print_claims if verbose else print_tally)(console, [judged for judged, _ in rows])
        for path in runs:
            console.print(f"from {path}", style="bright_black", highlight=False, soft_wrap=True)
    if not verbose:
        console.print("Every claim with its figures: --verbose", style="bright_black", highlight=False)


def newest(lab: Lab, root: Path | None) -> list[tuple[Judged, Path | None]]:
    """Each of the lab's claims with the newest Run that judged it, in the order of `claims.toml`."""
    judged: dict[str, tuple[Judged, Path | None]] = {}
    for path, each in _judged_claims(lab, root):
        if each.verdict != "not run":
            judged.setdefault(each.claim.id, (each, path))
    stated = stated_claims(lab)
    return [judged.get(claim.id, (Judged(claim=claim, measured=None, verdict="not run"), None)) for claim in stated]


def stated_claims(lab: Lab) -> tuple[Claim, ...]:
    """What the lab's papers say."""
    with resources.as_file(resources.files(lab.package) / "claims.toml") as path:
        return load_claims(path)


def _judged_claims(lab: Lab, root: Path | None) -> Iterator[tuple[Path, Judged]]:
    from micrographia.core.store import list_runs
    from micrographia.core.store.records import CLAIMS, read_claims
    from micrographia.core.store.verify import read_run

    for path in list_runs(root):
        if path.parent.name == lab.name or read_run(path)["lab"] == lab.name:
            for judged in read_claims(path) if (path / CLAIMS).exists() else ():
                yield path, judged


def _record(lab: str, judged: Judged, path: Path | None) -> dict[str, Any]:
    return {"lab": lab, **judged.as_json(), "run": path}
