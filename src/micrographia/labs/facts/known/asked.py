"""Known facts as prompts that can be run again and again with changes at their subjects.

Everything acts at the last token of the subject, found by its letters. Examples stand before every question, so that
the subject is never at position 0, where many models keep a state that has nothing to do with the text (a sink).
Axes: prompt option.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.edits import Edit, apply
from micrographia.core.errors import UserError
from micrographia.core.model import Start
from micrographia.core.prompts import LanguageModel, onto
from micrographia.core.relations import WrittenRelation
from micrographia.core.sites import Site, SiteLike
from micrographia.core.subjects import subject_spans
from micrographia.core.tokens import Inputs, single_token
from micrographia.methods.recall import Recall

ROWS = 16
SURE = 0.5
"""Probability from which an answer counts as known, as in Nanda et al. 2023."""
EACH, FEWEST = 4, 16
"""Known facts of an answer, and of a relation, that looking into it needs. Our choice."""


class RecalledFacts(NamedTuple):
    """Facts that the model knows, of one relation; `label` counts in `answers`."""

    relation: WrittenRelation
    subjects: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    label: Int[Tensor, "prompt"]

    def some(self, rows: Int[Tensor, "chosen"]) -> "RecalledFacts":
        """Some of the facts, in this order."""
        chosen = rows.tolist()
        return self._replace(
            subjects=tuple(self.subjects[i] for i in chosen),
            prompts=tuple(self.prompts[i] for i in chosen),
            label=self.label[rows],
        )


def known_of(found: Recall) -> RecalledFacts:
    """The questions that were answered right: likelier than `SURE`, or the likeliest of the relation's answers.

    Answers with fewer than `EACH` known facts are left out. Raises UserError where fewer than `FEWEST` facts of two
    answers remain, with how many there are and are needed.
    """
    sure = (found.among | (found.probability > SURE)).tolist()
    kept = [each for each, good in zip(found.questions, sure) if good and len(each.answers) == 1]
    listed = [each.answers[0] for each in kept]
    answers = tuple(sorted({answer for answer in listed if listed.count(answer) >= EACH}))
    kept = [each for each in kept if each.answers[0] in answers]
    if len(kept) < FEWEST or len(answers) < 2:
        raise UserError(
            f"Asked to look into {found.relation.name!r}, of which the model knows {sum(sure)} of {len(sure)} facts, "
            f"{len(kept)} of them with one of {len(answers)} answers that have {EACH} known facts each. {FEWEST} facts "
            "of 2 answers are needed. Give more facts, a relation with fewer answers, or a larger model."
        )
    label = torch.tensor([answers.index(each.answers[0]) for each in kept])
    return RecalledFacts(found.relation, tuple(e.subject for e in kept), tuple(e.prompt for e in kept), answers, label)


@dataclass(frozen=True, eq=False, slots=True)
class PromptBatch:
    """SubjectPrompts that are run together, `rows` of all, and where their subjects end."""

    rows: Int[Tensor, "row"]
    inputs: Inputs
    last: Int[Tensor, "row"]


@dataclass(frozen=True, eq=False, slots=True)
class SubjectPrompts:
    """Prompts of one model, padded in batches of about one length."""

    model: LanguageModel
    batches: tuple[PromptBatch, ...]
    n: int
    options: Int[Tensor, "option"]
    """The first tokens of the answers."""

    @classmethod
    def of(cls, model: LanguageModel, known: RecalledFacts, texts: Sequence[str] | None = None) -> "SubjectPrompts":
        """The questions of known facts, or other texts that name their subjects. Raises BadPrompt (`subject_spans`)."""
        texts = list(known.prompts if texts is None else texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batches = list[PromptBatch]()
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            own, subjects = [texts[i] for i in rows], [known.subjects[i] for i in rows]
            inputs = model.to_tokens(own)
            last = subject_spans(model.tokenizer, own, inputs, subjects)[:, 1]
            batches.append(PromptBatch(torch.tensor(rows), onto(model.weights.W_E.device, inputs), last))
        options = torch.tensor([single_token(model.tokenizer, f" {each}", first=True) for each in known.answers])
        return cls(model, tuple(batches), len(texts), options)

    def at_subject(self, sites: Iterable[SiteLike]) -> dict[Site, Tensor]:
        """Activations at the last token of each subject. One pass."""
        return self._kept(list(sites), lambda batch: batch.last)

    def at_end(self, sites: Iterable[SiteLike]) -> dict[Site, Tensor]:
        """Activations at the last position. One pass."""
        return self._kept(list(sites), lambda batch: torch.full((len(batch.rows),), -1))

    def _kept(self, sites: list[SiteLike], place: Callable[[PromptBatch], Tensor]) -> dict[Site, Tensor]:
        found: dict[Site, list[Tensor]] = {}
        for batch in self.batches:
            cache = self.model.run(batch.inputs, keep=sites, logits="last").cache
            for site in cache:
                found.setdefault(site, []).append(cache[site][torch.arange(len(batch.rows)), place(batch)])
        back = torch.cat([batch.rows for batch in self.batches]).argsort()
        return {site: torch.cat(parts)[back] for site, parts in found.items()}

    def entering(self, layer: int) -> list[Tensor]:
        """The residual stream that enters a layer, of every batch, to start from; none at layer 0. A pass below it."""
        if layer == 0:
            return []
        site = Site("resid_post", layer - 1)
        return [self.model.run(batch.inputs, keep=site, stop=layer).cache[site] for batch in self.batches]

    def answers(
        self, edits: Callable[[PromptBatch], Sequence[Edit]] = lambda batch: (), *, layer: int = 0,
        entering: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, "prompt option"]:  # fmt: skip
        """Logits of the options at the last position, under edits; from `layer` on where its residual is given."""
        found = []
        for i, batch in enumerate(self.batches):
            start = Start(layer, entering[i]) if entering else None
            logits = self.model.run(batch.inputs, edits=edits(batch), logits="last", start=start).logits
            found.append(logits[:, -1, self.options].float().cpu())
        back = torch.cat([batch.rows for batch in self.batches]).argsort()
        return torch.cat(found)[back]


def written(site: SiteLike, values: Float[Tensor, "row d"], at: Int[Tensor, "row"]) -> Edit:
    """Write a value at one position of every row."""

    def change(old: Tensor) -> Tensor:
        rows = torch.arange(len(old), device=old.device)
        old[rows, at.to(old.device)] = values.to(old)
        return old

    return apply(site, change)


def accuracy(logits: Float[Tensor, "prompt option"], label: Int[Tensor, "prompt"]) -> float:
    return float((logits.argmax(-1) == label).double().mean())
