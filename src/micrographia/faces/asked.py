"""The results of a question to a model (the workbench's Runs), as sections: ends, places, checks, and what they show.

Part of `outline`, which puts them among the others. Values are put in order here; nothing is computed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.core.claims import Run
from micrographia.faces import words
from micrographia.faces.sections import Section, Table

LAB = "workbench"
TITLES = {"patch": "Patching", "attribute": "Attribution in", "trace": "Tracing a fact in", "circuit": "A circuit in"}
ELSEWHERE = ("question", "model", "n_prompts", "places")
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
    "denoise": ("restored", "by denoising"),
    "noise": ("destroyed", "by noising"),
}


def _top(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Section]:
    modes = [mode for mode, (share, _) in TOP.items() if rows and share in rows[0]]
    unit = next((row["unit"] for row in results.get("baselines") or ()), "")
    columns = ["place", "token", *(name for mode in modes for name in TOP[mode])]
    cells = [[row["part"], row.get("token"), *(cell for mode in modes for cell in _both(row, mode))] for row in rows]
    estimated = "estimated " if results.get("question") == "attribute" else ""
    lead = f"The largest {estimated}effects: as a share of the gap, and as a change in {unit}. {_spread_of(results)}"
    if not any(row.get("token") for row in rows):
        columns, cells = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in cells]
        return [Section("top", "The places that matter most", lead, Table(columns, cells))]
    return [Section("top", "The places that matter most", lead, Table(columns, cells, texts=frozenset({0, 1})))]


def _both(row: Mapping[str, Any], mode: str) -> list[Any]:
    share, _ = TOP[mode]
    found = row.get(share)
    return [
        words.NOTHING if found is None else rounded(found),
        with_spread(row.get(f"{mode}_change"), row.get(f"{mode}_sd")),
    ]


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


MOST_PAIRS = 20

BUILDERS = {
    "baselines": _baselines,
    "top": _top,
    "explanation": _explanation,
    "other_metrics": _others,
    "prompts": _prompts,
}
