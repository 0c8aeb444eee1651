"""Each ablation against its dense definition."""

import math

import pytest
import torch

from micrographia.core.basis import fold, fourier_basis, rows_of_frequencies
from micrographia.methods.fourier import ablations as table
from micrographia.methods.fourier.ablations import NeuronCuts, ablations, key_components, without
from micrographia.methods.fourier.losses import losses
from micrographia.methods.fourier.replacements import ReplacementTable, Row
from micrographia.methods.fourier.restricted import excluded_loss
from micrographia.methods.fourier.spectra import two_d_coefficients

N, M, KEYS = 11, 30, [2, 5]


def draw(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Neurons (n, n, m), W_L (m, n) with centred rows, logits with something that goes round the neurons."""
    neurons, W_L = draw(N, N, M) + 0.5, draw(M, N, seed=4)
    W_L = W_L - W_L.mean(dim=1, keepdim=True)
    return neurons, W_L, 0.2 * (neurons @ W_L) + draw(N, N, N, seed=5)


def rows(seed: int = 0, ks: list[int] = KEYS, **changed) -> dict[str, Row]:
    neurons, W_L, logits = network()
    given = {"neurons": neurons, "W_L": W_L, "train": draw(N, N, seed=6) > 0, "draws": 3} | changed
    found = ablations(logits, ks, generator=torch.Generator().manual_seed(seed), **given)
    return {row.name: row for row in found}


def projector(ks: list[int]) -> torch.Tensor:
    """On the span of W_L's columns in the Fourier basis of c, by least squares."""
    _, W_L, _ = network()
    directions = W_L @ fourier_basis(N)[rows_of_frequencies(ks, N)].T
    return directions @ torch.linalg.pinv(directions)


def test_key_directions_are_kept_alone_or_taken_out():
    neurons, W_L, logits = network()
    rest, on = logits - neurons @ W_L, projector(KEYS)
    found = rows()
    assert found[table.KEY_SPACE].loss == pytest.approx(losses(neurons @ on @ W_L + rest).loss)
    off = torch.eye(M, dtype=torch.float64) - on
    assert found[table.NULL_SPACE].loss == pytest.approx(losses(neurons @ off @ W_L + rest).loss)
    assert "4 directions" in found[table.KEY_SPACE].says


def test_taking_the_key_directions_out_leaves_w_l_nothing_to_read_at_the_key_frequencies():
    neurons, W_L, logits = network()
    cut = NeuronCuts(ReplacementTable(logits, None), neurons, W_L)
    key_rows = fourier_basis(N)[rows_of_frequencies(KEYS, N)]
    written = (neurons @ W_L - cut.through(cut.space(KEYS))) @ key_rows.T
    assert written.abs().max() < 1e-9


def test_controls_beside_the_key_directions_change_nothing_at_the_key_frequencies():
    neurons, W_L, logits = network()
    cut = NeuronCuts(ReplacementTable(logits, None), neurons, W_L)
    space = cut.space([1, 3], beside=cut.space(KEYS))
    assert space.shape == (M, 4)
    torch.testing.assert_close(space.T @ space, torch.eye(4, dtype=torch.float64))
    key_rows = fourier_basis(N)[rows_of_frequencies(KEYS, N)]
    assert (cut.through(space) @ key_rows.T).abs().max() < 1e-9


def test_controls_are_means_over_draws_of_the_given_generator():
    neurons, W_L, logits = network()
    first, again, other = rows(0), rows(0), rows(1)
    for name in (table.RANDOM_SPACE, table.OTHER_SPACE):
        assert first[name] == again[name]
        assert first[name].loss != other[name].loss
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(3):
        random = torch.linalg.qr(torch.randn(M, 4, generator=generator, dtype=torch.float64))[0]
        found.append(losses(logits - neurons @ random @ random.T @ W_L).loss)
    assert first[table.RANDOM_SPACE].loss == pytest.approx(sum(found) / 3)
    assert f"from {min(found):.3g} to {max(found):.3g}" in first[table.RANDOM_SPACE].says


def test_without_other_frequencies_there_is_no_control_of_them():
    assert table.OTHER_SPACE not in rows(ks=[1, 2, 3, 4, 5])


def test_dependent_directions_count_once():
    neurons, W_L, logits = network()
    flat = W_L.clone()
    flat[:] = W_L[0]
    cut = NeuronCuts(ReplacementTable(logits, None), neurons, flat)
    assert cut.space(KEYS).shape == (M, 1)


def test_without_the_skip_path_the_neurons_and_a_mean_are_left():
    neurons, W_L, logits = network()
    written = neurons @ W_L
    dense = written + (logits - written).mean(dim=(0, 1))
    assert rows()[table.NO_SKIP].loss == pytest.approx(losses(dense).loss)


@pytest.mark.parametrize(("n", "ks"), [(7, [1, 3]), (8, [4, 1]), (9, [])])
def test_key_components_are_the_constant_and_eight_for_each_frequency(n, ks):
    x = draw(n, n, 3)
    kept, coefficients = two_d_coefficients(key_components(x, ks)), two_d_coefficients(x)
    mask = torch.zeros(n, n, dtype=torch.bool)
    mask[0, 0] = True
    for k in ks:
        own = [0, *rows_of_frequencies([k], n).tolist()]
        mask[torch.tensor(own)[:, None], torch.tensor(own)] = True
    if n % 2:
        assert mask.sum() == 1 + 8 * len(ks)
    torch.testing.assert_close(kept, coefficients * mask[..., None])


def test_components_are_kept_or_removed_from_the_logits():
    *_, logits = network()
    kept, found = key_components(logits, KEYS), rows()
    assert found[table.COMPONENTS_KEPT].loss == pytest.approx(losses(kept).loss)
    without_them = logits - kept + fold(logits).mean(dim=0)
    assert found[table.COMPONENTS_REMOVED].loss == pytest.approx(losses(without_them).loss)


def test_each_key_frequency_is_removed_alone():
    *_, logits = network()
    found, own = rows(), losses(logits).loss
    for k in KEYS:
        dense = excluded_loss(logits, [k]).loss
        assert found[without(k)].loss == pytest.approx(dense)
        assert found[without(k)].ratio == pytest.approx(dense / own)
        assert f"{dense - own:+.3g}" in found[without(k)].says


def test_what_is_not_there_is_left_out():
    assert list(rows(ks=[])) == [table.NO_SKIP]
    on_logits = [table.COMPONENTS_KEPT, table.COMPONENTS_REMOVED, without(2), without(5)]
    assert list(rows(neurons=None, W_L=None)) == on_logits
    assert math.isnan(rows(train=None)[table.NO_SKIP].test_loss)
