"""The losses that the page computes, against their dense definitions in numpy."""

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from micrographia.labs.grokking.figures.training import ASSET

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: the page's arithmetic was NOT checked")
SETS = ([], [2, 3], [1], [1, 2, 3, 4, 5])


def fake_logits(n, ks, *, progress, rng):
    """(n, n, n) logits of a network that is `progress` (0 to 1) of the way from memorising to its circuit."""
    a, b, c = np.ogrid[:n, :n, :n]
    waves = sum(np.cos(2 * np.pi * k * (a + b - c) / n) * (1 + 0.2 * i) for i, k in enumerate(ks))
    noise = rng.normal(size=(n, n, n)) * (2.0 - 1.7 * progress)
    return (noise + 9.0 * progress**2 * waves).astype(np.float32)


def fold(logits):
    """Mean of the logits over the pairs of each sum s = a + b, (n, n) by [s, c]."""
    n = len(logits)
    s = np.add.outer(np.arange(n), np.arange(n)) % n
    return np.stack([logits[s == value].mean(axis=0) for value in range(n)])


def problem(n, progress=0.8):
    """Logits, training pairs, and what the page is given of them."""
    rng = np.random.default_rng(n)
    logits = fake_logits(n, [2, 3], progress=progress, rng=rng)
    pairs = np.stack(np.divmod(rng.permutation(n * n)[: n * n // 3], n), axis=1)
    return logits, pairs


def ask_the_page(n, logits, pairs, sets):
    sums = pairs.sum(axis=1) % n
    question = {
        "n": n,
        "folded": fold(logits).astype(np.float32).ravel().tolist(),
        "full": logits[pairs[:, 0], pairs[:, 1]].astype(np.float16).astype(float).ravel().tolist(),
        "sums": sums.tolist(),
        "counts_all": [n] * n,
        "counts_train": np.bincount(sums, minlength=n).tolist(),
        "sets": [list(each) for each in sets],
    }
    return in_node("explorer_in_node.js", question)


def in_node(script, question):
    with resources.as_file(resources.files("micrographia.labs.grokking") / "explorer.js") as file:
        command = [NODE, Path(__file__).with_name(script), file]
        done = subprocess.run(
            command, input=json.dumps(question), capture_output=True, text=True, check=True, timeout=60
        )
    return json.loads(done.stdout)


def directions(n, ks):
    """Orthonormal cos(w_k(a+b)) and sin(w_k(a+b)) over all pairs, (n * n, directions). Nyquist has only a cosine."""
    s = np.add.outer(np.arange(n), np.arange(n)).ravel()
    waves = [wave(2 * np.pi * k * s / n) for k in ks for wave in (np.cos, np.sin)]
    return (
        np.stack([w / np.linalg.norm(w) for w in waves if np.linalg.norm(w) > 1e-6], 1)
        if waves
        else np.zeros((n * n, 0))
    )


def projected(logits, ks):
    flat = logits.reshape(len(logits) ** 2, -1).astype(np.float64)
    basis = directions(len(logits), ks)
    return flat, basis @ (basis.T @ flat)


def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    right = np.take_along_axis(shifted, labels[:, None], 1)[:, 0]
    return float((np.log(np.exp(shifted).sum(axis=1)) - right).mean())


def dense_restricted(logits, ks, rows):
    """Variant (i): projection plus the mean over all pairs of what is left; then the loss of the rows."""
    n = len(logits)
    flat, kept = projected(logits, ks)
    corrected = kept + (flat - kept).mean(axis=0)
    labels = np.add.outer(np.arange(n), np.arange(n)).ravel() % n
    return cross_entropy(corrected[rows], labels[rows])


def dense_excluded(logits, ks, pairs):
    n = len(logits)
    flat, kept = projected(logits, ks)
    rows = pairs[:, 0] * n + pairs[:, 1]
    rounded = flat[rows].astype(np.float16).astype(np.float64)  # as the page carries them
    return cross_entropy(rounded - kept[rows], pairs.sum(axis=1) % n)


@needs_node
@pytest.mark.parametrize("n", [11, 12])
def test_the_page_computes_the_losses_of_the_dense_definitions(n):
    logits, pairs = problem(n)
    found = ask_the_page(n, logits, pairs, SETS)["answers"]
    train = pairs[:, 0] * n + pairs[:, 1]
    for ks, answer in zip(SETS, found):
        assert answer["all"]["loss"] == pytest.approx(dense_restricted(logits, ks, slice(None)), rel=1e-5)
        assert answer["train"]["loss"] == pytest.approx(dense_restricted(logits, ks, train), rel=1e-5)
        assert answer["excluded"]["loss"] == pytest.approx(dense_excluded(logits, ks, pairs), rel=1e-5)


@needs_node
def test_the_page_keeps_the_accuracy_of_tiny_losses():
    n = 11
    logits = fake_logits(n, [2, 3], progress=1.0, rng=np.random.default_rng(0)) * 2
    pairs = problem(n)[1]
    (answer,) = ask_the_page(n, logits, pairs, [[2, 3]])["answers"]
    dense = dense_restricted(logits, [2, 3], slice(None))
    assert 0 < dense < 1e-3
    assert answer["all"]["loss"] == pytest.approx(dense, rel=1e-4)
    assert answer["all"]["accuracy"] == 1.0


@needs_node
def test_the_page_gives_the_energy_to_the_frequencies_that_hold_it():
    n = 11
    logits, pairs = problem(n, progress=1.0)
    shares = ask_the_page(n, logits, pairs, [])["energies"]
    assert sum(shares) == pytest.approx(1)
    assert sorted(np.argsort(shares)[-2:] + 1) == [2, 3]


@needs_node
def test_the_panel_follows_the_set_that_is_chosen():
    n, keys = 11, [2, 3]
    logits = [fake_logits(n, keys, progress=step, rng=np.random.default_rng(0)) for step in (0.2, 0.9)]
    folded = np.stack([fold(each) for each in logits]).astype(np.float32)
    page = in_node("explorer_panel_in_node.js", {"modulus": n, "folded": folded.ravel().tolist(), "keys": keys})
    assert (page["chips"], page["label"], page["disabled"]) == (5, "epoch 1", ["train", "test"])
    first, repainted, *_, emptied, whole = (each["your set"] for each in page["plotted"])
    dense = [[dense_restricted(each, ks, slice(None)) for each in logits] for ks in (keys, [], range(1, 6))]
    assert first == repainted == pytest.approx(dense[0], rel=1e-4)
    assert emptied == pytest.approx(dense[1], rel=1e-4)
    assert whole == page["plotted"][-1]["all frequencies"] == pytest.approx(dense[2], rel=1e-4)
    assert str(whole[-1]) in page["text"]


@needs_node
def test_the_script_registers_under_the_asset_of_the_figure():
    logits, pairs = problem(11)
    assert ask_the_page(11, logits, pairs, [])["registered"] == [ASSET]


def test_without_any_frequency_the_loss_is_that_of_the_mean_logits():
    logits, _ = problem(11)
    mean = np.broadcast_to(logits.reshape(121, 11).mean(axis=0), (121, 11)).astype(np.float64)
    labels = np.add.outer(np.arange(11), np.arange(11)).ravel() % 11
    assert dense_restricted(logits, [], slice(None)) == pytest.approx(cross_entropy(mean, labels))
