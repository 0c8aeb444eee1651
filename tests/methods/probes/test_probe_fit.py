"""Probes of many sites at once: the written-out gradient, the folded standardisation, and counts beside plain loops."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from micrographia.core.errors import BadShape, UserError
from micrographia.methods.probes.fit import Fitting, _descend, fit_probes
from micrographia.methods.probes.probe import LabelledRows, ProbeLayer, Probes, ProbeTarget, SiteProbes
from micrographia.methods.probes.score import score_probes

SITES, ROWS, D, ITEMS, CLASSES = 2, 40, 5, 3, 4
TARGET = ProbeTarget(ITEMS, CLASSES)


@pytest.fixture
def random() -> Generator:
    return Generator().manual_seed(0)


def drawn(random: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def labels_with_gaps(random: Generator) -> Tensor:
    return torch.randint(-1, CLASSES, (ROWS, ITEMS), generator=random)


def fitted(x: Tensor, labels: dict[str, Tensor], target: ProbeTarget, steps: int = 30, **choices: Any) -> Probes:
    rows = itertools.repeat(LabelledRows(x, labels))
    return fit_probes(
        rows, dict.fromkeys(labels, target), Fitting(steps=steps, **choices), generator=Generator().manual_seed(1)
    )


@pytest.mark.parametrize("hidden", [None, 7])
def test_the_written_gradient_is_that_of_autograd(hidden, random):
    x, labels = drawn(random, SITES, ROWS, D), labels_with_gaps(random)
    sizes = [(D, ITEMS * CLASSES)] if hidden is None else [(hidden, ITEMS * CLASSES), (D, hidden)]
    layers = [ProbeLayer(drawn(random, SITES, *size), drawn(random, SITES, size[1])) for size in sizes]
    probe = SiteProbes(TARGET, *layers)
    loss = _descend(probe, x, labels)
    written = [part.grad.clone() for layer in layers for part in layer if part.grad is not None]
    for layer in layers:
        for part in layer:
            part.grad = None
            part.requires_grad_()
    logits = probe.logits(x)
    each = [F.cross_entropy(own.flatten(0, 1), labels.flatten(), ignore_index=-1) for own in logits]
    torch.stack(each).sum().backward()
    assert loss == pytest.approx(float(torch.stack(each).mean().detach()))
    assert len(written) == sum(map(len, layers))
    for ours, part in zip(written, (part for layer in layers for part in layer), strict=True):
        torch.testing.assert_close(ours, part.grad)


@pytest.mark.parametrize("hidden", [None, 6])
def test_activations_on_another_scale_give_the_same_logits(hidden, random):
    x, labels = drawn(random, SITES, ROWS, D), labels_with_gaps(random)
    scale, shift = 10 ** drawn(random, SITES, 1, D), 5 * drawn(random, SITES, 1, D)
    plain, moved = (fitted(each, {"a": labels}, TARGET, hidden=hidden) for each in (x, scale * x + shift))
    torch.testing.assert_close(plain["a"].logits(x), moved["a"].logits(scale * x + shift))
    assert float(plain["a"].logits(x).std()) > 0.1


def test_a_feature_that_never_changes_is_not_read(random):
    x, labels = drawn(random, SITES, ROWS, D), labels_with_gaps(random)
    x[..., 2] = 3.0
    found = fitted(x, {"a": labels}, TARGET)["a"].directions
    assert not found[:, 2].any()
    assert found[:, 1].any()


def test_sites_and_targets_fitted_together_are_what_they_are_alone(random):
    x, one, other = drawn(random, SITES, ROWS, D), labels_with_gaps(random), labels_with_gaps(random)
    together = fitted(x, {"one": one, "other": other}, TARGET)
    for site in range(SITES):
        for name, labels in (("one", one), ("other", other)):
            alone = fitted(x[site : site + 1], {name: labels}, TARGET)
            torch.testing.assert_close(together[name].at(site).readout, alone[name].readout)


def test_a_label_that_is_a_direction_is_learned_and_one_of_two_signs_only_with_a_hidden_layer(random):
    x = drawn(random, 1, 400, D)
    labels = {"sign": (x[0, :, :1] > 0).long(), "xor": (x[0, :, :1] * x[0, :, 1:2] > 0).long()}
    rows = LabelledRows(x, labels)
    linear, deep = (
        {name: float(each.accuracy()) for name, each in score_probes(probes, [rows]).items()}
        for probes in (fitted(x, labels, ProbeTarget(), 200, hidden=hidden) for hidden in (None, 32))
    )
    assert linear["sign"] > 0.97
    assert linear["xor"] < 0.65
    assert deep["xor"] > 0.95


def test_counts_are_those_of_a_plain_loop(random):
    x, labels, group = drawn(random, SITES, ROWS, D), labels_with_gaps(random), torch.arange(ROWS) % 3
    probes = Probes({"a": SiteProbes(TARGET, ProbeLayer(drawn(random, SITES, D, 12), drawn(random, SITES, 12)))})
    blocks = [LabelledRows(x[:, part], {"a": labels[part]}, group[part]) for part in torch.arange(ROWS).split(17)]
    found = score_probes(probes, blocks, n_groups=3)["a"]
    said = probes["a"].logits(x).argmax(-1)
    plain, whole = torch.zeros_like(found.counts), torch.zeros_like(found.whole)
    for site, row in itertools.product(range(SITES), range(ROWS)):
        right = True
        for item in range(ITEMS):
            if (true := int(labels[row, item])) >= 0:
                plain[site, group[row], item, true, said[site, row, item]] += 1
                right &= true == int(said[site, row, item])
        whole[site, group[row]] += right
    assert torch.equal(found.counts, plain)
    assert torch.equal(found.whole, whole)
    assert found.rows.tolist() == [14, 13, 13]
    known = labels >= 0
    hits = ((said == labels) & known).sum((1, 2)).double()
    torch.testing.assert_close(found.accuracy(), hits / known.sum())
    torch.testing.assert_close(found.whole_accuracy(), whole.sum(1).double() / ROWS)
    commonest = sum(
        int(labels[group == g, item][labels[group == g, item] >= 0].bincount().max())
        for g in range(3)
        for item in range(ITEMS)
    )
    assert found.majority() == pytest.approx(commonest / int(known.sum()))
    positive = (said[0] == 1) & known
    both = int((positive & (labels == 1)).sum())
    assert float(found.f1()[0]) == pytest.approx(2 * both / int(positive.sum() + (labels == 1).sum()))


def test_what_cannot_be_fitted_is_refused(random):
    x, labels = drawn(random, SITES, ROWS, D), labels_with_gaps(random)
    choices: dict[str, Any] = {"generator": random}
    with pytest.raises(UserError, match="no labelled activations"):
        fit_probes([], {"a": TARGET}, Fitting(steps=1), **choices)
    with pytest.raises(UserError, match=r"3 batches\. Found 2"):
        fit_probes([LabelledRows(x, {"a": labels})] * 2, {"a": TARGET}, Fitting(steps=3), **choices)
    for target in (ProbeTarget(ITEMS, CLASSES - 1), ProbeTarget(1, CLASSES)):
        with pytest.raises(BadShape, match="labels of 'a'"):
            fit_probes([LabelledRows(x, {"a": labels})], {"a": target}, Fitting(steps=1), **choices)
    with pytest.raises(BadShape, match="Only linear"):
        _ = fitted(x, {"a": labels}, TARGET, 1, hidden=3)["a"].directions
