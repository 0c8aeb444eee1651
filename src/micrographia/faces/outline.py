"""What a Run says, as headings, sentences and tables, before any face draws it.

The terminal and the report walk the same list of Sections. Known parts of a lab's results get their heading and lead
here; what is not known is still shown, as a table under its own name. Nothing is computed: values are put in order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from micrographia.core.claims import Run
from micrographia.faces import asked, carriers, words
from micrographia.faces.sections import Section, Table, as_records, flat, records

Builder = Callable[[Any, Mapping[str, Any]], list[Section]]


def outline(run: Run) -> list[Section]:
    """The sections of a Run in reading order; empty while it has no results."""
    results = run.results or {}
    builders = asked.BUILDERS if run.lab == asked.LAB else BUILDERS
    elsewhere = {*ELSEWHERE, *(asked.ELSEWHERE if run.lab == asked.LAB else ())}
    sections: list[Section] = []
    for key in [*(key for key in builders if key in results), *(key for key in results if key not in builders)]:
        if key not in elsewhere and results[key] is not None and (results[key] or key in EVEN_EMPTY):
            sections += builders[key](results[key], results) if key in builders else _unknown(key, results[key])
    return sections


def summary(run: Run) -> list[str]:
    """The lab's own sentences on what was found."""
    said = (run.results or {}).get("summary") or []
    return [said] if isinstance(said, str) else [str(sentence) for sentence in said]


def title(run: Run) -> str:
    """One line that names the Run: its lab and what it studied."""
    if run.lab == asked.LAB:
        return asked.title(run)
    if run.lab == carriers.LAB:
        return carriers.title(run)
    about = f": {words.name(run.preset)}" if run.preset in ("sweep", "lottery") else ""
    operation = OPERATIONS.get(str(run.config.get("operation")))
    if run.lab == "grokking" and operation and run.config.get("modulus"):
        return f"Grokking {operation} modulo {run.config['modulus']}"
    return words.name(run.lab).capitalize() + about


def standing(run: Run) -> str:
    """What stands below the title: the preset, or the prompts of a question."""
    return asked.standing(run) if run.lab == asked.LAB else f"preset {run.preset}"


OPERATIONS = {
    "add": "addition",
    "subtract": "subtraction",
    "multiply": "multiplication",
    "polynomial": "a² + ab + b²",
}


def _phases(phases: Mapping[str, Any], results: Mapping[str, Any]) -> list[Section]:
    names = [name for name in PHASES if name in phases]
    between = [_between(phases, name) for name in names]
    rows = [[PHASES[name], phases[name], *([span] if any(between) else [])] for name, span in zip(names, between)]
    columns = ("what happened", "epoch", *(["between"] if any(between) else []))
    lead = "Read from change points in the measures along training, not by eye. A dash: it did not happen in this run."
    return (
        [Section("phases", "The phases", lead, Table(columns, rows))] if any(row[1] is not None for row in rows) else []
    )


def _between(phases: Mapping[str, Any], name: str) -> str:
    """The boundary's interval: under `intervals`, or as name_low and name_high."""
    low, high = (phases.get("intervals") or {}).get(name) or (phases.get(f"{name}_low"), phases.get(f"{name}_high"))
    return "" if low is None or high is None else f"{words.value(low)} to {words.value(high)}"


PHASES = {
    "memorised": "memorised: the training loss has fallen",
    "circuit": "circuit: the restricted loss is half-way down",
    "circuit_formed": "cleanup begins: the test loss starts to fall",
    "cleanup": "grokked: the test loss is half-way down",
    "settled": "settled: the weights have stopped shrinking",
}


def _frequencies(found: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    keys = results.get("key_frequencies") or []
    lead = f"Key frequencies: {words.value(keys)}." if keys else "No key frequency was found."
    published = results.get("published_rule")
    if published is not None:
        lead += f" The published rule, the dominant frequency of any neuron, gives: {words.value(published)}."
    if any(row.get("kind") == "overtone" for row in found):
        lead += " An overtone is present in the logits, but is carried by another frequency's neurons."
    strong = frozenset(i for i, row in enumerate(found) if row.get("kind") == "key")
    shown = [{key: row.get(key) for key in FREQUENCY_COLUMNS} for row in found]
    table = records(shown, first=FREQUENCY_COLUMNS, strong=strong) if found else None
    return [Section("frequencies", "The frequencies it uses", lead, table)]


FREQUENCY_COLUMNS = ("k", "kind", "energy", "p_value", "loss_change", "own_neurons", "carried_by")


def _algorithm(lines: str | Sequence[str], results: Mapping[str, Any]) -> list[Section]:
    lines = lines.splitlines() if isinstance(lines, str) else [str(line) for line in lines]
    return [Section("algorithm", "The algorithm, read off the weights", lines=lines)]


def _replacements(rows: Any, results: Mapping[str, Any]) -> list[Section]:
    lead = "Parts of the network, and at last all of it, replaced by the formula above: how well does that do the task?"
    return [Section("replacements", "How well the algorithm alone does the task", lead, records(as_records(rows)))]


def _ablations(rows: Any, results: Mapping[str, Any]) -> list[Section]:
    lead = "What is lost when a part is taken out, beside controls that should matter little."
    return [Section("ablations", "Ablations and their controls", lead, records(as_records(rows)), essential=False)]


def _measures(measures: Mapping[str, Any], results: Mapping[str, Any]) -> list[Section]:
    """Plain figures in one table; measures that are tables themselves each in their own."""
    tables = {key: inner for key, inner in measures.items() if not isinstance(inner, Mapping) and as_records(inner)}
    single = {key: inner for key, inner in measures.items() if key not in tables and not _is_long(inner)}
    rows = [[label, value] for label, value in flat(single)]
    plain = Section(
        "measures", "All measures", "At the end of the run.", Table(("measure", "value"), rows), essential=False
    )
    return [plain, *(replace(each, essential=False) for key, inner in tables.items() for each in _unknown(key, inner))]


def _is_long(content: Any) -> bool:
    """A measure with a value for each frequency has a figure of its own."""
    return isinstance(content, Sequence) and not isinstance(content, str) and len(content) > MOST_VALUES


MOST_VALUES = 12


def _groups(groups: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    lead = "Medians over seeds with their intervals. What never happened counts as later than everything else."
    rows = [{key: group[key] for key in GROUP_COLUMNS if key in group} for group in groups]
    return [Section("groups", "The settings", lead, records(rows, first=("group",)))]


GROUP_COLUMNS = ("group", "networks", "epochs_to_memorise", "epochs_to_grok", "n_key_frequencies", "fourier")


BUILDERS: dict[str, Builder] = {
    "groups": _groups,
    "phases": _phases,
    "frequencies": _frequencies,
    "algorithm": _algorithm,
    "replacements": _replacements,
    "ablations": _ablations,
    "measures": _measures,
    **carriers.BUILDERS,
}

EVEN_EMPTY = ("frequencies",)  # that none was found is a result

ELSEWHERE = (
    "summary",
    "config",
    "claims",
    "key_frequencies",
    "overtones",
    "present",
    "published_rule",
    "run",
    "report",
)
"""Parts of the results that are shown within a section, or in a place of their own."""

HEADINGS = {"attention": "The wave of each head", "neuron_directions": "What the read-out takes from the neurons"}

FEW_COLUMNS, FEW_ROWS = 7, 40  # what a terminal still shows


def _unknown(key: str, content: Any) -> list[Section]:
    """Results that no builder knows: tables of records, of names and values, or a plain value."""
    heading = HEADINGS.get(key) or words.name(key)[:1].upper() + words.name(key)[1:]
    rows = as_records(content)
    if rows:
        table = records(rows)
        small = len(table.columns) <= FEW_COLUMNS and len(table.rows) <= FEW_ROWS
        return [Section(key, heading, table=table, essential=small)]
    if isinstance(content, Mapping) and content:
        return [Section(key, heading, table=Table(("what", "value"), [list(pair) for pair in flat(content)]))]
    return [] if content in (None, [], {}) else [Section(key, heading, lead=words.value(content))]
