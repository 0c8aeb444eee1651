"""What a training or an evaluation found: one table of dictionaries, each one's own tables, and its files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from micrographia.core import figures
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Progress, Watch
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings
from micrographia.core.model import Model
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.stream.rows import TokenRows
from micrographia.labs.sae.config import Evaluate, Train
from micrographia.labs.sae.latents import Read, read_latents
from micrographia.labs.sae.text import rows_holding
from micrographia.methods.dictionaries.evaluation.evaluate import LINEAR, OURS, Evaluation, evaluate
from micrographia.methods.dictionaries.evaluation.in_depth import InDepth
from micrographia.methods.dictionaries.evaluation.reading import Counted, counted_by

COLUMNS = {
    "name": "dictionary", "l0": "L0", "fvu": "FVU", "fvu_linear": "of linear map", "cosine": "cosine",
    "recovered_zero": "loss recovered (zero)", "recovered_mean": "loss recovered (mean)", "delta_loss": "delta loss",
    "dead_share": "dead",
}  # fmt: skip
RESULT = "What came of it"


def evaluated(
    asked: Train | Evaluate,
    model: Model,
    dictionaries: Mapping[str, Dictionary],
    held: TokenRows,
    loss_tokens: int,
    watch: Watch,
    *,
    site: Site | None = None,
    target: Site | None = None,
) -> dict[str, Evaluation]:
    """Each dictionary on the held-out rows; the spliced losses on the first of them."""
    known = counted(asked, model, held)
    loss_rows = min(len(held), rows_holding(asked.reading, loss_tokens)) if loss_tokens else 0
    found = {}
    for i, (name, each) in enumerate(dictionaries.items()):
        watch(Progress("evaluate", i, len(dictionaries), "dictionary"))
        found[name] = evaluate(
            each, model, site, held, generator=generator(asked.target.seed), target=target, counted=known,
            loss_rows=loss_rows, watch=watch,
        )  # fmt: skip
    watch(Progress("evaluate", len(dictionaries), len(dictionaries), "dictionary"))
    return found


def looked_at(
    asked: Train | Evaluate, model: Model, one: Dictionary, site: Site, rows: TokenRows, watch: Watch
) -> Read:
    """The latents of a dictionary, as far as tokens tell them."""
    draws, known = generator(asked.target.seed), counted(asked, model, rows)
    return read_latents(one, model, site, rows, asked.latents, counted=known, generator=draws, watch=watch)


def counted(asked: Train | Evaluate, model: Model, rows: TokenRows) -> Counted:
    """The tokens that count, those that are trained on too."""
    return counted_by(model, rows, skip_first=0 if asked.reading.keep_first else 1)


def row_of(name: str, found: Evaluation) -> dict[str, Any]:
    """One line of the table of dictionaries."""
    beside = {row["name"]: row for row in found.comparison()}
    linear = beside.get(LINEAR, {}).get("fvu")
    values = {**found.metrics.values(), **beside[OURS], "name": name, "fvu_linear": linear}
    return {key: values.get(key) for key in COLUMNS}


def findings(
    found: Mapping[str, Evaluation],
    text: Mapping[str, Any],
    *,
    opening: Sequence[str],
    files: Mapping[str, bytes],
    own: Mapping[str, Any],
    latents: Read | None = None,
    deep: InDepth | None = None,
) -> Findings:
    """The table of all dictionaries, what is read of the first one's latents, then each one's own tables."""
    rows = [row_of(name, each) for name, each in found.items()]
    columns = {key: title for key, title in COLUMNS.items() if any(row[key] is not None for row in rows)}
    shown = [figures.table("dictionaries", RESULT, rows, columns=columns, headline=True, group=RESULT)]
    shown += latents.figures if latents else []
    for name, each in found.items():
        shown += [_under(name, figure, many=len(found) > 1) for figure in each.figures()]
    results = {**own, "text": dict(text), "dictionaries": {name: each.as_json() for name, each in found.items()}}
    metrics = {key: [row[key] for row in rows] for key in columns}
    told = [*opening, *map(sentence, rows)]
    if latents:
        results["interpretation"] = latents.results
        told.append(latents.sentence)
    if deep:
        results["in_depth"] = deep.as_json()
        shown += deep.figures()
        told.append(deep.sentence())
    return Findings(results, shown, metrics=metrics, opening=told, files=files)


def sentence(row: Mapping[str, Any]) -> str:
    """What a dictionary is worth, in words."""
    lost = ""
    if row["delta_loss"] is not None:
        lost = (
            f" Spliced in, it costs {row['delta_loss']:.3g} nats a token; {row['recovered_mean']:.1%} of what "
            f"the mean costs is recovered, {row['recovered_zero']:.1%} of what zero costs."
        )
    share = 1 - row["fvu"]
    if row.get("fvu_linear") is not None:
        lost += f" The best linear map of as many components explains {1 - row['fvu_linear']:.1%}."
    return (
        f"{row['name']}: {row['l0']:.3g} latents are active at a token and explain {share:.1%} of the variance; "
        f"{row['dead_share']:.1%} of the latents never fired.{lost}"
    )


def _under(name: str, figure: Figure, *, many: bool) -> Figure:
    """A figure of one dictionary, below the table of all."""
    own = {"name": f"{figure.name}-{name}", "group": name} if many else {"group": "In detail"}
    return replace(figure, headline=False, **own)
