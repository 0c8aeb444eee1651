"""The model of the lab: trained on games made as it trains, in a Run that every command takes as a model.

A batch is a pure function of seed and step. A row a step (`core.train_loop`); every `eval_every` steps the measures of
Li et al. 2023 and those that tell good models apart, on games that are never trained on. Axes: game pos vocab.
"""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.config import flat
from micrographia.core.events import Watch, renamed, silent
from micrographia.core.lab import Findings, run_lab
from micrographia.core.muon import Muon
from micrographia.core.runtime import batch_generator, generator
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.fused import fused_forward
from micrographia.core.small.next_token import NextToken, Text
from micrographia.core.small.trained import describe_model, load_trained
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.store import RunFolder
from micrographia.core.train_loop import Record, train_recorded
from micrographia.core.training import AdamW, Flat, Layout, State, UpdateRule
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.engine.games import Games, random_games
from micrographia.labs.othello.task import Predicted, predicted, tokens_of, vocabulary

LOOKED_AT = 500
"""Games of the measures along training."""
UNSEEN = 1 << 32
"""Added to the seed: games that training does not see, as it draws each of its batches by a step below this."""


class LegalScores(NamedTuple):
    """How well a model knows the rules, over all positions with a next move."""

    excess_nats: float
    """Cross-entropy of the next move less its floor, the mean logarithm of the number of legal moves."""
    legal_rate: float
    """How often its first choice is legal."""
    legal_mass: float
    """The probability of all legal moves together."""
    full_sets: float
    """How often every legal move is above every other."""
    floor_nats: float


def architecture(config: Config) -> Architecture:
    n = len(config.board.playable) + 1
    return Architecture(d_vocab=n, d_vocab_out=n, n_ctx=config.n_ctx, **flat(config.network))


def unseen_games(config: Config, n: int, sample: int = 0) -> Games:
    """Games that no training and no other sample has drawn: a function of the seed and the number of the sample."""
    return random_games(config.board, n, batch_generator(config.seed + UNSEEN, sample))


def trained(config: Config, out: Path, *, lab: str, preset: str, watch: Watch = silent) -> Transformer:
    """The model of this config, trained to the end in the Run `out`, or as that was left.

    Raises NonFiniteLoss, Interrupted (its checkpoints stay), CannotWrite.
    """
    done = run_lab(config, _train, lab=lab, preset=preset, out=out, resume=True, watch=watch)
    return load_trained(done.path, device=config.machine.device)


def _train(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    arch, board, device = architecture(config), config.board, config.machine.device
    layout = Layout(arch.weight_shapes())
    describe_model(folder, arch, vocabulary(board))
    judged = predicted(unseen_games(config, LOOKED_AT))

    def measure(state: State) -> dict[str, float]:
        return legal_scores(arch, layout.member(state.weights, 0), judged)._asdict()

    record = Record(
        steps=config.steps,
        loss="loss_nats",
        measured=LegalScores._fields,
        measure=measure,
        measure_every=config.schedule.eval_every,
        checkpoint_every=config.schedule.checkpoint_every,
        snapshots=snapshot_steps(config),
        shown={"legal": "legal_rate", "above the floor": "excess_nats"},
    )
    objective = NextToken(arch, [lambda step: batch(config, step)])
    found = train_recorded(
        record, folder, arch=arch, fresh=lambda: fresh(arch, config.seed, device), objective=objective,
        optimiser=update_rule(config, layout), device=device, watch=renamed(watch, "train the model"),
    )  # fmt: skip
    return Findings({name: column[-1] for name, column in found.items()}, [], metrics=found)


def snapshot_steps(config: Config) -> list[int]:
    """Doubling from a hundredth of the steps, since most is learned early, and the last."""
    n = config.schedule.snapshots
    return sorted({max(1, round(config.steps / 2**i)) for i in range(n)})


def fresh(arch: Architecture, seed: int, device: str) -> Flat:
    weights = init_weights(arch, generator(seed))
    return Layout(arch.weight_shapes()).pack([{name: weight.to(device) for name, weight in weights.items()}])


def update_rule(config: Config, layout: Layout) -> UpdateRule:
    adam = AdamW(**flat(config.optim), end=config.steps)
    return adam if config.optimiser == "adamw" else Muon(shapes=layout.shapes, adam=adam, lr=config.muon_lr)


def batch(config: Config, step: int) -> Text:
    """The games of a step."""
    games = random_games(config.board, config.games, batch_generator(config.seed, step))
    tokens = tokens_of(games)
    return Text(tokens, tokens > 0, predicted(games).legal if config.targets == "legal" else None)


@torch.no_grad()
def legal_scores(arch: Architecture, weights: dict[str, Tensor], judged: Predicted, n: int = 250) -> LegalScores:
    """Measure a model on games, `n` at a time."""
    device = weights["embed.W_E"].device
    parts = [fused_forward(arch, weights, tokens.to(device)).cpu() for tokens in judged.tokens.split(n)]
    return scores_of(torch.cat(parts), judged)


def scores_of(logits: Float[Tensor, "game pos vocab"], judged: Predicted) -> LegalScores:
    """The same of logits."""
    there, legal = judged.there, judged.legal[judged.there]
    at = logits[there].double()
    log_probs, n_legal = at.log_softmax(-1), legal.sum(-1)
    loss = -(log_probs.masked_fill(~legal, 0).sum(-1) / n_legal).mean()  # the expectation over the moves of random play
    floor = n_legal.double().log().mean()
    least = at.masked_fill(~legal, math.inf).amin(-1)
    most = at.masked_fill(legal, -math.inf).amax(-1)
    return LegalScores(
        excess_nats=float(loss - floor),
        legal_rate=float(legal.gather(-1, at.argmax(-1, keepdim=True)).double().mean()),
        legal_mass=float((log_probs.exp() * legal).sum(-1).mean()),
        full_sets=float((least > most).double().mean()),
        floor_nats=float(floor),
    )
