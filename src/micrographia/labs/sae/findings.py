"""What a training or an evaluation found: one table of dictionaries, each one's own tables, and its files."""

from collections.abc import Mapping
from typing import Any

from micrographia.core import figures
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.dictionaries.formats import files_of
from micrographia.core.events import Progress, Watch
from micrographia.core.lab import Findings
from micrographia.core.model import Model
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.store.folder import DICTIONARIES
from micrographia.core.stream.rows import TokenRows
from micrographia.labs.sae.config import Evaluate, Reading, Train
from micrographia.labs.sae.text import rows_holding
from micrographia.methods.dictionaries.evaluation.evaluate import Evaluation, evaluate
from micrographia.methods.dictionaries.evaluation.reading import counted_by

COLUMNS = {
    "name": "dictionary", "l0": "L0", "fvu": "FVU", "recovered_zero": "loss recovered (zero)",
    "recovered_mean": "loss recovered (mean)", "delta_loss": "delta loss", "dead_share": "dead", "cosine": "cosine",
}  # fmt: skip


def evaluated(
    asked: Train | Evaluate, model: Model, dictionaries: Mapping[str, Dictionary], held: TokenRows, loss_tokens: int,
    watch: Watch, *, site: Site | None = None, target: Site | None = None,
) -> dict[str, Evaluation]:  # fmt: skip
    """Each dictionary on the held-out rows; the spliced losses on the first of them."""
    counted = counted_by(model, skip_first=0 if asked.reading.keep_first else 1)
    found = {}
    for i, (name, each) in enumerate(dictionaries.items()):
        watch(Progress("evaluate", i, len(dictionaries), "dictionary"))
        found[name] = evaluate(
            each, model, site or each.about.site, held, generator=generator(asked.target.seed),
            target=target or each.about.target, counted=counted,
            loss_rows=min(len(held), rows_holding(asked.reading, loss_tokens)) if loss_tokens else 0, watch=watch,
        )  # fmt: skip
    watch(Progress("evaluate", len(dictionaries), len(dictionaries), "dictionary"))
    return found
