"""The lab's pictures and tables, as Figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.core.runtime import batch_generator
from micrographia.core.small.transformer import Transformer
from micrographia.core.train_loop import Rows
from micrographia.labs.othello.cases import Cases
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.evidence import BoardEvidence, chosen_flip
from micrographia.labs.othello.flips import RANDOM, WAYS, edits_of, logits_at_last
from micrographia.labs.othello.growth import growth_figures
from micrographia.labs.othello.intervene import (
    CONTROLLED,
    JUDGED_ON,
    ON_ITS_OWN,
    SEVERAL,
    UNTOUCHED,
    cases_of_config,
    several,
)
from micrographia.labs.othello.network import unseen_games
from micrographia.labs.othello.reading import sites_of
from micrographia.labs.othello.saliency import saliency_figure
from micrographia.labs.othello.stepping import game_widget, step_through
from micrographia.labs.othello.task import FRAMES, MINE, OTHER_RULES, OTHERS, UNFLIPPED, labels_of, tokens_of

BOARD, READ, FLIPS, TRAINING = "The board", "What probes read", "Flipped squares", "Training"
PARTS, LATENTS, ACTS = "Heads and neurons", "Latents of a dictionary", "What the model acts on"
LI, NANDA = "Li et al. 2023", "Nanda, Lee and Wattenberg 2023"
READING = ("mover-is-linear", "absolute-is-not", "mover-above-absolute", "mover-above-history", "mlp-reads-absolute")
FLIPPING = (
    "flip-follows", "gradient-follows", "absolute-does-not", "erase-follows", "one-square-only", "no-promotion",
    "unflip-follows", "several-at-once-follows",
)  # fmt: skip
GAMES_SHOWN, SHOWN_ON = 3, 50
SHOWN = 2
"""Cases of which the predictions are drawn."""
FLIP_COLUMNS = {
    "way": "way", "layers": "after layers", "scale": "scale", "error": "error", "legal_mass": "legal mass",
    "divergence": "divergence, nats", "gained_in_top": "newly legal in top N",
    "gained_above": "newly legal above an old one", "lost_out_of_top": "newly illegal out of top N",
}  # fmt: skip


def of_run(config: Config, model: Transformer, found: BoardEvidence, curve: Rows | None) -> list[Figure]:
    """All figures of a Run. `curve`: the training of the model, if it was trained here."""
    cases = cases_of_config(config, JUDGED_ON, config.flipping.cases).some(slice(SHOWN))
    return [
        of_layers(model, found),
        by_ply(found, model),
        by_square(config, found),
        table_of_probes(model, found),
        *flips_of(model, found),
        *(predictions(model, found, cases, i) for i in range(len(cases.last))),
        game_of(config, model, found),
        read_board(config, model, found),
        saliency_figure(found.salient, FLIPS),
        *parts_of(found),
        *latents_of(found),
        behaviour_of(found),
        legality_of(found),
        *([] if curve is None else training(curve)),
        *(growth_figures(model, list(found.grown), TRAINING) if found.grown else []),
    ]


def site_names(model: Transformer) -> list[str]:
    return [str(site) for site in sites_of(model)]


def of_layers(model: Transformer, found: BoardEvidence) -> Figure:
    """Accuracy by site of every frame, beside what is known without the model."""
    linear, n = found.linear.counts, len(sites_of(model))
    lines = {
        **{f"{frame}, linear": linear[frame].accuracy() for frame in FRAMES},
        "absolute, hidden layer": found.nonlinear.counts["absolute"].accuracy(),
        "mover, untrained": found.untrained.counts["mover"].accuracy(),
        "absolute, untrained": found.untrained.counts["absolute"].accuracy(),
        **{f"moves, {name}": torch.full((n,), accuracy) for name, accuracy in found.history.items()},
        "commonest": torch.full((n,), linear["mover"].majority()),
        "other game's board": linear["shuffled"].accuracy(),
    }
    y = np.stack([np.asarray(each) for each in lines.values()])
    return figures.lines(
        "layers", "How well probes read the board", np.arange(n), y, names=list(lines), y_label="accuracy",
        x_label="0: embedding, 1: after the first attention, then after each layer", group=READ, highlight=[0, 2],
        source=f"{LI}, table 1; {NANDA}, table 1", claims=READING,
        caption="Squares read right on games that nobody was trained on. Mover: mine, theirs, empty for who truly "
        "moves next; parity: for whom the parity of the ply says; absolute: black, white, empty.",
    )  # fmt: skip


def by_ply(found: BoardEvidence, model: Transformer) -> Figure:
    """Accuracy of the mover's frame by ply and site."""
    z = np.asarray(found.linear.counts["mover"].accuracy_by_group())
    return figures.heatmap(
        "plies", "By ply and layer", z, y=site_names(model), x=[str(i + 1) for i in range(z.shape[1])],
        x_label="moves played", y_label="", value="accuracy", group=READ, essential=False, claims=("mover-is-linear",),
        caption="The mover's frame, linear.",
    )  # fmt: skip


def by_square(config: Config, found: BoardEvidence) -> Figure:
    """Accuracy by square at the best site."""
    counts, size = found.linear.counts, config.size
    best = {frame: int(counts[frame].accuracy().argmax()) for frame in ("mover", "absolute")}
    z = np.stack(
        [np.asarray(counts[frame].accuracy_by_item()[site]).reshape(size, size) for frame, site in best.items()]
    )
    return figures.board(
        "squares", "By square", z, panels=["mover", "absolute"], value="accuracy", group=READ, texts=_texts(z),
        claims=("mover-is-linear", "absolute-is-not"), caption="Linear probes at their best layer.",
    )  # fmt: skip


def _texts(z: np.ndarray) -> list[list[list[str]]]:
    return [[[f"{x:.2f}".removeprefix("0") for x in row] for row in panel] for panel in z.tolist()]


def table_of_probes(model: Transformer, found: BoardEvidence) -> Figure:
    """Every target at every site."""
    counts = found.linear.counts
    names = site_names(model)
    rows: list[dict[str, Any]] = []
    for name in (*FRAMES, UNFLIPPED, OTHER_RULES, *OTHERS):
        accuracy = counts[name].accuracy()
        best = int(accuracy.argmax())
        row = {
            "target": name,
            "best": names[best],
            "accuracy": float(accuracy[best]),
            "commonest": counts[name].majority(),
        }
        row["f1"] = float(counts[name].f1()[best]) if name in OTHERS else None
        row["whole"] = float(counts[name].whole_accuracy()[best])
        rows.append(row)
    columns = {
        "target": "target", "best": "best site", "accuracy": "accuracy", "commonest": "commonest class", "f1": "F1",
        "whole": "whole board right",
    }  # fmt: skip
    return figures.table(
        "targets", "Linear probes of everything", rows, columns=columns, group=READ,
        claims=("keeps-its-own-rules",),
        caption="Unflipped: the board if no disc were ever flipped. Other rules: if of each run the ends alone were "
        "(for a model of a variant, all discs). Flipped: the discs that the last move flipped; placed: its square; "
        "legal: where the next may go.",
    )  # fmt: skip


def flips_of(model: Transformer, found: BoardEvidence) -> list[Figure]:
    rows = [each.row() for each in found.flips]
    layers = np.arange(model.shape.n_layers)
    ways = [each for each in found.flips if each.by_layer]
    null = next(each for each in found.flips if each.name == UNTOUCHED)
    y = [[each.by_layer[layer] for layer in layers] for each in ways]
    return [
        figures.table(
            "flips", "Flip a square in the model", rows, columns=FLIP_COLUMNS, group=FLIPS, headline=True,
            source=f"{LI}, section 4; {NANDA}, section 4",
            claims=FLIPPING,
            caption="Predictions on the changed board. Error: the wrong ones among the N likeliest, where N moves are "
            "legal, counted twice; untouched is the null. Layers and scale were chosen on other games.",
        ),
        several_of(found),
        figures.lines(
            "flips-by-layer", "One layer alone", layers, np.array([*y, [null.scores.means()["error"]] * len(layers)]),
            names=[*(each.name for each in ways), UNTOUCHED], x_label="after layer", y_label="error", group=FLIPS,
            claims=("flip-follows",), caption="Mean error at the best scale, on the games on which layers are chosen.",
        ),
    ]  # fmt: skip


def several_of(found: BoardEvidence) -> Figure:
    """Error by the number of squares that are flipped together."""
    error = {each.name: each.scores.means()["error"] for each in found.flips}
    of = {1: "", **{n: f"{several(n)}, " for n in SEVERAL}}
    lines = {kind: [error[way + kind] for way in of.values()] for kind in (UNTOUCHED, RANDOM, ON_ITS_OWN)}
    lines[CONTROLLED] = [error[CONTROLLED], *(error[several(n)] for n in SEVERAL)]
    return figures.lines(
        "several", "Several squares at once", np.array([*of]), np.array([*lines.values()]), names=[*lines], group=FLIPS,
        x_label="squares flipped together", y_label="error", claims=("several-at-once-follows",), highlight=[3],
        caption="Each along its own direction, with the layers and the scale that one square was given.",
    )  # fmt: skip


def legality_of(found: BoardEvidence) -> Figure:
    """Squares about which the read board and the read patterns disagree, and what the model does there."""
    columns = {
        "patterns": "patterns read off", "by_board": "legal by the board", "n": "squares", "legal": "truly legal",
        "ranked": "in top N", "null": "where they agree", "ranked_legal": "in top N, of legal ones",
        "ranked_illegal": "of illegal ones", "probability": "probability, in 1/N",
    }  # fmt: skip
    return figures.table(
        "legality", "Board or patterns?", found.legality.rows(), columns=columns, group=ACTS,
        claims=("follows-board-not-patterns", "patterns-without-a-board"),
        caption="Squares that one of two readings alone calls legal: the rules on the board that a probe reads, or an "
        "OR of patterns that probes of their own read. N moves are legal. Where they agree: the same squares at the "
        "same plies in other games.",
    )  # fmt: skip


def predictions(model: Transformer, found: BoardEvidence, cases: Cases, i: int) -> Figure:
    """A case: probabilities by square, untouched and with the square flipped."""
    one, size = cases.some(slice(i, i + 1)), cases.board.size
    way = WAYS[CONTROLLED]
    edits = edits_of(way, found.linear.probes[way.frame], one, *chosen_flip(found.flips), batch_generator(0, i))
    logits = torch.stack([logits_at_last(model, one)[0], logits_at_last(model, one, edits)[0]])
    z = np.full((2, size * size), np.nan)
    z[:, list(cases.board.playable)] = logits.softmax(-1)[:, 1:].numpy()
    name = cases.board.name(int(one.square))
    marks = [
        {"panel": panel, "row": row, "column": column, "name": "legal"}
        for panel, legal in enumerate((one.before[0], one.after[0]))
        for row, column in (divmod(cases.board.playable[t - 1], size) for t in legal.nonzero()[:, 0].tolist())
    ]
    return figures.board(
        f"flip-{i}", f"A flip: {name}", z.reshape(2, size, size), group=FLIPS, marks=marks, claims=("flip-follows",),
        panels=["untouched", f"{name} flipped"], value="probability", texts=_discs(cases, i),
        caption=f"What the model expects after {int(one.last) + 1} moves; rings: legal on the board as it is, and with "
        f"{name} of the other colour. Letters: X of the player who moves, O of the other.",
    )  # fmt: skip


def _discs(cases: Cases, i: int) -> list[list[list[str]]]:
    """The discs of both boards."""
    board, disc = cases.board, np.uint64(1 << int(cases.square[i]))
    after = int(cases.own[i]), int(cases.other[i])
    before = after[0] ^ int(disc), after[1] ^ int(disc)
    return [
        [[" " if sign == "-" else sign for sign in row] for row in board.drawn(*sides).split("\n")]
        for sides in (before, after)
    ]


def game_of(config: Config, model: Transformer, found: BoardEvidence) -> Figure:
    """Three games to step through, squares to flip."""
    games, chosen = unseen_games(config, GAMES_SHOWN, sample=SHOWN_ON), chosen_flip(found.flips)
    return game_widget(step_through(model, found.linear.probes["mover"], games, chosen), chosen)


def read_board(config: Config, model: Transformer, found: BoardEvidence) -> Figure:
    """One position as every layer's probe reads it, as the probability of mine less theirs, beside the truth."""
    board, ply = config.board, config.n_ctx // 2
    games = unseen_games(config, 1, sample=JUDGED_ON)
    tokens = tokens_of(games)[:, :-1]
    sites = sites_of(model)
    cache = model.run(tokens, keep=sites, logits="last").cache
    x = torch.stack([cache[site][:, ply] for site in sites])
    said = found.linear.probes["mover"].logits(x)[:, 0].softmax(-1)
    true = labels_of(games, ("mover",))["mover"][0, ply]
    z = torch.cat([((true == MINE).float() - (true > MINE).float())[None], said[..., MINE] - said[..., MINE + 1]])
    boards = z.view(-1, board.size, board.size).numpy()
    return figures.board(
        "read", "A board, read from each layer", boards, group=BOARD, diverging=True,
        panels=["true", *site_names(model)], value="mine less theirs", claims=("mover-is-linear",),
        caption=f"After {ply + 1} moves: the probability of mine less that of theirs, by the mover's linear probe.",
    )  # fmt: skip


def parts_of(found: BoardEvidence) -> list[Figure]:
    """Whose moves each head attends to, and the neurons that are a square's legality."""
    own, null = found.parts, found.untrained_parts
    both = torch.stack([own.heads.share, null.heads.share]).numpy()
    rows = [{"of": name, **each.heads.counts()} for name, each in (("model", own), ("untrained", null))]
    _, n_layers, n_heads = both.shape
    return [
        figures.heatmap(
            "heads", "Whose moves a head attends to", both, panels=["model", "untrained"], group=PARTS, x_label="head",
            y_label="layer", x=[str(i) for i in range(n_heads)], y=[str(i) for i in range(n_layers)], diverging=True,
            midpoint=0.5, value="share on the next mover's", claims=("heads-take-sides",),
            caption="Of the attention to earlier moves, first and last left out, the share on those of the player who "
            "moves next.",
        ),
        figures.table("head-kinds", "Heads by kind", rows, group=PARTS, claims=("heads-take-sides",), essential=False),
        figures.table(
            "neurons", "The best neurons of a square's legality", own.neurons.rows(), group=PARTS,
            columns={"name": "square", "layer": "layer", "neuron": "neuron", "f1": "F1"},
            claims=("neurons-are-legality",),
            caption=f"On other games than those that chose them. Mean over squares {own.neurons.mean():.2f}, untrained "
            f"{null.neurons.mean():.2f}, labels of other games {own.neurons.shuffled:.2f}.",
        ),
    ]  # fmt: skip


def latents_of(found: BoardEvidence) -> list[Figure]:
    """How much of the board single latents have."""
    if found.latents is None:
        return []
    nulls = {f"coverage, {name}": name for name in ("permuted labels", "random directions")}
    columns = {"of": "", "coverage": "coverage", "reconstruction": "reconstruction F1", **nulls}
    return [
        figures.table(
            "latents", f"The board in single latents at {found.latents.site}", found.latents.rows(), columns=columns,
            group=LATENTS, claims=("latents-between", "latents-above-random"), source="Karvonen et al. 2024, section 3",
            caption="Coverage: the best latent's F1, the mean over squares, states and legal moves. Reconstruction: "
            "from latents of high precision, on other games. To the right the coverage of two nulls.",
        )
    ]  # fmt: skip


def behaviour_of(found: BoardEvidence) -> Figure:
    """What the model does beyond the next move, with nulls."""
    read, acts, order = found.behaviour.read, found.behaviour, found.behaviour.transposed
    after = {name: float(accuracy.max()) for name, accuracy in found.after_a_pass.items()}
    rows = [
        (
            "squares read right in the mover's frame where parity errs (null: the parity's frame)",
            after["mover"],
            after["parity"],
        ),
        (
            "squares read right where other rules make another board (null: the probe of that board)",
            *(float(each.max()) for each in found.by_rules.values()),
        ),
        *(
            (
                f"errors of the read board, not of patterns off the {name}, that predictions share (null: reverse)",
                each.with_board,
                each.with_patterns,
            )
            for name, each in found.legality.found.items()
        ),
        ("positions whose read board allows other moves than the true one", read.share, None),
        (
            "there, tokens ranked as the read board says (null: errors of other positions)",
            read.follows_read,
            read.control,
        ),
        (
            "roll-outs of ten plies that turn illegal after a flip (null: untouched)",
            acts.illegal_after_flip,
            acts.illegal_untouched,
        ),
        (
            "first choices that differ on one board by another order (null: choices at random)",
            order.first_choice_differs,
            order.control,
        ),
    ]
    return figures.table(
        "acts", "What the model acts on", rows, columns=["share of", "measured", "null"], group=ACTS,
        claims=("mover-not-parity", "keeps-its-own-rules", "follows-the-board-it-reads", "roll-outs-stay-legal",
                "order-matters-little"),
    )  # fmt: skip


def training(curve: Rows) -> list[Figure]:
    """How the model learned the rules."""
    columns: Mapping[str, np.ndarray] = {name: np.array(column, float) for name, column in curve.items()}
    at = np.isfinite(columns["excess_nats"])
    shares = {
        "legal_rate": "first choice legal",
        "legal_mass": "probability of legal moves",
        "full_sets": "all legal above all others",
    }
    return [
        figures.lines(
            "learning", "Learning the rules", columns["step"][at], np.stack([columns[name][at] for name in shares]),
            names=list(shares.values()), x_label="step", y_label="share", group=TRAINING, claims=("legal-moves",),
            caption="On games that are never trained on.",
        ),
        figures.lines(
            "excess", "Loss above the floor", columns["step"][at], columns["excess_nats"][at][None], names=["held out"],
            x_label="step", y_label="nats a move", log_y=True, group=TRAINING, claims=("legal-moves",),
            caption="Cross-entropy of the next move less the mean logarithm of the number of legal moves.",
        ),
    ]  # fmt: skip
