"""Generate and steer: how a model goes on with a prompt, as it is, under edits, and along a direction."""

from typing import Any

from torch import Generator

from micrographia.core import figures
from micrographia.core.answers import choices
from micrographia.core.edit_words import read_edits
from micrographia.core.events import Progress, Watch
from micrographia.core.lab import Findings
from micrographia.core.prompts import LanguageModel
from micrographia.core.sites import one_site
from micrographia.core.store.formats import tensors_bytes
from micrographia.core.tokens import single_token
from micrographia.labs.workbench.ablate import texts_of
from micrographia.labs.workbench.config import Generate, Steer, strengths_of
from micrographia.labs.workbench.findings import Compute, findings
from micrographia.labs.workbench.prompts import check_length, framing_of
from micrographia.methods.steering import continued, steer

SAID = "What the model says"
VECTOR = "vector.safetensors"


def prepare_generate(question: Generate, model: LanguageModel) -> Compute:
    """Read the edits; what remains is to generate."""
    framing, edits = framing_of(question.around), read_edits(question.edits, model)
    check_length(framing.tokens(model, [question.prompt]), model)

    def work(generator: Generator, watch: Watch) -> Findings:
        sides = {"as it is": [], **({question.edits: edits} if edits else {})}
        said = [
            {"how": how, "text": continued(model, question.prompt, own, tokens=question.tokens, framing=framing)}
            for how, own in sides.items()
        ]
        results = {"prompt": question.prompt, "said": said}
        summary = [f"The prompt is {question.prompt!r}; at most {question.tokens} tokens, the most likely each."]
        return findings(question, model, results, summary=summary, figures=[_said(said)], metrics=_columns(said))

    return work


def prepare_steer(question: Steer, model: LanguageModel) -> Compute:
    """Read prompts, place and words; what remains is to take the direction, and to generate."""
    site = f"L{model.shape.n_layers // 2}.resid_pre" if question.site == "L*.resid_pre" else question.site
    one_site(model.sites, site)
    framing, strengths = framing_of(question.around), strengths_of(question.strength)
    sides = [texts_of(each) for each in (question.positive, question.negative)]
    named = [str(each) for each in choices(question.words)] if question.words is not None else []
    words = [(word, single_token(model.tokenizer, word)) for word in named]
    check_length(framing.tokens(model, [question.prompt, *sides[0], *sides[1]]), model)

    def work(generator: Generator, watch: Watch) -> Findings:
        found = steer(model, sides[0], sides[1], site, at=question.at, framing=framing)
        said = list[dict[str, Any]]()
        for i, strength in enumerate((0.0, *strengths)):
            said.append(
                {"strength": strength, "text": found.at(strength).generate(question.prompt, tokens=question.tokens)}
            )
            watch(Progress("generating", i + 1, len(strengths) + 1, "text"))
        rows = found.odds(question.prompt, words, (0.0, *strengths), question.null, generator).rows() if words else []
        norm = float(found.vector.norm())
        results = {"site": site, "norm": norm, "size": found.size, "said": said, "odds": rows, "vector": VECTOR}
        summary = [
            f"The direction at {site}, from {len(sides[1])} negative to {len(sides[0])} positive prompts, has norm "
            f"{norm:.3g}; the activations it is added to have {found.size:.3g}.",
            *(_odds_sentence(row, question.null) for row in rows if row["strength"] == strengths[-1]),
            f"{VECTOR} in the Run holds the direction, for `micrographia generate --edits`.",
        ]
        shown = [_said(said)]
        if rows:
            cells = [
                {**row, "random": {"low": row["random_low"], "high": row["random_high"], "mean": row["random_mean"]}}
                for row in rows
            ]
            columns = {"word": "word", "strength": "strength", "probability": "probability"}
            columns |= {"random": f"{question.null} random directions"}
            caption = "As the next token after the prompt; beside it the mean and the extremes of random directions."
            shown.append(figures.table("odds", "Probability of the words", cells, columns=columns, caption=caption))
        done = findings(question, model, results, summary=summary, figures=shown, metrics=_columns(said))
        return done._replace(files={VECTOR: tensors_bytes({"vector": found.vector})})

    return work


def _odds_sentence(row: dict[str, Any], n: int) -> str:
    return (
        f"{row['word']!r} has probability {row['probability']:.3g} at strength {row['strength']:g}; under random "
        f"directions of that norm {row['random_mean']:.3g} on average, and at least as much under {row['beaten_by']} "
        f"of {n}."
    )


def _said(rows: list[dict[str, Any]]) -> figures.Figure:
    return figures.table("said", SAID, rows, group=SAID, headline=True)


def _columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in rows[0]}
