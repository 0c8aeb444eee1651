"""Write every table that shows measured numbers: README's, and those of the two pages on the lab `ioi`.

README's are made by `make_claims_table`. A page has its tables between `<!-- table:NAME:begin -->` and
`<!-- table:NAME:end -->`; they are made from the Run stored as `docs/results/ioi-quick` (that of planted circuits from
`planted-quick`; those of a deep model from `smollm2-trust.json`), so that nobody types a measured number. What that Run
does not hold is a dash.
Usage: uv run python docs/make_tables.py [--check]
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import make_claims_table as claims  # the scripts beside this one
import make_trust_table as trust

from micrographia.faces import words
from micrographia.labs.catalogue import lab
from micrographia.labs.ioi.circuits import N_RANDOM

DOCS = Path(__file__).parent
HOWTO = DOCS / "howto"
PAGES = (
    DOCS / "labs" / "ioi.md",
    DOCS / "when-to-trust-attribution.md",
    HOWTO / "models.md",
    HOWTO / "dictionaries.md",
)
STORED, PLANTED = DOCS / "results" / "ioi-quick", DOCS / "results" / "planted-quick"
DICTIONARIES = DOCS / "results" / "dictionaries-smollm2"
DEEP = DOCS / "results" / "smollm2-trust.json"
BLOCK = re.compile(r"(<!-- table:([\w-]+):begin -->\n).*?(<!-- table:\2:end -->)", re.DOTALL)
METHODS = {
    "exact": "exact",
    "atp": "attribution patching",
    "atp-qk": "with QK-fix",
    "atp-star": "AtP* (by size)",
    "ig": "integrated gradients",
    "relp": "RelP",
    "atp-size": "attribution patching (by size)",
    "change": "activation norm (by size)",
    "random": "random order",
    "eap": "EAP",
    "eap-ig": "EAP-IG",
}
Row = Mapping[str, Any]


class Stored(NamedTuple):
    """A finished Run as its files tell it."""

    results: Mapping[str, Any]
    run: Mapping[str, Any]

    def rows(self, table: str, **where: Any) -> list[Row]:
        return [row for row in self.results.get(table) or () if all(row[key] == value for key, value in where.items())]


def stored(path: Path) -> Stored:
    return Stored(*(json.loads((path / f"{name}.json").read_text(encoding="utf-8")) for name in ("results", "run")))


def with_tables(text: str, found: Stored) -> str:
    """A page with what stands between its markers made anew. Raises SystemExit for a marker that names no table."""
    if unknown := sorted({name for _, name, _ in BLOCK.findall(text)} - TABLES.keys()):
        raise SystemExit(f"There is no table {', '.join(unknown)}; there are {', '.join(TABLES)}.")
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]](found)}\n\n{block[3]}", text)


def networks(found: Stored) -> str:
    config = found.run["config"]
    seeds = [str(config["seed"] + i) for i in range(config["seeds"])]
    told = " and ".join(part for part in (", ".join(seeds[:-1]), seeds[-1]) if part)
    return f"The networks of the preset {found.run['preset']} at seeds {told}, {found.run['created'][:10]}."


def behaviours(found: Stored) -> str:
    head = ("behaviour", "learned", "accuracy", "shuffled answers", "logit difference")
    rows = [
        (
            row["behaviour"],
            f"{row['learned']} of {row['networks']}",
            *_spreads(row, "accuracy", "by_chance", "logit_difference"),
        )
        for row in found.rows("behaviours")
    ]
    years = [
        f"{row['measure']} {_spread(row['measured'])}, shuffled answers {_spread(row['by_chance'])}"
        for row in found.rows("greater_by_probabilities")
    ]
    said = f"\n\nGreater-than by the probabilities of years (Hanna et al. 2023): {'; '.join(years)}." if years else ""
    return f"{_table(head, rows)}{said}"


def mirrors(found: Stored) -> str:
    head = ("behaviour", "denoising and noising", "split half")
    rows = [
        (row["behaviour"], *_spreads(row, "differ_by", "halves_of_the_prompts"))
        for row in found.rows("denoising_beside_noising")
    ]
    return _table(head, rows)


def heads(found: Stored) -> str:
    head = (
        "kind",
        "found by both criteria, of those found by either",
        "expected by chance",
        "Jaccard in a network",
        "expected by chance",
        "area under ROC",
    )
    rows = [
        (
            row["kind"],
            f"{row['found_both_ways']} of {row['of']}",
            f"{row['by_chance']:.1f}",
            *_spreads(row, "agreement", "agreement_by_chance", "area"),
        )
        for row in found.rows("head_kinds")
    ]
    return _table(head, rows)


def cmd(found: Stored) -> str:
    """Without the QK-fix, which equals attribution patching at heads and MLPs."""
    of_nodes, of_edges = ("exact", "atp", "atp-star", "ig", "relp", "random"), ("eap", "eap-ig", "random")
    columns = [("nodes", way) for way in of_nodes] + [("edges", way) for way in of_edges]
    head = (
        "behaviour",
        *(METHODS[way] + (", edges" if (of, way) == ("edges", "random") else "") for of, way in columns),
    )
    named = dict.fromkeys(row["behaviour"] for row in found.rows("circuits"))
    value = {(row["behaviour"], row["members"], row["method"]): row["cmd"]["median"] for row in found.rows("circuits")}
    table = _table(head, [(name, *(f"{value[name, *column]:.3f}" for column in columns)) for name in named])
    worse = [
        f"{METHODS[way]} for {name}"
        for name in named
        for way in of_nodes[:-1]
        if value[name, "nodes", way] >= value[name, "nodes", RANDOM]
    ]
    return f"{table}\n\nCircuits of heads and MLPs no better than random order: {', '.join(worse) or 'none of them'}."


def smallest(found: Stored) -> str:
    lines = []
    for row in found.rows("smallest_circuits", behaviour="ioi"):
        true, lot = row["faithfulness"], row.get("parts_by_chance")
        lines.append(
            f"- {row['network']}: {row['parts']} of {row['of']} components, faithfulness {true['value']:.2f} "
            f"({true['low']:.2f} to {true['high']:.2f}); of {N_RANDOM} random ones the nearest has "
            f"{row['nearest_random']:.2f}" + (f", and random orders need {lot:g}" if lot is not None else "")
        )
    return "\n".join(lines)


def verdicts(found: Stored) -> str:
    ioi = lab("ioi")
    assert ioi is not None
    judged = {claim["id"]: claim for claim in found.results["claims"] if claim["verdict"] != claims.NOT_RUN}
    rows = []
    for claim in claims.stated_claims(ioi):
        if "quick" in claim.get("presets", ()):
            own = claims.as_stated(claim, judged.get(claim["id"]))
            null = words.NOTHING if own is None else words.format_value(own.get("null_measured"))
            rows.append((f"`{claim['id']}`", words.published(claim), claims.found_at(claim, own, "quick"), null))
    return _table(("claim", "published", "measured: verdict", "null or baseline"), rows)


def correlations(found: Stored, field: str) -> str:
    rows = found.rows("estimates_beside_exact_effects")
    ways = [way for way in METHODS if any(row["method"] == way for row in rows)]
    value = {(row["site"], row["method"]): row[field] for row in rows}
    sites = dict.fromkeys(row["site"] for row in rows)
    head = ("kind of Site", *(METHODS[way] for way in ways))
    return _table(head, [(f"`{site}`", *(_spread(value.get((site, way))) for way in ways)) for site in sites])


RANDOM = "random"
ESTIMATES = ("atp", "atp-qk", "atp-star", "ig", "relp")


def lowest(found: Stored) -> str:
    """Which method correlates least, kind by kind."""
    least: dict[str, list[str]] = {}
    rows = [
        row for row in found.rows("estimates_beside_exact_effects") if row["method"] in ESTIMATES and row["pearson"]
    ]
    for site in dict.fromkeys(row["site"] for row in rows):
        worst = min((row for row in rows if row["site"] == site), key=lambda row: row["pearson"]["median"])
        least.setdefault(worst["method"], []).append(f"`{site}`")
    told = "; ".join(f"{METHODS[way]} at {', '.join(sites)}" for way, sites in least.items())
    return f"The lowest of the five methods by Pearson's correlation: {told}.".replace("AtP*", r"AtP\*")


def told(found: Stored) -> str:
    said = found.results["how_far_to_trust"].values()
    return "\n>\n".join(f"> {text[:1].upper()}{text[1:]}" for text in said)


def planted(found: Stored) -> str:
    """From a Run of its own."""
    rows = stored(PLANTED).rows("planted_circuits")
    right = sum(row["misses"] == row["theory_says"] for row in rows)
    ways = list(dict.fromkeys(row["method"] for row in rows))
    missed = {(row["circuit"], row["mode"], row["method"]): row["misses"].replace("nothing", "") for row in rows}
    cases = dict.fromkeys((row["circuit"], row["mode"]) for row in rows if row["misses"] != "nothing")
    table = _table(("circuit", "direction", *ways), [(*case, *(missed[*case, way] for way in ways)) for case in cases])
    return f"Measured, and as theory says in {right} of {len(rows)} cases:\n\n{table}"


def deep(found: Stored, task: str) -> str:
    """Of a language model, from a file of its own."""
    record = json.loads(DEEP.read_text(encoding="utf-8"))["tasks"][task]
    clean, corrupt = record["example"]
    return (
        f"{record['pairs']} pairs such as *{clean}* with *{corrupt}*; logit difference {record['clean']:.2f} and "
        f"{record['corrupt']:.2f}; {record['right']} pairs answered rightly on both sides.\n\n{trust.table(record)}"
    )


def language_model(found: Stored) -> str:
    """Four behaviours of one model, each from a Run of its own."""
    head = ("behaviour", "pairs", "answer is the first choice", "metric", "clean prompts", "corrupt prompts", "where")
    rows = []
    for path in sorted((DOCS / "results").glob("smollm2-*/")):
        own = stored(path).results
        baseline, first = own["baselines"][0], own["answers"]["clean"]["answer_rank"]
        sides = (_mean(baseline[side], baseline[f"{side}_sd"], len(first)) for side in ("clean", "corrupt"))
        where = "; ".join(f"{row['token']}: layers {row['layers']}" for row in own["by_position"])
        share = f"{sum(rank == 0 for rank in first) / len(first):.0%}"
        rows.append((path.name.removeprefix("smollm2-"), str(len(first)), share, baseline["metric"], *sides, where))
    return _table(head, rows)


def real_dictionaries(found: Stored) -> str:
    """Those of a language model, each beside its baselines, from a Run of their own."""
    columns = ("dictionary", "best linear map at equal L0", "random directions at equal L0", "mean ablation")
    head = ("at", "L0", *(f"FVU: {name}" for name in columns[:-1]), *(f"delta loss: {name}" for name in columns))
    rows = []
    for name, own in stored(DICTIONARIES).results["dictionaries"].items():
        of = {row["name"]: row for row in own["comparison"]}
        values = [of[each]["fvu"] for each in columns[:-1]] + [of[each]["delta_loss"] for each in columns]
        rows.append((name, f"{own['metrics']['l0']:.1f}", *(f"{value:.3g}" for value in values)))
    return _table(head, rows)


SHOWN = (86, 4440, 1050, 2347, 2345)
"""Latents that a person recognises, of different kinds: chosen by eye from the twenty that are told best."""


def real_latents(found: Stored) -> str:
    read = stored(DICTIONARIES).results["interpretation"]
    own = {row["latent"]: row for row in read["latents"]}
    often = [row for row in own.values() if row["firings"] >= 10]
    head = ("latent", "told by", "precision", "recall", "with another latent's tokens, F1", "firings")
    rows = [
        (f"{i}", own[i]["explanation"], f"{own[i]['precision']:.2f}", f"{own[i]['recall']:.2f}",
         f"{own[i]['null_f1']:.2f}", f"{own[i]['firings']:,}")
        for i in SHOWN
    ]  # fmt: skip
    told = sum(row["recognisable"] for row in own.values())
    return (
        f"{_table(head, rows)}\n\n{told} of the {len(often):,} latents that fire ten times or more on the second half "
        f"of the held-out text are told by a few tokens chosen on the first ({told / len(often):.0%}; precision and "
        f"recall above one half). Mean detection accuracy {read['accuracy']:.2f}; with another latent's tokens "
        f"{read['null_accuracy']:.2f}."
    )


def _mean(value: float, sd: float, n: int) -> str:
    """A mean over prompts with its normal 95 % interval."""
    half = 1.96 * sd / n**0.5
    return f"{value:.2f} ({value - half:.2f} to {value + half:.2f})"


TABLES: Mapping[str, Callable[[Stored], str]] = {
    "networks": networks,
    "behaviours": behaviours,
    "mirrors": mirrors,
    "heads": heads,
    "cmd": cmd,
    "smallest": smallest,
    "verdicts": verdicts,
    "pearson": partial(correlations, field="pearson"),
    "spearman": partial(correlations, field="spearman"),
    "lowest": lowest,
    "told": told,
    "planted": planted,
    "language-model": language_model,
    "real-dictionaries": real_dictionaries,
    "real-latents": real_latents,
    **{f"deep-{task}": partial(deep, task=task) for task in trust.TASKS},
}


def _spreads(row: Row, *fields: str) -> list[str]:
    return [_spread(row.get(field)) for field in fields]


def _spread(found: Row | None) -> str:
    """A median with the least and the greatest network."""
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})" if found else words.NOTHING


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(map(claims.in_cell, row)) + " |" for row in (head, ["---"] * len(head), *rows))


def main(arguments: list[str]) -> Iterator[str]:
    yield from claims.main(arguments)
    found = stored(STORED)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = with_tables(text, found)
        if "--check" in arguments and made != text:
            raise SystemExit(f"The tables of {page.name} are not what the stored Run says. Run docs/make_tables.py.")
        if made != text:
            page.write_text(made, encoding="utf-8")
        yield f"{page.name} has its tables."


if __name__ == "__main__":
    for line in main(sys.argv[1:]):
        print(line)
