"""The results of a question to a model (the workbench's Runs), as sections: ends, places, checks, and what they show.

Part of `outline`, which puts them among the others. Values are put in order here; nothing is computed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.core.claims import Run
from micrographia.faces import words
from micrographia.faces.sections import Section, Table

LAB = "workbench"
TITLES = {
    "patch": "Patching",
    "attribute": "Attribution in",
    "trace": "Tracing a fact in",
    "circuit": "A circuit in",
    "lens": "A lens on",
}
ELSEWHERE = (
    "question",
    "model",
    "n_prompts",
    "places",
    "method",
    "notes",
    "strongest",
    "reading",
    "trace",
    "tokens",
    "subject_positions",
)
"""Parts of the results that have no section of their own."""


def title(run: Run) -> str:
    """What was asked of which model."""
    model = str(run.config.get("model", "")).rstrip("/").rpartition("/")[2]
    return f"{TITLES.get(run.preset, run.preset)} {model}"


def standing(run: Run) -> str:
    """On how many prompts, at which precision."""
    n = (run.results or {}).get("n_prompts")
    pairs = [] if n is None else ["one prompt pair" if n == 1 else f"{n} prompt pairs"]
    return ", ".join([*pairs, str(run.config.get("dtype"))])


def with_spread(mean: float | None, sd: float | None, figures: int = 3) -> str:
    """ "3.02 ± 0.19"; the figure alone where nothing is known of its spread."""
    if mean is None:
        return words.NOTHING
    return rounded(mean, figures) if sd is None else f"{rounded(mean, figures)} ± {rounded(sd, 2)}"


def rounded(x: float, figures: int = 3) -> str:
    """A figure of a table of many columns."""
    return words.number(float(f"{x:.{figures}g}"))


def _baselines(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    cells = [
        [row["metric"], row["unit"], *(with_spread(row[end], row.get(f"{end}_sd"), 4) for end in ("clean", "corrupt"))]
        for row in rows
    ]
    table = Table(("metric", "unit", "clean", "corrupt"), cells, texts=frozenset({0, 1}))
    return [Section("baselines", "Without any patch", _spread_of(results), table)]


def _spread_of(results: Mapping[str, Any]) -> str:
    n = results.get("n_prompts")
    return "One prompt pair: no spread." if n == 1 else f"Means over {n} prompt pairs, ± standard deviation."


TOP = {
    "denoise": ("restored", "change"),
    "noise": ("destroyed", "change"),
}


def _top(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    if results.get("strongest"):
        return _strongest(rows, results)
    modes = [mode for mode, (share, _) in TOP.items() if rows and share in rows[0]]
    unit = next((row["unit"] for row in results.get("baselines") or ()), "")
    columns = ["place", "token", *(name for mode in modes for name in TOP[mode])]
    numbers = [column for mode in modes for column in _both(rows, mode)]
    cells = [[row["part"], row.get("token"), *rest] for row, *rest in zip(rows, *numbers)]
    estimated = "estimated " if results.get("question") == "attribute" else ""
    lead = f"The largest {estimated}effects: as a share of the gap, and as a change in {unit}. {_spread_of(results)}"
    if not any(row.get("token") for row in rows):
        columns, cells = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in cells]
        return [Section("top", "The places that matter most", lead, Table(columns, cells))]
    return [Section("top", "The places that matter most", lead, Table(columns, cells, texts=frozenset({0, 1})))]


def _strongest(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    """The places whose scores alone were held: the estimated share of the gap, and that of an exact patch."""
    names = [name for share, _ in TOP.values() for name in (share, f"{share}_exactly") if rows and share in rows[0]]
    numbers = [[row[name] for row in rows] for name in names]
    told = [[fixed(x, decimals(column)) for x in column] for column in numbers]
    columns = ["place", "token", *("exactly" if name.endswith("_exactly") else name for name in names)]
    cells = [[row["part"], row.get("token"), *rest] for row, *rest in zip(rows, *told)]
    lead = (
        "The largest estimates as shares of the gap, each beside what patching that place does exactly. A dash: it is "
        "not among the largest of this direction, or was not patched."
    )
    if not any(row.get("token") for row in rows):  # positions were summed
        columns, cells = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in cells]
        return [Section("top", "The places that matter most", lead, Table(columns, cells))]
    return [Section("top", "The places that matter most", lead, Table(columns, cells, texts=frozenset({0, 1})))]


def _both(rows: Sequence[Mapping[str, Any]], mode: str) -> list[list[str]]:
    """The two columns of a mode: shares, and changes with their spread, each with as many decimals as its largest."""
    shares = [row.get(TOP[mode][0]) for row in rows]
    changes = [row.get(f"{mode}_change") for row in rows]
    places, fine = decimals(shares), decimals(changes)
    spreads = [row.get(f"{mode}_sd") for row in rows]
    told = [fixed(x, fine) + ("" if sd is None else f"±{fixed(sd, fine)}") for x, sd in zip(changes, spreads)]
    return [[fixed(share, places) for share in shares], told]


def decimals(column: Sequence[float | None], figures: int = 3) -> int:
    """How many decimals give the largest figure of a column this many digits: small ones beside it become 0.00."""
    largest = max((abs(x) for x in column if x is not None), default=0.0)
    return min(max(figures - 1 - math.floor(math.log10(largest)), 0), MOST_DECIMALS) if largest else 0


MOST_DECIMALS = 8


def fixed(x: float | None, places: int) -> str:
    """A figure with so many decimals; a dash for none, and no minus before a zero."""
    if x is None:
        return words.NOTHING
    told = f"{x:,.{places}f}"
    return told.lstrip("-") if not told.strip("-0.,") else told


def _explanation(sentences: Sequence[str], results: Mapping[str, Any]) -> list[Section]:
    return [Section("explanation", "What this shows", paragraphs=[str(sentence) for sentence in sentences])]


def _others(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    names = [name for name in rows[0] if name != "place"]
    table = Table(("place", *names), [[row["place"], *(row.get(name) for name in names)] for row in rows])
    lead = "The same places in the other metrics, as shares of each metric's own gap. A dash: it has none."
    return [Section("other-metrics", "In other metrics", lead, table, essential=False)]


def _prompts(pairs: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    texts = ("clean", "corrupt", "answer", "wrong")
    shown = [name for name in texts if any(pair.get(name) for pair in pairs)]
    rows = [[pair.get(name) for name in shown] for pair in pairs[:MOST_PAIRS]]
    lead = f"The first {MOST_PAIRS} of {len(pairs)}." if len(pairs) > MOST_PAIRS else ""
    everywhere = frozenset(range(len(shown)))
    sections = [Section("prompts", "The prompts", lead, Table(shown, rows, texts=everywhere), essential=False)]
    first = pairs[0]
    if first.get("clean_tokens") and first.get("corrupt_tokens"):
        tokens = [[i, a, b] for i, (a, b) in enumerate(zip(first["clean_tokens"], first["corrupt_tokens"]))]
        strong = frozenset(i for i, a, b in tokens if a != b)
        table = Table(("position", "clean", "corrupt"), tokens, strong, texts=frozenset({1, 2}))
        sections.append(Section("tokens", "The first pair, token by token", table=table, essential=False))
    return sections


def _restored(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    cells = [
        [row["state"], row["layer"], row["token"], with_spread(row["brings_back"], row.get("sd"))] for row in rows
    ]  # fmt: skip
    table = Table(("what", "layer", "token", "brings back"), cells, texts=frozenset({0, 2}))
    lead = "Probability of the answer above that of the blurred run, mean ± standard deviation over the draws of noise."
    if left_out := results.get("trace", {}).get("left_out"):
        lead += f" {left_out}"
    return [Section("restored", "The states that bring back most", lead, table)]


def _calibration(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    bounded = any(row.get("missed") for row in rows)  # edges have no bound on what was missed
    cells = [
        [
            row["kind"],
            row["mode"],
            row["checked"],
            _agreement(row["pearson"]),
            fixed(row["spearman"]["value"], 2),
            *([_bound(row.get("missed"))] if bounded else []),
        ]
        for row in rows
    ]
    columns = ("kind", "mode", "checked", "Pearson", "Spearman", *(["large, unseen"] if bounded else []))
    lead = (
        "Some places were patched exactly: half of them the largest estimates, half drawn by lot. Correlations of the "
        "estimate with the exact effect, weighted for how places were drawn, with 95 % intervals over prompts"
    )
    last = "; and how many places that were not patched may have a large effect." if bounded else EDGES
    table = Table(columns, cells, texts=frozenset({0, 1}))
    return [Section("calibration", "How far to trust the estimate", lead + last, table)]


EDGES = ". A place is an edge here; how many large ones were left unseen is not bounded."


def _agreement(found: Mapping[str, Any]) -> str:
    ends = [found.get(end) for end in ("low", "high")]
    middle = fixed(found["value"], 2)
    return middle if None in ends else f"{middle} ({fixed(ends[0], 2)} to {fixed(ends[1], 2)})"


def _bound(missed: Mapping[str, Any] | None) -> str:
    if missed is None:
        return words.NOTHING
    return f"≤ {missed['most']:,} of {missed['of']:,}" if missed["of"] else "none"


def _wholes(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    """Where whole Sites do otherwise than their places one by one; a table of the rest below, where it is long."""
    unit = next((row["unit"] for row in results.get("baselines") or ()), "")
    lead = (
        "All places of a Site, and of a kind, patched in one run, beside the sum of what they do alone, which is "
        f"measured where a place was checked and estimated elsewhere (a star). In {unit}. Where the two agree, places "
        "can be read one by one; where they part ways, they cannot."
    )
    apart = sorted(rows, key=lambda row: -abs(row["at_once"] - row["alone"]))
    first = apart[:FEW_WHOLES]
    if len(rows) > len(first):
        lead += f" The {len(first)} of {len(rows)} that part most."
    told = dict.fromkeys(f"{row['so']}, {row['mode']}: {row['meaning']}." for row in first if row["meaning"])
    said = [sentence[:1].upper() + sentence[1:] for sentence in told]
    sections = [Section("wholes", "Whole Sites at once", lead, _whole_table(first), said)]
    if len(rows) > len(first):
        sections.append(Section("all-wholes", "Every Site at once", table=_whole_table(rows), essential=False))
    return sections


FEW_WHOLES = 8


def _whole_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    places = decimals([row[name] for row in rows for name in ("alone", "at_once")])
    cells = [
        [
            row["what"],
            row["mode"],
            fixed(row["alone"], places) + ("" if row["all_measured"] else "*"),
            fixed(row["at_once"], places),
            row["so"],
        ]
        for row in rows
    ]
    return Table(("what", "mode", "alone, summed", "at once", "that is"), cells, texts=frozenset({0, 1, 4}))


def _flags(flags: Sequence[str], results: Mapping[str, Any]) -> list[Section]:
    return [Section("flags", "Where the estimate and the effect part ways", paragraphs=flags, essential=False)]


def _circuit(found: Mapping[str, Any], results: Mapping[str, Any]) -> list[Section]:
    size = [["members", f"{found['members']:,} of {found['of']:,}"]]
    rows = [*size, *([name, _told(found[key])] for key, name in CIRCUIT.items() if found.get(key) is not None)]
    unit = next((row["unit"] for row in results.get("baselines") or ()), "")
    lead = (
        f"Everything outside the circuit is replaced by {found['ablation']}: that defines what is measured. In {unit}."
    )
    return [Section("circuit", "The circuit", lead, Table(("what", "value"), rows))]


def _told(figure: float | Mapping[str, float]) -> str:
    """A figure, with its interval if it has one, short enough for a telephone."""
    if not isinstance(figure, Mapping):
        return rounded(figure)
    middle = figure.get("value", figure.get("median"))
    return f"{fixed(middle, 3)} ({fixed(figure['low'], 3)} to {fixed(figure['high'], 3)})"


CIRCUIT = {
    "faithfulness": "faithfulness, 1 is the whole model",
    "null_faithfulness": "the same of random circuits of that size",
    "null_p_value": "p-value against random circuits",
    "score_of_the_model": "metric of the model",
    "score_alone": "metric of the circuit alone",
    "score_of_nothing": "metric with all ablated",
    "incompleteness_random_sets": "incompleteness, random sets taken out",
    "incompleteness_worst_set": "incompleteness, worst set found",
    "cpr": "CPR, area under faithfulness (more is better)",
    "cmd": "CMD, area between it and 1 (less is better)",
}


def _members(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    scores, adds = ([row.get(name) for row in rows] for name in ("score", "adds"))
    fine = decimals(scores), decimals(adds)
    cells = [
        [row["member"], fixed(score, fine[0]), fixed(added, fine[1])]
        for row, score, added in zip(rows[:MOST_MEMBERS], scores, adds)
    ]
    more = f" The strongest {MOST_MEMBERS} of {len(rows)}." if len(rows) > MOST_MEMBERS else ""
    lead = f"Estimated share of the gap, and what changes, whichever way, when it alone is left out.{more}"
    return [Section("members", "Its members", lead, Table(("member", "score", "adds"), cells))]


def _ends(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    several = len(rows) > 1
    cells = [
        [row["prompt"] if several else "the prompt", *(fixed(row[name], 3) for name in ("logit", "parts", "prob"))]
        for row in rows
    ]
    lead = (
        "At the last position, by the model itself; and the sum of the parts below, which stands before any soft-cap."
    )
    table = Table(("prompt", _read_for(results), "sum of parts", "probability"), cells)
    return [Section("ends", "What the model says", lead, table)]


def _read_for(results: Mapping[str, Any]) -> str:
    answer, wrong = (results.get("reading", {}).get(name) for name in ("answer", "wrong"))
    return f"logit of {answer!r}" + ("" if wrong is None else f" less {wrong!r}")


def _writers(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    """The largest parts; all of them below."""
    more = f" The {MOST_WRITERS} largest of {len(rows)}." if len(rows) > MOST_WRITERS else ""
    lead = f"Parts of the {_read_for(results)}, in logits.{more}"
    sections = [Section("writers", "Who writes it", lead, _sided(("part",), rows[:MOST_WRITERS], rows))]
    if more:
        sections.append(Section("all-writers", "Every part", table=_sided(("part",), rows, rows), essential=False))
    return sections


MOST_WRITERS, MOST_SOURCES = 14, 10


def _sources(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    lead = "The parts of the heads that write most, by the token that they carried it from, in logits."
    return [
        Section("sources", "Where the heads have it from", lead, _sided(("head", "token"), rows[:MOST_SOURCES], rows))
    ]


def _sided(names: Sequence[str], rows: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Any]]) -> Table:
    """One column for one prompt; for two a column each, and the difference."""
    sides = [side for side in ("clean", "corrupt", "difference") if every and side in every[0]]
    places = decimals([row[side] for row in every for side in sides])
    cells = [[*(row[name] for name in names), *(fixed(row[side], places) for side in sides)] for row in rows]
    columns = (*names, *(["logits"] if len(sides) == 1 else sides))
    return Table(columns, cells, texts=frozenset(range(len(names))))


def _layers(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    """A table a side: what each point of the stream says of the answer, and what it would say itself."""
    sections = []
    for side in (side for side in ("clean", "corrupt") if side in rows[0]):
        found = [row[side] for row in rows]
        places = decimals([each["logit"] for each in found])
        cells = [
            [
                row["site"],
                fixed(each["logit"], places),
                fixed(each["prob"], 3),
                each["rank"],
                " ".join(repr(text) for text in each["says"][:MOST_SAID]),
            ]
            for row, each in zip(rows, found)
        ]
        several = " on the corrupt prompt" if side == "corrupt" else " on the clean prompt" if len(rows[0]) > 2 else ""
        lead = (
            f"The stream unembedded at each point, at the last position{several}: the {_read_for(results)}, the "
            "probability of the answer, how many tokens stand before it, and the likeliest tokens."
        )
        table = Table(("stream", "logit", "prob.", "before it", "would say"), cells, texts=frozenset({0, 4}))
        sections.append(Section(f"lens-{side}", f"What each layer would say{several}", lead, table))
    return sections


MOST_SAID = 3

MOST_MEMBERS = 30
MOST_PAIRS = 20

BUILDERS = {
    "ends": _ends,
    "writers": _writers,
    "sources": _sources,
    "lens": _layers,
    "baselines": _baselines,
    "top": _top,
    "calibration": _calibration,
    "wholes": _wholes,
    "flags": _flags,
    "explanation": _explanation,
    "other_metrics": _others,
    "circuit": _circuit,
    "members": _members,
    "restored": _restored,
    "prompts": _prompts,
}
