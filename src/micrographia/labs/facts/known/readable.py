"""Where an attribute can be read before it is asked for: probes at the subject's last token, layer by layer.

Texts end with the subject, so that nothing of the question is seen. Three forms are compared: a neutral beginning; the
subject alone, whose first token is then at position 0, where a sink may be; and the examples of the question, which
give the relation away. Floors: the commonest answer; the vote of other subjects with the same last or first token; a
probe of the summed embeddings of the subject's tokens (what they tell without being looked up together); shuffled
labels; and the model without its training. Source: Nanda et al. 2023, "Fact Finding", posts 2 and 3.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from micrographia.core.events import Watch, renamed, silent
from micrographia.core.prompts import LanguageModel
from micrographia.core.runtime import batch_generator
from micrographia.core.sites import Site
from micrographia.core.tokens import ids_of
from micrographia.labs.facts.known.asked import RecalledFacts
from micrographia.labs.facts.known.lookup import NEUTRAL
from micrographia.methods.probes.fit import Fitting, fit_probes
from micrographia.methods.probes.on_model import probe
from micrographia.methods.probes.probe import LabelledRows, ProbeTarget

FORMS = ("neutral", "alone", "with examples")
TEST_SHARE = 0.25


class Readable(NamedTuple):
    """Accuracy of probes on facts that they were not fitted to, the mean over splits."""

    layers: tuple[int, ...]
    accuracy: dict[str, Float[ndarray, "layer"]]
    """Of every form."""
    scatter: Float[ndarray, "layer"]
    """Standard error over splits, of the neutral form."""
    shuffled: Float[ndarray, "layer"]
    untrained: Float[ndarray, "layer"]
    embeddings: float
    """Of a probe of the summed embeddings of the subject's tokens."""
    last_token: float
    """Vote of the other subjects with the same last token; the commonest answer where there are none."""
    first_token: float
    commonest: float


def readable(
    model: LanguageModel, known: RecalledFacts, *, every: int, splits: int, steps: int, seed: int, watch: Watch = silent
) -> Readable:
    """A pass of the texts for each form and split, and one of the model without training."""
    layers = [*range(0, model.shape.n_layers, every), model.shape.n_layers - 1]
    layers = list(dict.fromkeys(layers))
    sites = [Site("resid_post", layer) for layer in layers]
    labels = [known.answers[i] for i in known.label.tolist()]
    found, shuffled, untrained = {form: np.zeros((splits, len(sites))) for form in FORMS}, [], []
    for form in FORMS:
        inputs = model.to_tokens(texts_of(known, form))
        for split in range(splits):
            null = form == FORMS[0] and split == 0
            read = probe(
                model, inputs, labels, sites, groups=list(known.subjects), test_share=TEST_SHARE, steps=steps,
                untrained=null, seed=seed + split, watch=renamed(watch, f"probe, {form}"),
            )  # fmt: skip
            found[form][split] = [each.accuracy for each in read.scores]
            if form == FORMS[0]:
                shuffled.append([each.shuffled for each in read.scores])
            untrained += [[each.untrained for each in read.scores]] if null else []
    tokens = [subject_tokens(model, subject) for subject in known.subjects]
    return Readable(
        tuple(layers),
        {form: each.mean(0) for form, each in found.items()},
        found[FORMS[0]].std(0, ddof=1) / np.sqrt(splits) if splits > 1 else np.full(len(sites), np.nan),
        np.mean(shuffled, 0),
        np.array(untrained[0], dtype=float),
        additive(model, known, tokens, splits=splits, steps=steps, seed=seed),
        vote([own[-1] for own in tokens], labels),
        vote([own[0] for own in tokens], labels),
        max(Counter(labels).values()) / len(labels),
    )


def texts_of(known: RecalledFacts, form: str) -> list[str]:
    """Texts that end with their subject."""
    if form == "neutral":
        return [NEUTRAL.format(subject) for subject in known.subjects]
    if form == "alone":
        return list(known.subjects)
    ends = [prompt.rfind(subject) + len(subject) for prompt, subject in zip(known.prompts, known.subjects)]
    return [prompt[:end] for prompt, end in zip(known.prompts, ends)]


def subject_tokens(model: LanguageModel, subject: str) -> list[int]:
    """Its tokens within a text."""
    before, whole = (ids_of(model.to_tokens(NEUTRAL.format(each).rstrip()))[0].tolist() for each in ("", subject))
    return whole[len(before) :]


def vote(keys: Sequence[int], labels: Sequence[str]) -> float:
    """Accuracy of the commonest answer among the other subjects of the same key, else among all others."""
    right = 0
    for i, (key, label) in enumerate(zip(keys, labels)):
        others = [(k, each) for j, (k, each) in enumerate(zip(keys, labels)) if j != i]
        alike = [each for k, each in others if k == key] or [each for _, each in others]
        right += Counter(alike).most_common(1)[0][0] == label
    return right / len(labels)


def additive(
    model: LanguageModel, known: RecalledFacts, tokens: Sequence[list[int]], *, splits: int, steps: int, seed: int
) -> float:
    """Accuracy of a probe of the summed embeddings of each subject's tokens, the mean over splits."""
    x = torch.stack([model.weights.W_E[own].float().sum(0) for own in tokens]).cpu()
    target, scores = {"answer": ProbeTarget(1, len(known.answers))}, list[float]()
    for split in range(splits):
        judged = _judged(known.label, batch_generator(seed + split, 0))
        rows = LabelledRows(x[None, ~judged], {"answer": known.label[~judged][:, None]})
        fitted = fit_probes(
            [rows] * steps, target, Fitting(steps=steps), generator=batch_generator(seed + split, 1)
        )  # fmt: skip
        said = fitted["answer"].logits(x[None, judged])[0, :, 0].argmax(-1)
        scores.append(float((said == known.label[judged]).double().mean()))
    return float(np.mean(scores))


def _judged(label: Tensor, random: torch.Generator) -> Tensor:
    """Every fourth fact of an order in which answers follow one another."""
    order = torch.randperm(len(label), generator=random)
    order = order[label[order].argsort(stable=True)]
    judged = torch.zeros(len(label), dtype=torch.bool)
    judged[order[:: round(1 / TEST_SHARE)]] = True
    return judged
