"""Probe a model: fit probes of labels at every Site, on texts split from those that judge them, beside their nulls.

Sites of one width are fitted in one program, together with the same probes of shuffled labels. Every text is read once
where the activations fit in memory. Batches are drawn by (seed, step), so that a Site's linear probe does not depend on
which others are fitted. Source of the control: Hewitt and Liang 2019, "Designing and Interpreting Probes with Control
Tasks" (arXiv 1909.03368). Axes: site row item.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.edits import Edit
from micrographia.core.errors import BadConfig
from micrographia.core.events import Watch, renamed, silent
from micrographia.core.model import Model
from micrographia.core.prompts import onto
from micrographia.core.runtime import batch_generator
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.tokens import Inputs
from micrographia.core.untrained import untrained as without_training
from micrographia.methods.probes.fit import Fitting, fit_probes
from micrographia.methods.probes.places import At, LabelledPlaces, labelled_places, shuffled_labels, split_places
from micrographia.methods.probes.probe import LabelledRows, Probes, ProbeTarget, SiteProbes
from micrographia.methods.probes.probed import Probed, SiteScore, SplitSizes
from micrographia.methods.probes.read import PlaceReader, SiteStack
from micrographia.methods.probes.score import score_probes

TRUE, SHUFFLED = "label", "shuffled"
RATE = {False: 1e-2, True: 1e-3}
"""Of probes without and with a hidden layer: Lee's and Li's, as in `methods.probes.fit`."""
ROWS = 256
"""Of a batch."""
JUDGED = 4096
"""Rows that are judged at once."""
SPLIT, SHUFFLE, DRAW, FIRST = range(4)
"""Numbers of the generators; the orders of rows have those from FIRST on."""


class _Fitted:
    """The labels, split once, and what is fitted to them at a stack of Sites."""

    def __init__(self, places: LabelledPlaces, fitting: Fitting, test_share: float, seed: int) -> None:
        self.fitting, self.seed = fitting, seed
        self.parts = split_places(places, test_share, batch_generator(seed, SPLIT))
        dealt, random = places.labels.clone(), batch_generator(seed, SHUFFLE)
        for part in self.parts:
            dealt[part] = shuffled_labels(places, part, random)
        self.labels = {TRUE: places.labels, SHUFFLED: dealt}
        self.target = ProbeTarget(places.labels.shape[1], len(places.classes))

    def __call__(self, stack: SiteStack, names: Sequence[str], watch: Watch, task: str) -> Probes:
        targets = dict.fromkeys(names, self.target)
        random = batch_generator(self.seed, DRAW)
        return fit_probes(
            self._batches(stack.x, names), targets, self.fitting, generator=random, watch=watch, task=task
        )

    def _batches(self, x: Float[Tensor, "site row d"], names: Iterable[str]) -> Iterator[LabelledRows]:
        """Training rows without end, in a new order each time that all were seen."""
        epoch, train = FIRST, self.parts[0]
        while True:
            order = train[torch.randperm(len(train), generator=batch_generator(self.seed, epoch))]
            yield from (self._rows(x, rows, names) for rows in order.split(ROWS) if len(rows) > 1)
            epoch += 1

    def _rows(self, x: Float[Tensor, "site row d"], rows: Int[Tensor, "chosen"], names: Iterable[str]) -> LabelledRows:
        rows = rows.to(x.device)
        return LabelledRows(x[:, rows], {name: self.labels[name].to(x.device)[rows] for name in names})

    def counts(self, probes: Probes, stack: SiteStack, part: int) -> Mapping[str, Int[Tensor, "site item true said"]]:
        """On the training rows (part 0), or the test rows (part 1)."""
        blocks = (self._rows(stack.x, rows, probes.targets) for rows in self.parts[part].split(JUDGED))
        return {name: found.counts[:, 0] for name, found in score_probes(probes, blocks).items()}


def probe(
    model: Model,
    inputs: Inputs,
    labels: Sequence[Any] | Tensor,
    sites: SiteLike | Iterable[SiteLike] = "L*.resid_post",
    *,
    at: At | None = None,
    hidden: int | None = None,
    groups: Sequence[Hashable] | None = None,
    test_share: float = 0.25,
    steps: int = 500,
    weight_decay: float = 0.01,
    untrained: bool = False,
    edits: Sequence[Edit] = (),
    memory: float = 4.0,
    seed: int = 0,
    watch: Watch = silent,
) -> Probed:
    """How well a probe reads these labels off each Site, on texts that it was not fitted to.

    `labels`, `at` and `groups` as in `labelled_places`. `hidden`: neurons of a hidden layer; None: linear. `steps` of
    up to 256 rows. `untrained`: also off the model without its training. `memory`: GiB of activations held at once.
    Cost: a pass of the texts up to the last Site's layer (several where memory is short, twice as many with
    `untrained`), and each step three products of (row, d) with (d, items x classes) a Site, for true and for shuffled
    labels. Raises what `labelled_places`, `split_places` and `PlaceReader` do, UnknownSite, and BadConfig.
    """
    if steps < 1 or (hidden is not None and hidden < 1):
        raise BadConfig(f"Probes of {steps} steps and {hidden} hidden neurons were asked for. Ask for 1 at least.")
    chosen = select(model.sites, sites)
    inputs = onto(model.weights.W_E.device, inputs)
    places = labelled_places(inputs, labels, at=at, groups=groups)
    rate = RATE[hidden is not None]
    fitting = Fitting(steps=steps, hidden=hidden, lr=rate, weight_decay=weight_decay)
    fitted = _Fitted(places, fitting, test_share, seed)
    reader = PlaceReader(inputs=inputs, text=places.text, pos=places.pos, edits=edits, memory=memory)
    scores, probes = dict[Site, SiteScore](), dict[Site, SiteProbes]()
    for stack in reader.stacks(model, chosen, watch=watch):
        found = fitted(stack, (TRUE, SHUFFLED), watch, "probes")
        test, train = (fitted.counts(found, stack, part) for part in (1, 0))
        for i, site in enumerate(stack.sites):
            right = (_accuracy(train[TRUE][i]), _accuracy(test[SHUFFLED][i]), _accuracy(train[SHUFFLED][i]))
            scores[site], probes[site] = SiteScore(site, test[TRUE][i], *right), found[TRUE].at(i)
    if untrained:
        null = without_training(model, seed)
        for stack in reader.stacks(null, chosen, watch=renamed(watch, "activations without training")):
            test = fitted.counts(fitted(stack, (TRUE,), watch, "probes without training"), stack, 1)[TRUE]
            for site, counts in zip(stack.sites, test, strict=True):
                scores[site] = scores[site]._replace(untrained=_accuracy(counts))
    split = [places.group[places.text[part]].unique() for part in fitted.parts]
    sizes = SplitSizes(len(split[0]), len(split[1]), *map(len, fitted.parts), grouped=groups is not None)
    return Probed(
        tuple(scores[site] for site in chosen),
        probes,
        places.classes,
        sizes,
        reader.shapes(model, chosen),
        hidden,
        model.weights.W_E.dtype,
    )


def _accuracy(counts: Int[Tensor, "item true said"]) -> float:
    return float(counts.diagonal(dim1=-2, dim2=-1).sum() / counts.sum().clamp(min=1))
