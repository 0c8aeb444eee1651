"""What all questions share: the common part of their results, and the tables that stand beside their own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.errors import UserError
from micrographia.core.events import Watch
from micrographia.core.figures import Figure, table, text
from micrographia.core.lab import Findings
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Baselines
from micrographia.core.titles import MODES
from micrographia.labs.workbench import answers, words
from micrographia.labs.workbench.config import Question, kind_of
from micrographia.labs.workbench.prompts import PromptSet

Compute = Callable[[Generator, Watch], Findings]
"""What is left to do of a question once everything that the user chose has been checked."""
TITLES = {
    "patch": "Patching",
    "attribute": "Attribution in",
    "trace": "Causal tracing in",
    "circuit": "A circuit in",
    "lens": "Logit lens of",
}
MOST_PLACES = 2000
"""Places in the results; all of them are in the table of the Run."""
MOST_PAIRS = 20
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

    Tables come first, then the explanation, pictures, and the prompts; of a question about pairs the baselines and the
    largest effects (`top` of its results) are the first of all.
    """
    name, shape, kind = question.target.model, model.shape, kind_of(question)
    results: dict[str, Any] = {
        "question": kind,
        "title": f"{TITLES[kind]} {name.rstrip('/').rpartition('/')[2]}",
        "subtitle": question.target.dtype,
        "model": {"name": name, "layers": shape.n_layers, "heads": shape.n_heads, "d_model": shape.d_model},
    }
    first = list[Figure]()
    if prompts is not None:
        n = len(prompts.texts)
        pairs = "one prompt pair" if n == 1 else f"{n} prompt pairs"
        if not baselines:
            pairs = "one prompt" if prompts.alone else "two prompts"
        results["subtitle"] = f"{pairs}, {answers.around_words(prompts.around)}, {question.target.dtype}"
        results |= {"answers": answers.recorded(prompts.check, model.tokenizer), "around": prompts.around._asdict()}
        first += prompts.tables(model)
        told = prompts.sentences(model)
        if baselines:
            results |= {"n_prompts": n, "baselines": baseline_rows(baselines), "prompts": prompts.rows(model)}
            told += words.opening(baselines[0], n)
            first.append(baseline_table(results["baselines"], n))
        summary = [*told, *summary]
        if "top" in own:
            first.append(top_table(own["top"], baselines[0].metric.unit, n, "estimated " * (kind == "attribute")))
    results |= own
    tables = [*first, *(each for each in figures if each.group != PICTURES)]
    if results.get("explanation"):
        tables.append(text("explanation", EXPLANATION, results["explanation"], group=EXPLANATION))
    pictures = [each for each in figures if each.group == PICTURES]
    last = prompt_tables(results["prompts"]) if "prompts" in results else []
    return Findings(results, [*tables, *pictures, *last], metrics=metrics, opening=summary)


def spread(values: Float[Tensor, "prompt"]) -> float | None:
    """The standard deviation over prompts; None for one prompt."""
    return float(values.double().std()) if len(values) > 1 else None


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
    for mode, direction in MODES.items():
        exact = f"{direction.verb}_exactly"
        if rows and exact in rows[0]:
            fields |= {direction.verb: direction.verb, exact: "exactly"}
            caption = "The largest estimates as shares of the gap, beside the exact effect where it was measured."
        else:
            fields |= {direction.verb: direction.verb, f"{mode}_change": "change", f"{mode}_sd": "SD"}
    title = "Largest effects"
    return table("top", title, rows, columns=_filled(fields, rows), caption=caption, group=title)


def prompt_tables(pairs: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """The first pairs; and the tokens of the very first, position by position, where they differ set off."""
    fields = _filled({name: name for name in ("clean", "corrupt", "answer", "wrong")}, pairs)
    caption = f"The first {MOST_PAIRS} of {len(pairs)}." if len(pairs) > MOST_PAIRS else ""
    about: dict[str, Any] = {"group": PROMPTS, "essential": False}
    found = [table("prompts", PROMPTS, pairs[:MOST_PAIRS], columns=fields, caption=caption, **about)]
    if clean := pairs[0].get("corrupt_tokens") and pairs[0].get("clean_tokens"):
        rows = [[i, one, other] for i, (one, other) in enumerate(zip(clean, pairs[0]["corrupt_tokens"]))]
        differ = [i for i, one, other in rows if one != other]
        columns = ["position", "clean", "corrupt"]
        title = "The first pair, token by token"
        found.append(table("tokens", title, rows, columns=columns, highlight=differ, **about))
    return found
