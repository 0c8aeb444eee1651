"""A grokking Run that nobody trained: every kind of Figure, and results as the lab hands them over.

The logits follow the textbook: what is memorised fades, the cosine cubes of two frequencies grow. With `n=113` it is
good for looking at the report, with the default for tests.
"""

from pathlib import Path
from typing import Any

import numpy as np

from micrographia.core.claims import Claim, Judged, Run
from micrographia.core.figures import Figure

CLAIMS = (
    Claim(
        id="grok.order",
        source="Nanda et al. (2023), section 5",
        text="First memorised, then the restricted loss falls, then the test loss, then the norm settles.",
        published=["memorised", "circuit", "cleanup", "settled"],
        kind="ordering",
        presets=("quick",),
    ),
    Claim(
        id="grok.keys",
        source="section 4.1",
        text="Seed 0 settles on five key frequencies.",
        published=[14, 35, 41, 42, 52],
        kind="exact",
        presets=("paper",),
        when={"seed": 0},
    ),
    Claim(
        id="grok.variance",
        source="section 4.2",
        text="Five cosine cubes explain the logits <by and large>.",
        published=0.95,
        kind="above",
        tolerance=0.05,
        presets=("quick",),
        null="the same number of other frequencies",
    ),
    Claim(
        id="grok.restricted",
        source="section 5.1",
        text="The restricted loss is below the full loss.",
        published=2.4e-7,
        kind="within",
        tolerance=0.5,
        relative=True,
        presets=("quick",),
        null="random subspace",
    ),
)


def fake_run(path: Path = Path("runs/grokking/fake"), *, n: int = 11, frames: int = 5) -> Run:
    keys = [2, 3] if n < 20 else [9, 26, 33, 51]
    return Run(
        path=path,
        lab="grokking",
        preset="quick",
        config={"modulus": n, "operation": "add", "seed": 0, "lr": 3e-3, "threads": None, "epochs": 1200},
        provenance={"version": "0.1.0", "git_commit": "0123abcd", "device": "cpu", "dtype": "float32", "threads": 2},
        status="finished",
        results=fake_results(n, keys),
        claims=fake_claims(),
        figures=tuple(fake_figures(n, keys, frames)),
    )


def fake_claims() -> tuple[Judged, ...]:
    order, keys, variance, restricted = CLAIMS
    return (
        Judged(claim=order, measured=list(order.published), verdict="holds"),
        Judged(claim=keys, measured=[2, 3], verdict="not run"),
        Judged(claim=variance, measured=0.9712, verdict="holds", null_measured=0.0021),
        Judged(claim=restricted, measured=3.9e-5, verdict="fails", null_measured=float("nan")),
    )


def fake_results(n: int, keys: list[int]) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "config": {"modulus": n, "seed": 0},
        "summary": [
            f"The network memorised by epoch 140, and generalised at epoch 450: it computes (a + b) mod {n}.",
            f"It does so with {len(keys)} frequencies; their cosines alone do the task with a loss of 1.7e-06.",
            "3 of 4 claims hold at this preset; one fails & is shown below.",
        ],
        "phases": {"memorised": 140, "circuit": 300, "cleanup": 450, "settled": None},
        "key_frequencies": keys,
        "frequencies": [
            {
                "k": k,
                "energy": e,
                "p_value": 1e-9 if e > 0.01 else 0.003,
                "loss_change": e * 9,
                "own_neurons": int(e * 400),
                "kind": "key" if k in keys else "overtone",
            }
            for k, e in zip([*keys, 2 * keys[0]], [*rng.dirichlet(np.ones(len(keys)) * 5) * 0.97, 0.002])
        ],
        "overtones": [{"k": 2 * keys[0], "of": keys[0]}],
        "published_rule": [*keys, 1],
        "measures": {
            "train_loss": 1.3e-6,
            "test_loss": 1.9e-5,
            "train_accuracy": 1.0,
            "test_accuracy": 0.9996,
            "restricted_loss": {"i_all": 1.1e-6, "i_train": 1.0e-6, "ii": 2.0e-6, "iii": 5.5e-6},
            "excluded_loss": 5.31,
            "trig_loss": 1.7e-6,
            "logit_variance_explained": 0.971,
            "gini_W_E": float("nan"),
        },
        "algorithm": [f"logit(c) = sum over k of A_k cos(2 pi k (a + b - c) / {n})"]
        + [f"  k = {k:3d}   A = {3.1 + i:.2f}   phase 0.00" for i, k in enumerate(keys)],
        "replacements": [
            {"name": "the network itself", "loss": 1.4e-5, "accuracy": 0.9997},
            {"name": "neurons by their formula", "loss": 1.5e-5, "accuracy": 0.9997},
            {"name": "the whole network by its formula", "loss": 1.7e-6, "accuracy": 1.0},
        ],
        "ablations": [
            {"name": "null space of the map to the logits", "loss": 5.27, "accuracy": 0.01, "control": False},
            {"name": "random subspace of equal rank", "loss": 1.5e-5, "accuracy": 0.9997, "control": True},
        ],
    }


def fake_logits(n: int, keys: list[int], *, progress: float, rng: np.random.Generator) -> np.ndarray:
    """(n, n, n) logits of a network that is `progress` (0 to 1) of the way from memorising to its circuit."""
    a, b, c = np.ogrid[:n, :n, :n]
    waves = sum(np.cos(2 * np.pi * k * (a + b - c) / n) * (1 + 0.2 * i) for i, k in enumerate(keys))
    noise = rng.normal(size=(n, n, n)) * (2.0 - 1.7 * progress)
    return (noise + 9.0 * progress**2 * waves).astype(np.float32)


def fold(logits: np.ndarray) -> np.ndarray:
    """Mean of the logits over the pairs of each sum s = a + b, (n, n) by [s, c]."""
    n = len(logits)
    s = np.add.outer(np.arange(n), np.arange(n)) % n
    return np.stack([logits[s == value].mean(axis=0) for value in range(n)])


def explorer(n: int, keys: list[int], frames: int, *, rng: np.random.Generator) -> Figure:
    pairs = np.stack(np.divmod(rng.permutation(n * n)[: int(0.3 * n * n)], n), axis=1)
    steps = np.linspace(0, 1, frames)
    logits = [fake_logits(n, keys, progress=step, rng=rng) for step in steps]
    chosen = [frames // 2, frames - 1]
    sums = pairs.sum(axis=1) % n
    epochs = np.unique(
        np.geomspace(1, 1200, frames).astype(int) if frames < 7 else np.linspace(0, 1200, frames, dtype=int)
    )
    return Figure(
        name="explorer",
        kind="explorer",
        group="Explorer",
        title="Choose the frequencies yourself",
        caption="Pick any set of frequencies: the restricted loss is recomputed here. Logits are kept as float16.",
        source="Nanda et al. (2023), section 5",
        claims=("grok.restricted",),
        data={
            "folded": np.stack([fold(each) for each in logits]).astype(np.float32),
            "full": np.stack([logits[i][pairs[:, 0], pairs[:, 1]] for i in chosen]).astype(np.float16),
            "full_frames": chosen,
            "full_train": pairs.astype(np.int32),
            "labels": [f"epoch {e}" for e in epochs],
            "key_frequencies": keys,
            "modulus": n,
            "epochs": epochs,
            "counts_all": np.full(n, n),
            "counts_train": np.bincount(sums, minlength=n),
        },
    )


def of_texts(rng: np.random.Generator) -> list[Figure]:
    """What a question about a text shows: tokens, attention, a circuit, an estimate beside the truth."""
    text = ["<bos>", " Mary", " <b>", "\n", " gave", " a", " drink", " to"]
    nodes = ["embed", "a0.1", "a0.2", "m0", "a1.0", "logits"]
    return [
        Figure(
            name="by_token",
            kind="tokens",
            group="Texts",
            title="Tokens",
            caption="The name matters.",
            data={
                "tokens": [text * 3, text],
                "values": [rng.normal(size=24), np.array([np.nan, 1, 0, 0, 0, 0, 0, -0.5])],
                "names": ["denoise", ""],
                "value_label": "share",
                "colour": "diverging",
            },
        ),
        Figure(
            name="patterns",
            kind="attention",
            group="Texts",
            title="Patterns",
            caption="Two heads.",
            data={"z": np.tril(rng.random((2, 8, 8))), "panels": ["L0 head 0", "L0 head 1"], "tokens": text},
        ),
        Figure(
            name="many_patterns",
            kind="attention",
            group="Texts",
            title="Patterns by layer",
            caption="Six heads in each of two layers.",
            frames=("layer 0", "layer 1"),
            framed=("z",),
            data={
                "z": np.tril(rng.normal(size=(2, 6, 8, 8))),
                "panels": [f"head {h}" for h in range(6)],
                "tokens": text,
                "colour": "diverging",
            },
        ),
        Figure(
            name="circuit",
            kind="graph",
            group="Texts",
            title="A circuit",
            caption="Edges by their weight.",
            data={
                "nodes": nodes,
                "levels": [0, 1, 1, 1.5, 2, 3],
                "sources": [0, 0, 1, 2, 3, 4],
                "targets": [1, 2, 4, 4, 5, 5],
                "weights": [0.1, 0.5, 1.0, -0.2, -0.6, 2.0],
                "level_names": [{"level": 0, "name": "tokens"}, {"level": 3, "name": "logits"}],
                "values": [0, 1, 2, 3, 4, 5],
            },
        ),
        Figure(
            name="estimate",
            kind="scatter",
            group="Texts",
            title="Estimate beside the exact effect",
            caption="The diagonal is agreement.",
            data={"x": rng.normal(size=9), "y": rng.normal(size=9), "x_label": "exact", "y_label": "estimate"}
            | {"diagonal": True},
        ),
    ]


def fake_figures(n: int, keys: list[int], frames: int) -> list[Figure]:
    rng = np.random.default_rng(0)
    epoch = np.arange(0, 1201, 25)
    fall = lambda middle, low: 5 / (1 + np.exp((epoch - middle) / 40)) + low  # noqa: E731
    half = n // 2
    spectrum = rng.random((frames, half)) * 0.2
    spectrum[:, [k - 1 for k in keys]] += np.linspace(0, 2, frames)[:, None]
    bands = [
        {"name": "memorisation", "start": 0, "end": 140},
        {"name": "circuit formation", "start": 140, "end": 450},
        {"name": "cleanup", "start": 450, "end": 700},
    ]
    labels = tuple(f"epoch {e}" for e in np.linspace(0, 1200, frames, dtype=int))
    waves = np.cos(2 * np.pi * np.add.outer(np.arange(n), np.arange(n)) * keys[0] / n)
    per_k = np.stack([fall(300, 1e-6) * (1.0 + (k in keys) * 3) for k in range(1, half + 1)])
    names = ["const", *[f"{f} {k}" for k in range(1, half + 1) for f in ("cos", "sin")]]
    fourier = np.abs(rng.normal(size=(n, n))) * 0.05
    for k in keys:
        fourier[2 * k - 1 : 2 * k + 1, 2 * k - 1 : 2 * k + 1] += 3
    classes = rng.choice(keys, 60)
    return [
        Figure(
            name="loss",
            kind="lines",
            group="The run",
            title="Loss over training",
            claims=("grok.order",),
            caption="The training loss falls first; the test loss follows much later, and suddenly.",
            source="Nanda et al. (2023), figure 2",
            data={
                "x": epoch,
                "y": np.stack([fall(60, 1e-6), fall(430, 1e-5)]),
                "names": ["train", "test"],
                "x_label": "epoch",
                "y_label": "loss (nats)",
                "log_y": True,
                "bands": bands,
                "marks": [{"name": "99 % right", "x": 475}],
            },
        ),
        Figure(
            name="excluded_by_k",
            kind="lines",
            group="Progress measures",
            title="Excluded loss, one frequency each",
            caption="Leaving out a key frequency hurts, leaving out another does not.",
            data={
                "x": epoch,
                "y": per_k,
                "names": [f"k = {k}" for k in range(1, half + 1)],
                "x_label": "epoch",
                "y_label": "excluded loss (nats)",
                "log_y": True,
                "highlight": [k - 1 for k in keys],
            },
        ),
        Figure(
            name="over_seeds",
            kind="lines",
            group="Progress measures",
            title="Restricted loss over seeds",
            caption="Median and interval.",
            data={
                "x": epoch,
                "y": fall(300, 1e-6)[None],
                "low": fall(280, 5e-7)[None],
                "high": fall(330, 3e-6)[None],
                "names": ["restricted"],
                "x_label": "epoch",
                "y_label": "loss (nats)",
                "log_y": True,
            },
        ),
        Figure(
            name="spectrum",
            kind="bars",
            group="The circuit",
            title="Fourier norms of the embedding",
            caption="A few frequencies stand out.",
            frames=labels,
            framed=("y",),
            source="figure 3a",
            data={
                "y": spectrum,
                "names": list(range(1, half + 1)),
                "x_label": "frequency k",
                "y_label": "norm",
                "highlight": [k - 1 for k in keys],
                "reference": [{"name": "initialisation", "y": 0.1}],
            },
        ),
        Figure(
            name="ablations",
            kind="bars",
            group="The circuit",
            title="What each part is worth",
            caption="Two series.",
            data={
                "y": np.array([[1.0, 2, 3], [2, 1, 0.5]]),
                "names": ["a <b>", "b", "c"],
                "series": ["before", "after"],
                "low": np.array([[0.9, 1.8, 2.5], [1.8, 0.7, 0.2]]),
                "high": np.array([[1.1, 2.2, 3.5], [2.3, 1.3, 0.9]]),
                "x_label": "part",
                "y_label": "loss",
            },
        ),
        Figure(
            name="fve",
            kind="histogram",
            group="Neurons",
            title="How much of a neuron one frequency explains",
            caption="Most neurons lie near 1.",
            source="figure 5a",
            data={
                "values": rng.beta(8, 1, 512),
                "bins": 20,
                "x_label": "share of variance explained",
                "y_label": "neurons",
                "marks": [{"name": "0.85", "x": 0.85}],
            },
        ),
        Figure(
            name="clusters",
            kind="scatter",
            group="Neurons",
            title="Neurons by frequency",
            caption="Clusters form.",
            frames=labels,
            framed=("x", "y"),
            data={
                "x": rng.random((frames, 60)),
                "y": rng.random((frames, 60)),
                "colour": classes,
                "categorical": True,
                "colour_label": "k =",
                "names": [f"neuron {i}" for i in range(60)],
                "x_label": "before",
                "y_label": "after",
            },
        ),
        Figure(
            name="points",
            kind="scatter",
            group="Neurons",
            title="Neurons by norm",
            caption="A scale.",
            data={
                "x": rng.random(60),
                "y": rng.random(60),
                "colour": rng.random(60),
                "colour_label": "norm",
                "x_label": "before",
                "y_label": "after",
            },
        ),
        Figure(
            name="attention",
            kind="heatmap",
            group="Attention",
            title="Attention from = to a",
            source="figure 4a",
            caption="Each head is periodic in both operands.",
            data={
                "z": np.stack([0.5 + 0.3 * waves, 0.5 + 0.2 * waves.T, 0.5 - 0.1 * waves, 0.4 + 0.4 * np.abs(waves)]),
                "panels": [f"head {h}" for h in range(4)],
                "x_label": "b",
                "y_label": "a",
                "colour": "sequential",
            },
        ),
        Figure(
            name="fourier",
            kind="heatmap",
            group="The circuit",
            title="Logits in the Fourier basis",
            caption="Only the products of one frequency with itself.",
            data={
                "z": fourier[None],
                "panels": [""],
                "x_label": "component of b",
                "y_label": "component of a",
                "x_names": names,
                "y_names": names,
                "colour": "sequential",
            },
        ),
        Figure(
            name="neurons",
            kind="heatmap",
            group="Neurons",
            title="Two neurons",
            caption="Waves.",
            frames=labels[:2],
            framed=("z",),
            data={
                "z": np.stack([np.stack([waves, -waves])] * 2) * np.array([0.2, 1])[:, None, None, None],
                "panels": ["neuron 0", "neuron 1"],
                "x_label": "b",
                "y_label": "a",
                "colour": "diverging",
            },
        ),
        Figure(
            name="overview",
            kind="table",
            group="The run",
            title="The run in figures",
            caption="Final values.",
            data={
                "columns": ["measure", "value", "good"],
                "highlight": [1],
                "rows": [["train loss", 1.2e-6, True], ["test loss <all>", 1.9e-5, None], ["epochs", 1200, False]],
            },
        ),
        *of_texts(rng),
        explorer(n, keys, frames, rng=rng),
    ]
