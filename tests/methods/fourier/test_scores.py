"""Scores of frequencies, on networks whose waves are known."""

import pytest
import torch

from micrographia.core.basis import n_frequencies
from micrographia.methods.fourier.scores import SCORES, frequency_scores, waves


def network_of(n: int, k: int, *, turned: float = 0.0, neurons: int = 8) -> dict[str, torch.Tensor]:
    """Neurons that are waves of a+b at frequency k in all phases, read out as waves of c turned by an angle."""
    generator = torch.Generator().manual_seed(0)
    at = torch.arange(n)
    phase = torch.linspace(0, 2 * torch.pi, neurons + 1)[:-1]
    angle = 2 * torch.pi * k / n
    H = torch.cos(angle * ((at[:, None] + at) % n)[..., None] + phase)
    W_L = torch.cos(angle * at + phase[:, None] + turned).double()
    W_E = torch.cos(angle * at)[:, None] * torch.ones(3) + 1e-3 * torch.randn(n, 3, generator=generator)
    logits = (H.double() @ W_L).float()
    return {"logits": logits, "W_E": W_E, "neurons": H, "W_L": W_L}


@pytest.mark.parametrize(("n", "k"), [(11, 3), (10, 4), (10, 5)])
def test_every_score_is_largest_at_the_frequency_that_is_there(n, k):
    found = frequency_scores(**network_of(n, k))
    assert list(found) == list(SCORES)
    for name, values in found.items():
        assert values.shape == (n_frequencies(n),)
        if name != "alignment":
            assert values.argmax() == k - 1, name
    assert found["alignment"][k - 1] == pytest.approx(1, abs=1e-5)


def test_phases_that_disagree_lower_the_alignment_and_leave_the_potential():
    straight, turned = frequency_scores(**network_of(11, 3)), frequency_scores(**network_of(11, 3, turned=torch.pi / 3))
    assert turned["alignment"][2] == pytest.approx(0.5, abs=1e-5)
    assert turned["potential"][2] == pytest.approx(straight["potential"][2].item())
    assert frequency_scores(**network_of(11, 3, turned=torch.pi))["alignment"][2] == pytest.approx(-1, abs=1e-5)
    assert frequency_scores(**network_of(11, 3, turned=torch.pi))["cosine"][2] < 0


def test_without_neurons_embedding_and_logits_are_left():
    assert set(frequency_scores(**network_of(11, 3) | {"neurons": None, "W_L": None})) == {"embedding", "cosine"}


def test_waves_keep_the_energy_of_what_has_no_mean():
    for n in (9, 10):
        x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0)).double()
        x = x - x.mean(0)
        assert torch.allclose(waves(x).abs().square().sum(0), x.square().sum(0))
