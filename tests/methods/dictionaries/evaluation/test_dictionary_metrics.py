"""Metrics in one pass, each against a slow plain reference over all tokens at once."""

import math
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from made import dictionary, rows

from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.errors import BadShape, UserError
from micrographia.core.events import Note
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.evaluation import reading
from micrographia.methods.dictionaries.evaluation.directions import mean_max_cosine
from micrographia.methods.dictionaries.evaluation.explained import DEFINITIONS, Residuals, explained_variance
from micrographia.methods.dictionaries.evaluation.metrics import measure
from micrographia.methods.dictionaries.evaluation.moments import Variance

SPLITS = [[50], [25, 25], [1, 30, 19], [7] * 7 + [1]]


def plainly(x: list[list[float]], y: list[list[float]]) -> dict[str, float]:
    """Each figure by loops over tokens and dimensions."""
    n, d = len(x), len(x[0])
    mean = [sum(row[j] for row in x) / n for j in range(d)]
    errors = [sum((a - b) ** 2 for a, b in zip(p, q)) for p, q in zip(x, y)]
    spread = [sum((row[j] - mean[j]) ** 2 for j in range(d)) for row in x]
    norms = [math.sqrt(sum(a * a for a in row)) for row in x]
    outs = [math.sqrt(sum(a * a for a in row)) for row in y]
    dots = [sum(a * b for a, b in zip(p, q)) for p, q in zip(x, y)]
    return {
        "mse": sum(errors) / n,
        "fvu": sum(errors) / sum(spread),
        "explained_variance": 1 - sum(errors) / sum(spread),
        "cosine": sum(p / (a * b) for p, a, b in zip(dots, norms, outs)) / n,
        "l2_ratio": sum(b / a for a, b in zip(norms, outs)) / n,
        "relative_bias": sum(b * b for b in outs) / sum(dots),
    }


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
def test_every_metric_is_that_of_the_plain_loops(sizes: list[int]):
    one, x = dictionary(), rows()
    found = measure(one, x.split(sizes)).values()
    latents = one.encode(x)
    expected = plainly(x.tolist(), one.reconstruct(x).tolist()) | {
        "tokens": 50,
        "l0": sum(float(v != 0) for row in latents.tolist() for v in row) / 50,
        "l1": sum(abs(v) for row in latents.tolist() for v in row) / 50,
        "dead_share": sum(not any(column) for column in latents.T.tolist()) / 20,
        "frequent_share_0.1": sum(sum(v != 0 for v in c) > 5 for c in latents.T.tolist()) / 20,
        "frequent_share_0.01": sum(sum(v != 0 for v in c) > 0.5 for c in latents.T.tolist()) / 20,
    }
    assert 0 < expected["dead_share"] < expected["frequent_share_0.01"] < 1
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


def by_definition(x: torch.Tensor, y: torch.Tensor, batches: list[int]) -> dict[str, float]:
    """Explained variance as the named tools write it, on whole tensors and batches."""
    e = x - y
    pieces = list(zip(x.split(batches), e.split(batches)))
    many = [(a, b) for a, b in pieces if len(a) > 1]
    legacy = [1 - b.pow(2).sum(-1) / (a - a.mean(0)).pow(2).sum(-1) for a, b in many]
    return {
        "pooled": float(1 - e.pow(2).sum() / (x - x.mean(0)).pow(2).sum()),
        "saelens": float(1 - e.pow(2).sum(1).mean() / (x.pow(2).sum(1).mean() - x.mean(0).pow(2).sum())),
        "saelens_legacy": float(torch.cat(legacy).mean()),
        "dictionary_learning": float(torch.stack([1 - b.var(0).sum() / a.var(0).sum() for a, b in many]).mean()),
        "sparsify": float(torch.stack([1 - b.pow(2).sum() / (a - a.mean(0)).pow(2).sum() for a, b in many]).mean()),
        "saebench": float(1 - e.pow(2).sum(1).mean() / (x.pow(2).sum(1).mean() - x.pow(2).mean() ** 2)),
        "centred": float(1 - e.var(0).sum() / x.var(0).sum()),
        "per_dimension": float((1 - e.pow(2).mean(0) / x.var(0, correction=0)).mean()),
    }


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
def test_explained_variance_in_every_definition_is_that_of_whole_tensors(sizes: list[int]):
    x = rows()
    y = x + torch.randn(50, 6, generator=generator(3), dtype=torch.float64) + 0.5
    sums = Residuals()
    for a, b in zip(x.split(sizes), y.split(sizes)):
        sums.add(a, b)
    found, expected = explained_variance(sums), by_definition(x, y, sizes)
    assert found.keys() == expected.keys() == DEFINITIONS.keys()
    assert found == pytest.approx(expected, rel=1e-9)
    assert len({round(value, 6) for value in found.values()}) > 4  # they do differ


def test_a_constant_error_costs_nothing_where_the_residual_is_centred():
    x, sums = rows(), Residuals()
    sums.add(x, x + 2)
    found = explained_variance(sums)
    assert found["centred"] == pytest.approx(1)
    assert found["dictionary_learning"] == pytest.approx(1)
    assert found["pooled"] < 0.95


def test_variance_does_not_cancel_far_from_the_origin():
    x = rows(1000) + 1e9
    found = Variance()
    for piece in x.split(64):
        found.add(piece)
    assert found.total == pytest.approx(float((x - x.mean(0)).square().sum(1).mean()), rel=1e-9)
    naive = float(x.square().sum(1).mean() - x.mean(0).square().sum())
    assert naive != pytest.approx(found.total, rel=1e-3)  # which is why


def test_latents_in_small_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch):
    one, x = dictionary(), rows()
    whole = measure(one, [x], generator=generator(0)).values()
    monkeypatch.setattr(reading, "LATENT_BYTES", 4 * 20 * 3)  # three tokens at once
    pieces = measure(one, [x], generator=generator(0)).values()
    assert pieces == pytest.approx(whole, rel=1e-12, nan_ok=True)


def test_the_best_linear_map_is_pca():
    x = rows(300)
    centred = x - x.mean(0)
    parts = torch.linalg.svdvals(centred).square()
    metrics = measure(dictionary(), x.split(70))
    for k in (1, 3, 6):
        linear = metrics.linear(k)
        assert linear is not None
        assert linear.fvu == pytest.approx(float(parts[k:].sum() / parts.sum()), abs=1e-12)
        assert float((linear(x) - x).square().sum() / centred.square().sum()) == pytest.approx(linear.fvu, abs=1e-12)


def test_the_best_linear_map_of_a_transcoder_beats_every_other():
    x = rows(300)
    y = torch.tanh(x @ torch.randn(6, 4, generator=generator(5), dtype=torch.float64)) + 1
    metrics = measure(dictionary(d_out=4), zip(x.split(100), y.split(100)))
    variance = float((y - y.mean(0)).square().sum())
    full, one = metrics.linear(4), metrics.linear(1)
    assert full is not None
    assert one is not None
    with_ones = torch.cat([x, torch.ones(300, 1, dtype=torch.float64)], 1)
    least = y - with_ones @ torch.linalg.lstsq(with_ones, y).solution
    assert full.fvu == pytest.approx(float(least.square().sum()) / variance, rel=1e-9)
    for linear in (full, one):
        assert float((linear(x) - y).square().sum()) / variance == pytest.approx(linear.fvu, rel=1e-9)
    assert one.fvu > full.fvu
    assert torch.linalg.matrix_rank(one.down @ one.up) == 1


def test_a_transcoder_is_judged_by_its_target():
    one, x = dictionary(d_out=4), rows()
    y = rows(d=4, seed=7)
    found = measure(one, [(x, y)]).values()
    assert found["mse"] == pytest.approx(float((one.reconstruct(x) - y).square().sum(1).mean()))
    with pytest.raises(BadShape, match="writes 4 numbers"):
        measure(one, [x])


def test_latents_of_either_sign_fire():
    weights = DictionaryWeights(W_enc=torch.eye(3), W_dec=torch.eye(3), b_enc=torch.zeros(3), b_dec=torch.zeros(3))
    found = measure(Dictionary(weights, Form(activation="abstopk", k=1)), [torch.tensor([[-4.0, 1, 0], [0, 0, 2]])])
    assert found.firing.counts.tolist() == [1, 0, 1]
    assert found.firing.l1.value == 3


def test_l0_quantiles_are_those_of_sorted_tokens():
    one = Dictionary(dictionary().weights, Form(activation="relu"))
    x = rows(201)
    l0 = (one.encode(x) != 0).sum(1).sort().values
    found = measure(one, x.split(50)).firing
    assert (found.l0_quantile(0.5), found.l0_quantile(0.9)) == (int(l0[100]), int(l0[180]))
    assert int(found.l0_histogram.sum()) == 201


def test_the_largest_cosine_is_that_of_all_pairs():
    W = torch.randn(9, 4, generator=generator(2))
    pairs = torch.cosine_similarity(W[:, None], W[None], dim=-1).fill_diagonal_(-2)
    assert mean_max_cosine(W) == pytest.approx(float(pairs.max(1).values.mean()), abs=1e-6)
    assert mean_max_cosine(W, rows=3) == pytest.approx(float(pairs.max(1).values[[0, 4, 8]].mean()), abs=1e-6)
    assert math.isnan(mean_max_cosine(W[:1]))


def test_bad_activations_are_refused_or_skipped_and_said():
    one, x = dictionary(), rows()
    bad = x.clone()
    bad[3, 2], bad[7, 0] = torch.nan, torch.inf
    with pytest.raises(UserError, match=r"Batch 1 holds 2 of 50 .* NaN or infinite"):
        measure(one, [x, bad])
    notes: list[object] = []
    found = measure(one, [x, bad], on_nan="skip", watch=notes.append)
    assert found.n_tokens == 98
    assert any(isinstance(note, Note) and "left out" in note.text for note in notes)
    good = torch.cat([x, bad[bad.isfinite().all(1)]])
    assert found.fvu == pytest.approx(measure(one, [good]).fvu)
    with pytest.raises(BadShape, match=r"reads 6 numbers a token. Found activations of \(5,\)"):
        measure(one, [x[:, :5]])
    for few in ([], [x[:1]], [x[:0]]):
        with pytest.raises(UserError, match="Give longer text"):
            measure(one, few)


def held(value: object) -> int:
    """Bytes of all tensors within."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    inside = [getattr(value, each.name) for each in fields(value)] if is_dataclass(value) else []
    return sum(map(held, inside))


def test_memory_does_not_grow_with_tokens():
    one = dictionary()
    few, many = (measure(one, (rows(30, seed=i) for i in range(n))) for n in (1, 40))
    assert many.n_tokens == 1200
    assert held(few) == held(many) > 0


def test_normalised_dictionaries_are_judged_at_the_scale_of_their_input():
    one = Dictionary(dictionary().weights, replace(dictionary().form, normalise="layer-norm"))
    x = rows()
    assert measure(one, [x]).mse == pytest.approx(float((one.reconstruct(x) - x).square().sum(1).mean()))
