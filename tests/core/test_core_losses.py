"""Losses read off logits, above all the one that keeps float32's relative accuracy where a loss is tiny."""

import math

import pytest
import torch
from torch import Tensor

from micrographia.core.losses import accuracy, cross_entropy, stable_cross_entropy


def exact(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient from the definition, in float64, with log1p and expm1 where they keep digits."""
    logits = logits.double()
    own = logits.gather(-1, labels[..., None])
    others = (logits - own).exp().scatter(-1, labels[..., None], 0.0)
    rest = others.sum(-1, keepdim=True)
    gradient = (others / (1 + rest)).scatter(-1, labels[..., None], -rest / (1 + rest))
    return rest.log1p()[..., 0], gradient


def rows(margin: float, *, vocab: int = 30, batch: int = 200) -> tuple[Tensor, Tensor]:
    """Logits whose label stands `margin` above the rest, which lie within +-1."""
    generator = torch.Generator().manual_seed(round(1000 * margin) % 2**31)
    labels = torch.randint(0, vocab, (batch,), generator=generator)
    logits = torch.rand(batch, vocab, generator=generator) * 2 - 1
    return logits.scatter_add(1, labels[:, None], torch.full((batch, 1), margin)), labels


def test_cross_entropy_is_minus_the_log_of_the_share_of_the_label():
    logits, labels = rows(0.5)
    share = logits.double().exp().gather(1, labels[:, None])[:, 0] / logits.double().exp().sum(1)
    torch.testing.assert_close(cross_entropy(logits, labels), -share.log())
    torch.testing.assert_close(
        cross_entropy(logits, labels).mean(), torch.nn.CrossEntropyLoss()(logits.double(), labels)
    )


def test_cross_entropy_takes_any_batch_axes_and_is_float64():
    logits, labels = rows(0.5, batch=12)
    found = cross_entropy(logits.reshape(3, 4, 30), labels.reshape(3, 4))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.flatten(), cross_entropy(logits, labels))


@pytest.mark.parametrize("margin", [-80.0, -30.0, -3.0, 0.0, 1.0, 5.0, 10.0, 14.0])
def test_the_stable_loss_is_exact_to_one_part_in_a_million(margin):
    logits, labels = rows(margin)
    loss, gradient = stable_cross_entropy(logits, labels)
    true_loss, true_gradient = exact(logits, labels)
    assert loss.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(loss.double(), true_loss, rtol=1e-6, atol=0)
    tolerance = 1e-6 * max(1.0, abs(margin) / 8)  # of one exp: its argument is rounded to half a float32 step
    torch.testing.assert_close(gradient.double(), true_gradient, rtol=tolerance, atol=1e-38)


@pytest.mark.parametrize(("margin", "size"), [(18.0, 5e-7), (25.0, 5e-10), (31.0, 1e-12)])
def test_the_stable_loss_keeps_its_digits_down_to_1e_12(margin, size):
    """Beyond a margin of 16 a float32 difference of logits is known to 1e-6 only, and so is its exp."""
    logits, labels = rows(margin)
    loss, gradient = stable_cross_entropy(logits, labels)
    true_loss, true_gradient = exact(logits, labels)
    assert size / 2 < true_loss.median() < 2 * size
    torch.testing.assert_close(loss.double(), true_loss, rtol=2e-6, atol=0)
    torch.testing.assert_close(gradient.double(), true_gradient, rtol=2e-6, atol=1e-38)


def test_the_usual_float32_loss_does_not_keep_them():
    """What the stable form is for; and the comparison above can fail."""
    logits, labels = rows(18.0)
    usual = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
    assert ((usual - exact(logits, labels)[0]).abs() / exact(logits, labels)[0]).max() > 1e-3


def test_in_float64_the_stable_loss_and_gradient_are_those_of_autograd():
    logits, labels = rows(2.0)
    leaf = logits.double().requires_grad_()
    expected = cross_entropy(leaf, labels)
    expected.sum().backward()
    loss, gradient = stable_cross_entropy(leaf.detach(), labels)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "logits", [[[1e4, -1e4, 0.0]], [[0.0, 3e38, 0.0]], [[-1e4, -1e4, -1e4]], [[200.0, 200.0, -200.0]]]
)
@pytest.mark.parametrize("label", [0, 1, 2])
def test_extreme_logits_give_neither_nan_nor_a_wrong_sign(logits, label):
    loss, gradient = stable_cross_entropy(torch.tensor(logits), torch.tensor([label]))
    assert not loss.isnan().any()
    assert (loss >= 0).all()
    assert gradient.isfinite().all()
    assert gradient[0, label] <= 0
    assert gradient.sum().abs() <= 1e-6
    true_loss, _ = exact(torch.tensor(logits), torch.tensor([label]))
    torch.testing.assert_close(loss.double(), true_loss if true_loss.isfinite() else loss.double(), rtol=1e-6, atol=0)


def test_a_label_that_ties_with_the_largest_loses_log_of_their_number():
    loss, gradient = stable_cross_entropy(torch.tensor([[2.0, 2.0, 2.0, -1e9]]), torch.tensor([1]))
    assert loss.item() == pytest.approx(math.log(3))
    torch.testing.assert_close(gradient, torch.tensor([[1 / 3, -2 / 3, 1 / 3, 0.0]]))


def test_without_out_the_logits_stay_and_with_it_they_may_be_overwritten():
    logits, labels = rows(3.0)
    before = logits.clone()
    expected = stable_cross_entropy(logits, labels)
    assert torch.equal(logits, before)
    found = stable_cross_entropy(logits, labels, out=logits)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.gradient, expected.gradient)
    assert found.gradient.data_ptr() == logits.data_ptr()


def test_accuracy_is_the_share_of_rows_that_are_right():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0], [0.0, 5.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75
    assert math.isnan(accuracy(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)))
