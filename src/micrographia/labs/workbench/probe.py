"""Probe: how well each layer tells the labels of texts, beside shuffled labels, the commonest class and no training."""

from collections import Counter
from typing import Any

from torch import Generator

from micrographia.core.events import Watch
from micrographia.core.lab import Findings, columns_of
from micrographia.core.prompt_files import read_labelled
from micrographia.core.prompts import LanguageModel
from micrographia.core.questions import names
from micrographia.core.runtime import generator
from micrographia.core.sites import select
from micrographia.core.store.formats import tensors_bytes
from micrographia.labs.workbench.config import TEXT_COLUMNS, Probing, positions_of
from micrographia.labs.workbench.config import columns_of as columns_named
from micrographia.labs.workbench.findings import Compute, findings
from micrographia.labs.workbench.prompts import check_length, framing_of
from micrographia.methods.probes.on_model import probe
from micrographia.methods.probes.places import labelled_places, split_places
from micrographia.methods.probes.probed import Probed

DIRECTION, DIRECTIONS = "direction.safetensors", "directions.safetensors"
MEMORISED = 0.1
"""Training accuracy on shuffled labels above the commonest class by so much is told. Our choice."""
EXPLAINED = (
    "Every Site has a probe of its own, multinomial logistic regression, fitted to some texts and judged on others; "
    "texts of one group are on the same side.",
    "Shuffled labels: the same probe fitted to, and judged by, labels that were dealt out anew among the texts. What "
    "it reaches there it owes to itself; the difference is its selectivity (Hewitt and Liang 2019).",
    "A probe says what can be read off a Site, not what the model uses. Patch, or steer along its direction.",
)


def prepare_probe(question: Probing, model: LanguageModel) -> Compute:
    """Read the texts and split them; what remains is to read activations and to fit."""
    rows = read_labelled(
        question.text_labels, columns=columns_named(question.columns, TEXT_COLUMNS), limit=question.limit
    )
    inputs = framing_of(question.around).tokens(model, [row.text for row in rows])
    check_length(inputs, model)
    select(model.sites, names(question.sites))
    labels = [row.label for row in rows]
    groups = None if rows[0].group is None else [row.group for row in rows]
    at = positions_of(question.at)
    places = labelled_places(inputs, labels, at=at, groups=groups)
    split_places(places, question.test_share, generator(question.target.seed))

    def work(_: Generator, watch: Watch) -> Findings:
        found = probe(
            model,
            inputs,
            labels,
            names(question.sites),
            at=at,
            hidden=question.hidden,
            groups=groups,
            test_share=question.test_share,
            steps=question.steps,
            weight_decay=question.weight_decay,
            untrained=question.untrained,
            memory=question.memory,
            seed=question.target.seed,
            watch=watch,
        )
        sizes = Counter(map(str, labels))
        results: dict[str, Any] = {
            "n_texts": len(rows),
            "classes": {name: sizes[name] for name in found.classes},
            "split": found.sizes._asdict(),
            "best": str(found.best.site),
            "confusions": found.best.counts.sum(0).tolist(),
            "sites": found.rows(),
            "explanation": [*EXPLAINED],
        }
        done = findings(
            question,
            model,
            results,
            summary=[_data(question, found, sizes), *summary(found)],
            figures=found.figures(),
            metrics=columns_of(found.rows()),
        )
        return done if question.hidden else done._replace(files=_files(found))

    return work


def _data(question: Probing, found: Probed, sizes: Counter[str]) -> str:
    kind = "Linear probes" if found.hidden is None else f"Probes with {found.hidden} hidden neurons"
    where = {"last": "the last token", "all": "every token"}.get(question.at, f"positions {question.at}")
    told = ", ".join(f"{name} {n}" for name, n in sizes.most_common(6))
    more = f" and {len(sizes) - 6} more" if len(sizes) > 6 else ""
    return f"{kind} at {where} of {sizes.total()} texts ({told}{more}), {found.sizes}."


def summary(found: Probed) -> list[str]:
    """What was read best, beside its nulls, and what to doubt."""
    best, n = found.best, len(found.scores)
    low, high = found.interval(best)
    near = sum(each.accuracy >= low for each in found.scores) - 1
    others = "another lies" if near == 1 else f"{near or 'no'} others lie"
    chosen = f" It is the best of {n} Sites on the texts that judge it, which favours it; {others} within its interval."
    told = [
        f"At {best.site} the probe is right on {best.accuracy:.1%} ({low:.1%} to {high:.1%}) of test labels, beside "
        f"{best.majority:.1%} for the commonest class and {best.shuffled:.1%} with shuffled labels.{chosen * (n > 1)}"
    ]
    if low <= max(best.majority, best.shuffled):
        told.append("Warning: within its interval that is no more than these two: nothing was read.")
    if best.untrained is not None:
        null = max(each.untrained or 0.0 for each in found.scores)
        told.append(
            f"On the model without training the same probe is right on {best.untrained:.1%} there, and on {null:.1%} "
            "at its own best Site."
        )
        if low <= null:
            told.append(
                "Warning: within its interval the model without training does as well: what is read may be in the "
                "tokens, not in what was learned."
            )
    if best.shuffled_train > best.majority + MEMORISED:
        told.append(
            f"The probe learns shuffled labels by heart, {best.shuffled_train:.1%} of those that it was fitted to: "
            "only what it reaches on test texts counts."
        )
    return told


def _files(found: Probed) -> dict[str, bytes]:
    """The directions of the best Site: of two classes that of the second, which `generate` can add."""
    directions = found.directions(found.best.site)
    every = {DIRECTIONS: tensors_bytes({str(i): each for i, each in enumerate(directions.values())})}
    if len(directions) > 2:
        return every
    return {DIRECTION: tensors_bytes({"direction": [*directions.values()][1]})}
