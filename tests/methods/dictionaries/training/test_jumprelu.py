"""JumpReLU's estimators against their closed form, and against the slope of the expected loss itself."""

import pytest
import torch
from test_gradients_of_losses import stack_of, weights_of, written_out

from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.training.stack import ScaledBatch

WIDTH = 0.3


def step(stack, x, weights):
    return written_out(stack, {name: value.clone() for name, value in weights.items()}, ScaledBatch(x, x, x.shape[1]))


def setting(rows=40):
    random = generator(5)
    stack = jump(WIDTH, penalty="l0", sparsity=0.2)
    x = torch.randn(1, rows, stack.d_in, generator=random, dtype=torch.float64)
    return stack, weights_of(stack, random), x


def test_the_threshold_s_gradient_is_the_closed_form():
    """arXiv 2407.14435, eq. 11 and 12, entry by entry from pre-activations, with loops and no tensor algebra."""
    _stack, w, x = setting()
    _, slots = step(jump(WIDTH, penalty="l0", sparsity=0.2), x, w)
    read = x[0] - w["b_dec"][0]
    p = read @ w["encoder"][0].T + w["b_enc"][0]
    theta = w["threshold"][0]
    out = (p * (p > theta)) @ w["decoder"][0] + w["b_dec"][0]
    df = 2 / len(p) * (out - x[0]) @ w["decoder"][0].T
    wanted = torch.zeros_like(theta)
    at_edge = 0
    for b in range(len(p)):
        for i in range(len(theta)):
            if abs(p[b, i] - theta[i]) / WIDTH < 0.5:
                at_edge += 1
                wanted[i] += -theta[i] / WIDTH * df[b, i] - 0.2 / WIDTH / len(p)
    assert 10 < at_edge < p.numel() / 2
    torch.testing.assert_close(slots["threshold"][0], wanted, atol=1e-10, rtol=1e-10)


def test_the_kernel_reaches_pre_activations_on_both_sides_of_the_threshold():
    """An estimator fed with the gated latents sees the upper half of its kernel only."""
    _, w, x = setting()
    p = (x[0] - w["b_dec"][0]) @ w["encoder"][0].T + w["b_enc"][0]
    for side in (-0.4, 0.4):
        v = {name: value.clone() for name, value in w.items()}
        v["threshold"][0] = 50.0  # far from all
        v["threshold"][0, 3] = p[7, 3] - side * WIDTH
        _, slots = step(jump(WIDTH, penalty="l0", sparsity=0.2), x, v)
        alone = ((p[:, 3] - v["threshold"][0, 3]).abs() < WIDTH / 2).sum()
        assert alone >= 1
        assert slots["threshold"][0, 3] != 0
        assert not slots["threshold"][0, :3].any()


def jump(width, **fields):
    return stack_of({"kind": "jumprelu", "bandwidth": width, **fields}, members=1)


def slope_over_the_kernel(stack, x, w, latent, term):
    """The slope of a term averaged over thresholds within the kernel: its difference between the kernel's two ends."""
    ends = []
    for sign in (1, -1):
        v = {**w, "threshold": w["threshold"].clone()}
        v["threshold"][0, latent] += sign * stack.recipe.bandwidth / 2
        ends.append(step(stack, x, v)[0].terms[term].item())
    return (ends[0] - ends[1]) / stack.recipe.bandwidth


@pytest.mark.parametrize("latent", [2, 17])
def test_the_estimator_of_the_count_is_the_slope_of_the_count_smoothed(latent):
    _, w, x = setting(rows=2000)
    both = step(jump(0.05, penalty="l0", sparsity=0.2), x, w)[1]["threshold"][0, latent]
    without = step(jump(0.05, penalty="none"), x, w)[1]["threshold"][0, latent]
    wanted = slope_over_the_kernel(jump(0.05, penalty="l0", sparsity=0.2), x, w, latent, "sparsity")
    assert wanted < 0
    assert (both - without).item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("latent", [2, 17])
def test_the_estimator_of_the_reconstruction_is_the_slope_of_its_mean_smoothed(latent):
    """By Monte Carlo. The estimator takes f = threshold for what is near it, so it agrees as the kernel narrows."""
    _, w, x = setting(rows=60_000)
    w["threshold"].clamp_(0.2, 0.6)
    stack = jump(0.05, penalty="none")
    wanted = slope_over_the_kernel(stack, x, w, latent, "reconstruction")
    assert abs(wanted) > 0.01
    assert step(stack, x, w)[1]["threshold"][0, latent].item() == pytest.approx(wanted, rel=0.05)
