"""A finished Run of no lab: a Figure of each kind, and claims of each verdict."""

from pathlib import Path
from typing import Any

import numpy as np

from micrographia.core import figures
from micrographia.core.claims import Claim, Judged, Run
from micrographia.core.figures import Figure

WIDGETS = ("fake_widgets",)
CLAIMS = (
    Claim(
        id="order", source="Nanda et al. (2023), section 5", text="First memorised, then the test loss falls.",
        published=["memorised", "cleanup"], kind="ordering", presets=("quick",),
    ),
    Claim(
        id="keys", source="section 4.1", text="Seed 0 settles on five key frequencies.",
        published=[14, 35, 41, 42, 52], kind="exact", presets=("paper",), when={"seed": 0},
    ),
    Claim(
        id="variance", source="section 4.2", text="Five cosine cubes explain the logits <by and large>.",
        published=0.95, kind="above", tolerance=0.05, presets=("quick",), null="the same number of other frequencies",
    ),
    Claim(
        id="restricted", source="section 5.1", text="The restricted loss is below the full loss.",
        published=2.4e-7, kind="within", tolerance=0.5, relative=True, presets=("quick",), null="random subspace",
    ),
)  # fmt: skip


def fake_run(path: Path = Path("runs/fake/1")) -> Run:
    return Run(
        path=path,
        lab="fake",
        preset="quick",
        config={"modulus": 11, "seed": 0, "lr": 3e-3, "threads": None},
        provenance={"version": "0.1.0", "git_commit": "0123abcd", "device": "cpu"},
        status="finished",
        results=fake_results(),
        claims=fake_claims(),
        figures=fake_figures(),
    )


def fake_claims() -> tuple[Judged, ...]:
    order, keys, variance, restricted = CLAIMS
    return (
        Judged(claim=order, measured=list(order.published), verdict="holds"),
        Judged(claim=keys, measured=[2, 3], verdict="not run"),
        Judged(claim=variance, measured=0.9712, verdict="holds", null_measured=0.0021),
        Judged(claim=restricted, measured=3.9e-5, verdict="fails", null_measured=float("nan")),
    )


def fake_results() -> dict[str, Any]:
    return {
        "title": "Addition modulo 11",
        "subtitle": "one network",
        "config": {"modulus": 11, "seed": 0},
        "summary": ["It memorised by epoch 140, with a loss of 1.7e-06.", "One claim fails & is shown below."],
        "losses": {"test": 1.9e-5, "restricted": {"i": 1.1e-6}, "gini_W_E": float("nan"), "by_k": list(range(56))},
        "heads": [{"head": 0, "kind": "clock", "fve": 0.9}, {"head": 1, "kind": "clock", "fve": 0.97}],
    }


def fake_figures() -> tuple[Figure, ...]:
    rng = np.random.default_rng(0)
    epoch, text = np.arange(0, 1201, 25), ["<bos>", " Mary", " <b>", "\n", " gave", " a", " drink", " to"]
    loss = np.stack([5 / (1 + np.exp((epoch - middle) / 40)) + 1e-6 for middle in (60, 430)])
    frames = {"frames": ("epoch 0", "epoch 9"), "framed": ("z",)}
    edges = {"sources": [0, 0, 1, 2, 3, 4], "targets": [1, 2, 4, 4, 5, 5], "weights": [0.1, 0.5, 1.0, -0.2, -0.6, 2.0]}
    nodes = {"nodes": ["embed", "a0.1", "a0.2", "m0", "a1.0", "logits"], "levels": [0, 1, 1, 1.5, 2, 3]}
    waves = np.cos(2 * np.pi * np.add.outer(np.arange(11), np.arange(11)) * 2 / 11)
    return (
        figures.lines(
            "loss", "Loss over training", epoch, loss, names=["train", "test"], low=0.9 * loss, high=1.1 * loss,
            x_label="epoch", y_label="loss (nats)", log_y=True, marks=[{"name": "99 % right", "x": 475}],
            bands=[{"name": "memorisation", "start": 0, "end": 140}], claims=["order"], group="The run",
            source="Nanda et al. (2023), figure 2", caption="The test loss follows much later.",
        ),
        figures.table(
            "overview", "The run in figures", group="The run", claims=["restricted"], caption="Final values.",
            rows=[["test loss <all>", {"low": 0.88, "high": 0.951, "median": 0.93}, True], ["none", None, None]],
            columns=["measure", "value", "good"], highlight=[0], notes=["", "of any kind"],
        ),
        figures.text("formula", "The formula", ["Read off the weights:"], preformatted=["logit(c) = cos(w c)"]),
        figures.bars(
            "spectrum", "Fourier norms", rng.random((2, 5)), names=[*"12345"], frames=frames["frames"], framed=("y",),
            highlight=[1], reference=[{"name": "initialisation", "y": 0.1}], group="The circuit",
        ),
        figures.histogram("fve", "Variance explained", rng.beta(8, 1, 512), marks=[{"name": "0.85", "x": 0.85}]),
        figures.scatter(
            "clusters", "Neurons by frequency", rng.random((2, 60)), rng.random((2, 60)), categorical=True,
            colour=rng.choice([2, 3], 60), colour_label="k =", frames=frames["frames"], framed=("x", "y"),
        ),
        figures.scatter("estimate", "Estimate", rng.normal(size=9), rng.normal(size=9), diagonal=True),
        figures.heatmap(
            "neurons", "Two neurons", np.stack([0.2 * np.stack([waves, -waves]), np.stack([waves, -waves])]),
            panels=["neuron 0", "neuron 1"], diverging=True, group="The circuit", **frames,
        ),
        figures.tokens(
            "by_token", "Tokens", [text * 3, text], [rng.normal(size=24), np.array([np.nan, 1, 0, 0, 0, 0, 0, -0.5])],
            names=["denoise", ""], value="share", diverging=True,
        ),
        figures.attention(
            "patterns", "Patterns", np.tril(rng.random((2, 8, 8))), panels=["L0 head 0", "L0 head 1"], tokens=text,
        ),
        figures.graph("circuit", "A circuit", {**nodes, **edges, "values": [0, 1, 2, 3, 4, 5]}),
        figures.board(
            "board", "A board", rng.normal(size=(2, 3, 4)), panels=["mine", "yours"], diverging=True,
            texts=[[["●", "○", "", "<b>"]] * 3] * 2, marks=[{"panel": 1, "row": 2, "column": 3, "name": "played"}],
        ),
        figures.widget(
            "widget", "A widget", "fake_widgets:count.js", {"z": np.zeros((2, 3)), "keys": [2, 3]}, group="Widget",
            essential=False,
        ),
    )  # fmt: skip
