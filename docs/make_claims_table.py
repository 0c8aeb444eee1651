"""Write the tables of claims from the Runs stored under `docs/results/`, so that nobody types a measured number.

`docs/claims.md` has a table a lab, with a column each for the presets at which it is judged, and one for the null.
README has the few of `HEADLINES`. A stored Run says in its `run.json` of which lab and preset it is; of several the
first by name that judged a claim is shown. What no stored Run has judged, with the bound of today, is "not run".
Usage: uv run python docs/make_claims_table.py [--check]
"""

import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from micrographia.core.claims import Claim as Stated
from micrographia.core.claims import Judged
from micrographia.faces import words
from micrographia.labs.catalogue import LABS, Lab

ROOT = Path(__file__).parents[1]
README, PAGE, RESULTS = ROOT / "README.md", ROOT / "docs" / "claims.md", ROOT / "docs" / "results"
BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
HEADLINES = (  # (lab, claim, preset): what README shows; those that fail among them
    ("grokking", "generalises", "paper"),
    ("grokking", "key-frequencies-seed-0", "paper"),
    ("grokking", "phases-in-order", "quick"),
    ("grokking", "algorithm-beats-network", "quick"),
    ("grokking", "null-space", "paper"),
    ("ioi", "heads-before-stream", "quick"),
    ("ioi", "small-circuit", "quick"),
    ("dictionary", "one-encoder-direction", "quick"),
    ("othello", "mover-is-linear", "quick"),
    ("othello", "flip-follows", "quick"),
    ("facts", "value-before-relation", "quick"),
    ("reversal", "real-reverse", "real"),
)
PRESETS = ("quick", "paper", "real")
ALWAYS = 2
"""So many of them have a column in every table."""
NOT_RUN = "not run"

Claim = Mapping[str, Any]


def tables(results: Path) -> str:
    """Every lab's table under its name and question."""
    made = ((lab, table(stated_claims(lab), results, lab.name)) for lab in LABS)
    return "\n\n".join(f"**{lab.name}**: {lab.question}\n\n{rows}" for lab, rows in made)


def table(stated: list[Claim], results: Path, lab: str) -> str:
    """A lab's table in Markdown: a row a claim, in the order of `claims.toml`."""
    asked = {preset for claim in stated for preset in claim.get("presets", ())}
    presets = [preset for i, preset in enumerate(PRESETS) if i < ALWAYS or preset in asked]
    judged = {preset: stored(results, lab, preset) for preset in presets}
    head = ["claim", "source", "published", *(f"`{preset}`: measured" for preset in presets), "null or baseline"]
    rows = [head, ["---"] * len(head)]
    for claim in stated:
        own = {preset: as_stated(claim, judged[preset].get(claim["id"])) for preset in presets}
        found = [found_at(claim, own[preset], preset) for preset in presets]
        rows.append([claim["text"], claim["source"], words.published(claim), *found, null_of(claim, own)])
    return "\n".join("| " + " | ".join(in_cell(cell) for cell in row) + " |" for row in rows)


def headlines(results: Path) -> str:
    """README's table: the claims of `HEADLINES`, each at one preset."""
    rows = [["claim", "published", "measured", "null or baseline", ""], ["---"] * 5]
    for name, claim_id, preset in HEADLINES:
        claim = next(each for lab in LABS if lab.name == name for each in stated_claims(lab) if each["id"] == claim_id)
        own = as_stated(claim, stored(results, name, preset).get(claim_id))
        null = words.NOTHING if own is None else words.format_value(own.get("null_measured"))
        measured, verdict = (words.NOTHING, NOT_RUN) if own is None else (words.measured(own), own["verdict"])
        rows.append([claim["text"], words.published(claim), measured, null, f"*{verdict}*"])
    return "\n".join("| " + " | ".join(in_cell(cell) for cell in row) + " |" for row in rows)


def stored(results: Path, lab: str, preset: str) -> dict[str, Claim]:
    """Claim id -> the judged claim, of the first stored Run of this lab and preset (or a shortened one) that did so."""
    found: dict[str, Claim] = {}
    for path in sorted(results.glob("*/run.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["lab"] != lab or not run["preset"].startswith(preset):
            continue
        for claim in json.loads(path.with_name("claims.json").read_text(encoding="utf-8"))["claims"]:
            if claim["verdict"] != NOT_RUN:
                found.setdefault(claim["id"], claim)
    return found


def stated_claims(lab: Lab) -> list[Claim]:
    """The claims as published, with what `claims.toml` leaves to its defaults."""
    defaults = {"tolerance": 0.0, "relative": False}
    text = (files(lab.package) / "claims.toml").read_text(encoding="utf-8")
    return [{**defaults, **claim} for claim in tomllib.loads(text)["claim"]]


def with_table(text: str, made: str) -> str:
    """A page with the table between its markers. Raises SystemExit when a marker is missing."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise SystemExit(f"The page should hold {BEGIN} and {END}, in this order. Put them where the table belongs.")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


STATEMENT = ("published", "kind", "tolerance", "relative")
"""What a verdict depends on; a claim that is only worded anew keeps it."""


def as_stated(claim: Claim, judged: Claim | None) -> Claim | None:
    """What was judged, unless the claim had another bound then."""
    same = judged is not None and all(judged[name] == claim[name] for name in STATEMENT)
    return judged if same else None


def found_at(claim: Claim, judged: Claim | None, preset: str) -> str:
    if judged is None:
        return NOT_RUN if preset in claim.get("presets", ()) else words.NOTHING
    undecided = ", no difference" if _undecided(judged) else ""
    return f"{words.measured(judged)}: *{judged['verdict']}*{undecided}"


def _undecided(judged: Claim) -> bool:
    """Whether networks lie on both sides of the bound."""
    fields = {name: judged[name] for name in ("id", "source", "text", *STATEMENT)}
    return Judged(claim=Stated(**fields), measured=judged["measured"], verdict=judged["verdict"]).undecided


def null_of(claim: Claim, judged: Mapping[str, Claim | None]) -> str:
    """What a claim is held against, and its figure at each preset that judged it."""
    figures = {preset: one.get("null_measured") for preset, one in judged.items() if one is not None}
    known = [f"{words.format_value(figure)} (`{preset}`)" for preset, figure in figures.items() if figure is not None]
    said = claim.get("null") or words.NOTHING
    return f"{said}: {', '.join(known)}" if known and claim.get("null") else said


def in_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


PAGES = {README: headlines, PAGE: tables}


def main(arguments: list[str]) -> Iterator[str]:
    for page, make in PAGES.items():
        text = page.read_text(encoding="utf-8")
        made = with_table(text, make(RESULTS))
        if "--check" not in arguments:
            page.write_text(made, encoding="utf-8")
            yield f"{page.name} has its tables."
        elif made != text:
            raise SystemExit(f"The tables of {page.name} are not what the stored Runs say. Run {Path(__file__).name}.")
        else:
            yield f"The tables of {page.name} are what the stored Runs say."


if __name__ == "__main__":
    for line in main(sys.argv[1:]):
        print(line)
