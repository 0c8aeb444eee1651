"""Heads: every head's attention on random repeated tokens, beside that of a head that attends evenly."""

from typing import Any

from torch import Generator

from micrographia.core import figures
from micrographia.core.errors import BadConfig
from micrographia.core.events import Watch
from micrographia.core.lab import Findings
from micrographia.core.prompts import LanguageModel
from micrographia.labs.workbench.config import Heads
from micrographia.labs.workbench.findings import Compute, findings
from micrographia.methods.heads import CLEAR, KINDS, score_heads

TITLE = "The clearest heads"
LISTED = 8
"""Heads of a kind in a sentence."""


def prepare_heads(question: Heads, model: LanguageModel) -> Compute:
    """Check that the rows fit; what remains is to run them."""
    bos = getattr(model.tokenizer, "bos", None) if question.bos else None
    length = 2 * question.span + (bos is not None)
    if length > model.shape.n_ctx:
        raise BadConfig(
            f"Rows of {length} tokens were asked for; this model reads {model.shape.n_ctx}. Choose a shorter --span."
        )

    def work(generator: Generator, watch: Watch) -> Findings:
        found = score_heads(model, n=question.rows, span=question.span, generator=generator, bos=bos)
        clear = {kind: [row for row in found.rows(name) if row[name] > CLEAR] for name, kind in KINDS.items()}
        best = {row["head"]: row for name in KINDS for row in found.rows(name)[: question.top]}
        first, second = found.losses
        summary = [
            f"On random tokens that repeat after {question.span}, the loss is {first:.3g} nats per token in the first "
            f"copy and {second:.3g} in the second.",
            *(
                f"{kind.capitalize()} scores above {CLEAR}: {len(clear[kind])} of {len(found.rows())} heads"
                + "".join(f", {row['head']} {row[name]:.2f}" for row in clear[kind][:LISTED])
                + (f" and {len(clear[kind]) - LISTED} more." if len(clear[kind]) > LISTED else ".")
                for name, kind in KINDS.items()
            ),
            f"A head that attends evenly scores {found.chance:.2g}. A score says where a head attends, not what it "
            "does, which patching shows.",
        ]
        results: dict[str, Any] = {
            "chance": found.chance,
            "losses": {"first": first, "second": second},
            "heads": found.rows(),
            "clear": {kind: [row["head"] for row in rows] for kind, rows in clear.items()},
        }
        columns = {"head": "head"} | dict(KINDS)
        shown = [
            *found.figures(),
            figures.table("top", TITLE, list(best.values()), columns=columns, group=TITLE, headline=True),
        ]
        table = {name: [row[name] for row in found.rows()] for name in ("head", *KINDS)}
        return findings(question, model, results, summary=summary, figures=shown, metrics=table)

    return work
