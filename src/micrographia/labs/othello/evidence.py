"""All that is measured of one model, in the order of the papers: rules, probes, interventions, parts, behaviour."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from micrographia.core.events import Watch
from micrographia.core.intervals import Interval
from micrographia.core.runtime import generator
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.labs.othello.behaviour import (
    ReadBoards,
    Transpositions,
    own_board,
    read_boards,
    rolled_out,
    transpositions,
)
from micrographia.labs.othello.cases import read_cases
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.flips import WAYS, edits_of
from micrographia.labs.othello.growth import Grown, growth
from micrographia.labs.othello.history import HIDDEN, history_accuracy
from micrographia.labs.othello.intervene import CONTROLLED, JUDGED_ON, Chosen, FlipResult, cases_of_config, intervene
from micrographia.labs.othello.latents import BoardLatents, board_latents
from micrographia.labs.othello.legality import Legality, legality
from micrographia.labs.othello.network import LOOKED_AT, LegalScores, legal_scores, unseen_games
from micrographia.labs.othello.parts import Neurons, SidedHeads, heads_of, neurons_of
from micrographia.labs.othello.published import games_seen
from micrographia.labs.othello.reading import (
    BoardProbes,
    over_games,
    probe_board,
    reader,
    where_parity_errs,
    where_rules_differ,
)
from micrographia.labs.othello.saliency import Saliency, saliency
from micrographia.labs.othello.task import FRAMES, OTHER_RULES, predicted

MODEL, LATENTS = "model", "latents"
"""The folders of the model's own Run and of the dictionaries in a Run."""


class Parts(NamedTuple):
    """Heads and neurons of one model."""

    heads: SidedHeads
    neurons: Neurons


class ActsOn(NamedTuple):
    """What the model does beyond the next move."""

    read: ReadBoards
    illegal_after_flip: float
    """How often a roll-out from a flipped position has an illegal move on the changed board."""
    illegal_untouched: float
    """The same of the untouched model on the true board."""
    transposed: Transpositions


class BoardEvidence(NamedTuple):
    """Everything that the claims are judged by."""

    scores: LegalScores
    untrained_scores: LegalScores
    linear: BoardProbes
    nonlinear: BoardProbes
    """Probes with a hidden layer, of the mover's and the absolute frame."""
    untrained: BoardProbes
    """Linear probes of the model without its training."""
    history: Mapping[str, float]
    """Accuracy of probes of the moves so far, in the mover's frame: linear, and with a hidden layer."""
    after_a_pass: Mapping[str, Float[Tensor, "site"]]
    """Accuracy of the mover's and the parity's probe where these frames differ."""
    by_rules: Mapping[str, Float[Tensor, "site"]]
    """Accuracy of the probe of the board and of the board by other rules, where the two differ."""
    untrained_by_rules: Mapping[str, Float[Tensor, "site"]]
    flips: Sequence[FlipResult]
    parts: Parts
    untrained_parts: Parts
    behaviour: ActsOn
    salient: Saliency
    legality: Legality
    """Legality by the read board, and by patterns that are read without it."""
    mover_over_games: Interval
    """Accuracy of the mover's linear probe at its best site."""
    salient_null: Saliency
    """The same along the probe of another square."""
    grown: Sequence[Grown] = ()
    """Along training, where that was here."""
    latents: BoardLatents | None = None

    def best(self, probes: BoardProbes, target: str) -> float:
        """Accuracy at the best site."""
        return float(probes.counts[target].accuracy().max())


def evidence(config: Config, model: Transformer, folder: Path, watch: Watch) -> BoardEvidence:
    """Measure everything. `folder`: where dictionaries are kept, with checkpoints."""
    board = config.board
    judged = predicted(unseen_games(config, LOOKED_AT))
    untrained = Transformer(model.arch, init_weights(model.arch, generator(config.seed)), model.tokenizer)
    linear = probe_board(config, reader(model), watch=watch, task="linear probes")
    frames, hidden, named = ("mover", "absolute"), config.probing.hidden, "probes with a hidden layer"
    nonlinear = probe_board(config, reader(model), frames, hidden=hidden, watch=watch, task=named)
    null = probe_board(config, reader(untrained), (*FRAMES, OTHER_RULES), watch=watch, task="probes without training")
    n_games = games_seen(config) + config.probing.probe_games
    history = {
        name: history_accuracy(config, "mover", width, n_games, watch=watch, task=f"probe of the moves, {name}")
        for name, width in (("linear", None), ("hidden layer", HIDDEN))
    }
    cases = read_cases(Path(config.benchmark), board) if config.benchmark else None
    flips = intervene(config, model, linear.probes, nonlinear.probes, watch, cases)
    place = int(linear.counts["mover"].accuracy().argmax())
    latents = None
    if config.latents.n_latents:
        latents = board_latents(config, model, untrained, linear.probes["mover"], place, folder / LATENTS, watch)
    return BoardEvidence(
        scores=legal_scores(model.arch, dict(model.state), judged),
        untrained_scores=legal_scores(model.arch, dict(untrained.state), judged),
        linear=linear,
        nonlinear=nonlinear,
        untrained=null,
        history=history,
        after_a_pass=where_parity_errs(config, reader(model), linear.probes),
        by_rules=where_rules_differ(config, reader(model), linear.probes),
        untrained_by_rules=where_rules_differ(config, reader(untrained), null.probes),
        flips=flips,
        parts=Parts(heads_of(config, model), neurons_of(config, model)),
        untrained_parts=Parts(heads_of(config, untrained), neurons_of(config, untrained)),
        behaviour=behaviour(config, model, linear, place, flips),
        legality=legality(config, model, linear.probes["mover"], place, n_games, watch),
        mover_over_games=over_games(config, reader(model, place), linear.probes["mover"].at(place)),
        salient=saliency(config, model, linear.probes["mover"], chosen_flip(flips)),
        salient_null=saliency(config, model, linear.probes["mover"], chosen_flip(flips), "another square"),
        grown=growth(config, folder / MODEL, untrained, watch) if (folder / MODEL).is_dir() else [],
        latents=latents,
    )


def behaviour(
    config: Config, model: Transformer, linear: BoardProbes, place: int, flips: Sequence[FlipResult]
) -> ActsOn:
    """Roll-outs on a third of the cases, and the rest of what the model does beyond the next move."""
    cases = cases_of_config(config, JUDGED_ON, max(1, config.flipping.cases // 3))
    chosen = chosen_flip(flips)
    edits = edits_of(WAYS[CONTROLLED], linear.probes["mover"], cases, *chosen, generator(config.seed))
    return ActsOn(
        read_boards(config, model, linear.probes["mover"], place),
        rolled_out(model, cases, edits),
        rolled_out(model, own_board(cases)),
        transpositions(config, model),
    )


def chosen_flip(flips: Sequence[FlipResult]) -> Chosen:
    """Layers and scale of adding the probe's direction."""
    chosen = next(each.chosen for each in flips if each.name == CONTROLLED)
    assert chosen is not None
    return chosen
