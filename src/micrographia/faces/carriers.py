"""The results of the ioi lab as sections: what was learned, where it is carried, and how far each method is trusted.

Part of `outline`, which puts them among the others. Values are put in order here; nothing is computed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.core.claims import Run
from micrographia.faces import words
from micrographia.faces.sections import Section, Table

LAB = "ioi"
Rows = Sequence[Mapping[str, Any]]
METHODS = {
    "exact": "exact",
    "atp": "attribution patching",
    "atp-qk": "with QK-fix",
    "atp-star": "AtP*",
    "ig": "integrated gradients",
    "relp": "RelP",
    "eap": "EAP",
    "eap-ig": "EAP-IG",
    "atp-size": "attribution patching, by size",
    "change": "size alone",
    "random": "by chance",
}


def title(run: Run) -> str:
    """What was studied: our own networks, or a model by name."""
    model = str(run.config.get("model") or "").rstrip("/").rpartition("/")[2]
    return f"Which parts carry a behaviour: {model or 'networks trained from nothing'}"


def _behaviours(rows: Rows, results: Mapping[str, Any]) -> list[Section]:
    counted = "taken apart" if _takes_all(results) else "learned"
    columns = ("behaviour", counted, "accuracy", "by chance", "logit difference", "after the corrupt prompt")
    fields = ("accuracy", "by_chance", "logit_difference", "corrupt")
    cells = [
        [row["behaviour"], f"{row['learned']} of {row['networks']}", *(brief(row[field]) for field in fields)]
        for row in rows
    ]
    lead = (
        "On held-out prompts: medians over the networks, with the least and the greatest. By chance: judged by another "
        "prompt's answers."
    )
    return [Section("behaviours", "What the networks learned", lead, Table(columns, cells, texts=EVERY))]


def _takes_all(results: Mapping[str, Any]) -> bool:
    """Whether networks were taken apart that are wrong more often than right: then the count is not of the learned."""
    return (results.get("config") or {}).get("least", 1.0) < HALF


HALF = 0.5


def _estimates(rows: Rows, results: Mapping[str, Any]) -> list[Section]:
    lead = (
        "Pearson's correlation of estimate and exact patching over places, by kind of Site: the mean over behaviours, "
        "its median over networks. AtP* ranks by size, and so do the two last columns: attribution patching without "
        "its signs, and the baseline beside it, how far the activation itself moves. RelP holds attention patterns and "
        "says nothing of what makes them."
    )
    table = _pivot(rows, "pearson", "site", "kind of Site")
    return [Section("estimates", "Estimates beside exact effects", lead, table)]


def _pivot(rows: Rows, field: str, label: str, heading: str) -> Table:
    """A row for each value of `label`, a column for each method."""
    methods = [name for name in METHODS if any(row["method"] == name for row in rows)]
    named: dict[str, dict[str, str]] = {}
    for row in rows:
        named.setdefault(row[label], {})[row["method"]] = brief(row[field], spread=False)
    cells = [[name, *(found.get(method, words.NOTHING) for method in methods)] for name, found in named.items()]
    return Table((heading, *(METHODS[name] for name in methods)), cells)


def brief(thing: Mapping[str, Any] | None, *, spread: bool = True) -> str:
    """A median with its ends, in three figures."""
    if thing is None:
        return words.NOTHING
    middle = short(thing["median"])
    return f"{middle} ({short(thing['low'])} to {short(thing['high'])})" if spread else middle


def short(x: float) -> str:
    return words.number(float(f"{x:.3g}"))


def _told(found: Mapping[str, str], results: Mapping[str, Any]) -> list[Section]:
    lead = "What a calibration of attribution patching says, from one network: some places patched exactly."
    if _takes_all(results):
        lead += " Networks were taken apart whether they had learned or not; the summary says which had."
    said = [f"{text[:1].upper()}{text[1:]}" for text in found.values()]
    return [
        Section("trust", "How far to trust attribution patching, kind by kind", lead, paragraphs=said, essential=False)
    ]


def _mirrors(rows: Rows, results: Mapping[str, Any]) -> list[Section]:
    lead = "How far denoising and noising of heads by position differ, as a share of the larger; and mere noise."
    cells = [[row["behaviour"], brief(row["differ_by"]), brief(row["halves_of_the_prompts"])] for row in rows]
    columns = ("behaviour", "denoise from noise", "denoise, half the prompts from the other")
    return [Section("mirrors", "Denoising beside noising", lead, Table(columns, cells, texts=EVERY), essential=False)]


def _heads(rows: Rows, results: Mapping[str, Any]) -> list[Section]:
    lead = (
        "By looks: where a head attends and what it copies. By patching: the heads whose words, on the path of that "
        "kind, carry at least a third of the largest effect. The second way sees no attention, the first no effect. "
        "Both: of the heads found either way; by chance: as many, drawn within their layers. The area is that under "
        "the ROC curve; half is chance."
    )
    columns = ("kind", "by looks", "by patching", "both of either", "by chance", "area")
    cells = [
        [
            row["kind"],
            "; ".join(row["by_looks"]),
            "; ".join(row["by_patching"]),
            f"{row['found_both_ways']} of {row['of']}",
            short(row["by_chance"]),
            brief(row["area"]),
        ]
        for row in rows
    ]
    return [Section("heads", "Heads found twice", lead, Table(columns, cells, texts=EVERY))]


def _circuits(rows: Rows, results: Mapping[str, Any]) -> list[Section]:
    lead = (
        "CMD, the area between a circuit's faithfulness and 1 as it grows: the smaller the better. Chosen and judged "
        "on different prompts; outside stands the corrupt prompt of each pair."
    )
    made = {"nodes": "heads and MLPs by position", "edges": "edges"}
    found = []
    for members, title in made.items():
        some = [row for row in rows if row["members"] == members]
        if some:
            table = _pivot(some, "cmd", "behaviour", "behaviour")
            found.append(Section(f"circuits-{members}", f"Circuits of {title}", lead, table))
    return found


def _smallest(rows: Rows, results: Mapping[str, Any]) -> list[Section]:
    lead = "The smallest circuit within a tenth of the whole, by the method with the least CMD."
    columns = ("network", "behaviour", "chosen by", "parts", "faithfulness", "nearest random", "incomplete by", "idle")
    cells = [
        [
            row["network"],
            row["behaviour"],
            METHODS[row["chosen_by"]],
            f"{row['parts']} of {row['of']}",
            f"{short(row['faithfulness']['value'])} ({short(row['faithfulness']['low'])} to "
            f"{short(row['faithfulness']['high'])})",
            short(row["nearest_random"]),
            short(row["incomplete_by"]),
            row["idle"],
        ]
        for row in rows
    ]
    texts = frozenset(range(len(columns) - 1))
    return [
        Section("smallest", "The smallest faithful circuits", lead, Table(columns, cells, texts=texts), essential=False)
    ]


def _planted(rows: Rows, results: Mapping[str, Any]) -> list[Section]:
    """What each method misses; a star where theory says otherwise."""
    lead = (
        "Seven circuits built by hand, whose every part is known: what each method misses. A star marks a finding that "
        "theory does not say."
    )
    methods = [name for name in METHODS if any(row["method"] == name for row in rows)]
    named: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        star = "" if row["misses"] == row["theory_says"] else " *"
        named.setdefault((row["circuit"], row["mode"]), {})[row["method"]] = f"{row['misses']}{star}"
    cells = [[*names, *(found.get(name, words.NOTHING) for name in methods)] for names, found in named.items()]
    columns = ("circuit", "direction", *(METHODS[name] for name in methods))
    return [
        Section(
            "planted", "Planted circuits: what is missed", lead, Table(columns, cells, texts=EVERY), essential=False
        )
    ]


def _direct(rows: Rows, results: Mapping[str, Any]) -> list[Section]:
    lead = "What parts write straight to the difference of the two names' logits; z[2] is head 2."
    cells = [[row["part"], row["logits"]] for row in rows]
    return [
        Section(
            "direct", "What is written straight to the answer", lead, Table(("part", "logits"), cells), essential=False
        )
    ]


def _published(found: Mapping[str, Any], results: Mapping[str, Any]) -> list[Section]:
    cells = [[words.name(name), value] for name, value in found.items()]
    return [Section("published", "The published analysis", table=Table(("what", "value"), cells))]


def _denoising(rows: Rows, results: Mapping[str, Any]) -> list[Section]:
    lead = "Shares of the gap in logit difference, one head at one position at a time."
    cells = [[row["head"], row["position"], row["brings_back"], row["takes_away"]] for row in rows]
    columns = ("head", "position", "brings back", "takes away")
    return [
        Section("denoising", "Heads that bring the answer back", lead, Table(columns, cells, texts=frozenset({0, 1})))
    ]


EVERY = frozenset(range(12))
BUILDERS = {
    "behaviours": _behaviours,
    "published_circuit": _published,
    "heads_that_denoise": _denoising,
    "estimates_beside_exact_effects": _estimates,
    "how_far_to_trust": _told,
    "denoising_beside_noising": _mirrors,
    "head_kinds": _heads,
    "circuits": _circuits,
    "smallest_circuits": _smallest,
    "direct_parts": _direct,
    "planted_circuits": _planted,
}
