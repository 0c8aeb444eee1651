"""Linear probes that others published, judged on games: what each mode reads, at which layer, and how well.

Files do not say which layer a probe is of, in which order its classes stand, and what its modes are. So every site,
order and frame is tried on some games, and the best of each mode is judged on others. Two modes, for even and odd
plies, make a probe of the mover's frame (Nanda's notebook: mine is white in the one, black in the other), and their
cosines are the finding of Nanda, Lee and Wattenberg 2023 (arXiv 2309.00941). Axes: mode site d square class.
"""

from itertools import permutations
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.core.small.transformer import Transformer
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.reading import labelled, reader, sites_of
from micrographia.labs.othello.task import EMPTY, MINE, PARITIES, THEIRS
from micrographia.methods.probes.probe import ProbeLayer, Probes, ProbeTarget, SiteProbes
from micrographia.methods.probes.score import score_probes

TRIED_ON, JUDGED_ON = 60, 61  # numbers of samples
READ_AS = ("mover", "absolute", *PARITIES)
CLASSES = {"mover": ("empty", "mine", "theirs")}
COLOURS = ("empty", "black", "white")
BOTH = "even and odd as one"
HALF = 0.05
"""A mode is one of a parity alone where that is read so much better than all plies are."""


class PublishedProbe(NamedTuple):
    """One mode of a file: `order` says what its classes are, of empty, mine (or black), theirs (or white)."""

    mode: str
    frame: str
    order: tuple[int, ...]
    site: int
    accuracy: float
    whole: float

    def row(self, model: Transformer) -> dict[str, Any]:
        names = CLASSES.get(self.frame, COLOURS)
        return {
            "mode": self.mode,
            "reads": self.frame,
            "classes": ", ".join(names[i] for i in self.order),
            "site": str(sites_of(model)[self.site]),
            "accuracy": self.accuracy,
            "whole": self.whole,
        }


class JudgedProbes(NamedTuple):
    """Every mode, and the cosines between the first two, mean over squares: of one colour less the other, of empty."""

    modes: list[PublishedProbe]
    colour: float | None
    empty: float | None


def judge_probes(config: Config, model: Transformer, weights: Float[Tensor, "mode d square class"]) -> JudgedProbes:
    """Find out what each mode reads, and how well on other games. Two runs over `test_games` games."""
    found = [_judged(config, model, f"mode {i}", weight) for i, weight in enumerate(weights)]
    if len(weights) < 2 or {found[0].frame, found[1].frame} != set(PARITIES):
        return JudgedProbes(found, None, None)
    ordered = [weights[i][..., _places(found[i].order)] for i in range(2)]
    colour = [W[..., MINE] - W[..., THEIRS] for W in ordered]
    empty = [W[..., EMPTY] - (W[..., MINE] + W[..., THEIRS]) / 2 for W in ordered]
    turned = [W if found[i].frame == "even" else W[..., [EMPTY, THEIRS, MINE]] for i, W in enumerate(ordered)]
    found.append(_judged(config, model, BOTH, (turned[0] + turned[1]) / 2, ("mover",)))
    return JudgedProbes(found, _cosine(*colour), _cosine(*empty))


def _places(order: tuple[int, ...]) -> list[int]:
    """Where empty, mine and theirs stand."""
    return [order.index(c) for c in range(3)]


def _cosine(a: Float[Tensor, "d square"], b: Float[Tensor, "d square"]) -> float:
    """Mean over the squares that both have."""
    there = (a.norm(dim=0) > 0) & (b.norm(dim=0) > 0)
    return float(torch.cosine_similarity(a[:, there], b[:, there], dim=0).mean())


def _judged(
    config: Config,
    model: Transformer,
    mode: str,
    weight: Float[Tensor, "d square class"],
    frames: tuple[str, ...] = READ_AS,
) -> PublishedProbe:
    tried = {frame: _confusion(config, model, weight, frame, TRIED_ON) for frame in frames}
    each = [
        (float(_right(counts[0][site], order)), frame, order, site)
        for frame, counts in tried.items()
        for site in range(len(counts[0]))
        for order in permutations(range(3))
    ]
    best = max(each)
    whole_game = [one for one in each if one[1] not in PARITIES]
    if whole_game and max(whole_game)[0] > best[0] - HALF:  # a frame of every ply, of which a parity is the easier half
        best = max(whole_game)
    _, frame, order, site = best
    counts, whole = _confusion(config, model, weight[..., _places(order)], frame, JUDGED_ON)
    return PublishedProbe(mode, frame, order, site, _right(counts[site], (0, 1, 2)), float(whole[site]))


def _right(counts: Int[Tensor, "true said"], order: tuple[int, ...]) -> float:
    """Accuracy where class c of the probe means `order[c]`."""
    return float(sum(counts[order[c], c] for c in range(3)) / counts.sum())


def _confusion(
    config: Config, model: Transformer, weight: Float[Tensor, "d square class"], frame: str, sample: int
) -> tuple[Int[Tensor, "site true said"], Float[Tensor, "site"]]:
    """Counts at every site, and how often the whole board is right."""
    n_sites, flat = len(sites_of(model)), weight.flatten(1)
    layer = ProbeLayer(flat.expand(n_sites, *flat.shape), flat.new_zeros(n_sites, flat.shape[1]))
    probes = Probes({frame: SiteProbes(ProbeTarget(weight.shape[1], 3), layer)})
    rows = labelled(config, reader(model), sample, config.probing.test_games // 2, (frame,))
    found = score_probes(probes, rows, n_groups=1 + config.n_ctx)[frame]
    return found.counts.sum((1, 2)), found.whole_accuracy()


def figure_of(model: Transformer, found: JudgedProbes, group: str) -> Figure:
    """A row a mode."""
    columns = {
        "mode": "", "reads": "reads", "classes": "classes", "site": "best site", "accuracy": "accuracy",
        "whole": "whole board right",
    }  # fmt: skip
    said = "" if found.colour is None else (
        f" Cosine of even and odd: of black less white {found.colour:.3f}, of empty {found.empty:.3f}."
    )  # fmt: skip
    return figures.table(
        "published-probes", "The probes that were given", [each.row(model) for each in found.modes], columns=columns,
        group=group, caption="Frame, layer and order of classes were found on some games, and judged on others." + said,
    )  # fmt: skip
