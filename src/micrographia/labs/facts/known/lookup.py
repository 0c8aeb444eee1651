"""Is the attribute looked up at the subject, and when: windows of layers ablated, and the stream replaced by a table.

Sources: Nanda et al. 2023, "Fact Finding", post 2 (mean-ablated MLPs and attention at the last name token); Geva et al.
2023 (arXiv 2304.14767). The table is read off other contexts, so that what survives owes nothing to this prompt.
"""

from typing import NamedTuple

import torch

from micrographia.core.edits import Edit
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.sites import Site
from micrographia.labs.facts.known.asked import PromptBatch, RecalledFacts, SubjectPrompts, accuracy, written

NEUTRAL = "This text is about {}"
KINDS = ("mlp_out", "attn_out")


class Ablated(NamedTuple):
    """Accuracy with the mean over the facts written at one token, over a window of layers."""

    kind: str
    first: int
    last: int
    at_subject: float
    after_it: float
    """The same at the token after the subject: the control."""


class ReplacedLayer(NamedTuple):
    """The residual stream at the subject after a layer, taken from a text that asks for nothing."""

    layer: int
    own: float
    """Accuracy with the subject's own."""
    swapped: float
    """Accuracy with that of a subject with another answer."""
    donor: float
    """How often the answer is then the other subject's."""


def ablated(prompts: SubjectPrompts, known: RecalledFacts, window: int, watch: Watch = silent) -> list[Ablated]:
    """Two runs a window and kind, from the window's first layer on."""
    n_layers = prompts.model.shape.n_layers
    windows = [range(first, min(first + window, n_layers)) for first in range(0, n_layers, window)]
    found = list[Ablated]()
    means = {
        kind: prompts.at_subject([Site(kind, layer) for layer in range(n_layers)]) for kind in KINDS
    }  # fmt: skip
    for done, layers in enumerate(windows, start=1):
        entering = prompts.entering(layers[0])
        for kind in KINDS:

            def edits(batch: PromptBatch, shift: int, kind: str = kind, layers: range = layers) -> list[Edit]:
                sites = [Site(kind, layer) for layer in layers]
                return [
                    written(
                        site, means[kind][site].mean(0, keepdim=True).expand(len(batch.rows), -1), batch.last + shift
                    )
                    for site in sites
                ]

            at, after = (
                accuracy(
                    prompts.answers(lambda batch, shift=shift: edits(batch, shift), layer=layers[0], entering=entering),
                    known.label,
                )
                for shift in (0, 1)
            )
            found.append(Ablated(kind, layers[0], layers[-1], at, after))
        watch(Progress("ablate at the subject", done, len(windows), "window"))
    return found


def replaced(
    prompts: SubjectPrompts, known: RecalledFacts, layers: list[int], watch: Watch = silent
) -> list[ReplacedLayer]:
    """A pass over the neutral texts, and two runs a layer, from it on."""
    texts = [NEUTRAL.format(subject) for subject in known.subjects]
    sites = [Site("resid_post", layer) for layer in layers]
    table = SubjectPrompts.of(prompts.model, known, texts).at_subject(sites)
    other = _others(known)
    found = list[ReplacedLayer]()
    for done, site in enumerate(sites, start=1):
        layer = site.layer or 0
        entering = prompts.entering(layer)

        def logits(rows: torch.Tensor, site: Site = site, layer: int = layer, entering: list[torch.Tensor] = entering):
            return prompts.answers(
                lambda batch: [written(site, table[site][rows[batch.rows]], batch.last)], layer=layer, entering=entering
            )

        own, swapped = logits(torch.arange(prompts.n)), logits(other)
        donors = accuracy(swapped, known.label[other])
        found.append(ReplacedLayer(layer, accuracy(own, known.label), accuracy(swapped, known.label), donors))
        watch(Progress("replace at the subject", done, len(sites), "layer"))
    return found


def _others(known: RecalledFacts) -> torch.Tensor:
    """For each fact the next one with another answer."""
    n = len(known.label)
    return torch.tensor(
        [next((i + k) % n for k in range(1, n) if known.label[(i + k) % n] != known.label[i]) for i in range(n)]
    )
