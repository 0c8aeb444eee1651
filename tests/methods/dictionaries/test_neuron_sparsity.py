"""How sparse a decoder is in the neurons: rows of known make, baselines, and what no neuron can change."""

import pytest
import torch

from micrographia.core.errors import BadShape
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.geometry.neuron_sparsity import (
    CutOffs,
    by_cut_offs,
    gaussian_rows,
    kurtosis,
    neuron_shares,
    null_share,
    null_share_by_chance,
    rotated_rows,
    sparsity_classes,
)

N = 400


def planted(n_one: int, n_ten: int, n_dense: int) -> torch.Tensor:
    """Rows that are one neuron, ten neurons, and all, with a little noise on each."""
    rows = torch.zeros(n_one + n_ten + n_dense, N)
    for i in range(n_one):
        rows[i, i % N] = -1.0
    for i in range(n_one, n_one + n_ten):
        rows[i, i * 10 % (N - 10) : i * 10 % (N - 10) + 10] = torch.tensor([1.0, -1.0]).repeat(5)
    rows[n_one + n_ten :] = 1.0
    return rows + 0.001 * torch.randn(rows.shape, generator=generator(0))


def test_planted_rows_are_told_apart():
    found = sparsity_classes(neuron_shares(planted(4, 3, 13)))
    assert found == pytest.approx((4 / 20, 3 / 20, 13 / 20))


def test_some_rows_alone_can_be_asked_for():
    rows = planted(4, 3, 13)
    among = torch.arange(20) < 7
    assert sparsity_classes(neuron_shares(rows), among=among) == pytest.approx((4 / 7, 3 / 7, 0))


def test_shares_do_not_depend_on_sign_length_or_order_of_neurons():
    rows = planted(4, 3, 13)
    mixed = -3 * rows[:, torch.randperm(N, generator=generator(1))]
    torch.testing.assert_close(neuron_shares(mixed).fve_10, neuron_shares(rows).fve_10)


def test_a_row_of_zeros_is_of_no_class():
    rows = torch.cat([planted(1, 0, 1), torch.zeros(2, N)])
    assert sparsity_classes(neuron_shares(rows)) == pytest.approx((0.5, 0, 0.5))


def test_rows_of_fewer_than_ten_neurons_are_refused():
    with pytest.raises(BadShape, match="9"):
        neuron_shares(torch.ones(2, 9))


def test_a_random_basis_keeps_lengths_and_angles_and_makes_sparse_rows_dense():
    rows = planted(30, 30, 0)
    turned = rotated_rows(rows, generator(0))
    torch.testing.assert_close(turned @ turned.T, rows @ rows.T, atol=1e-4, rtol=1e-4)
    assert sparsity_classes(neuron_shares(turned)).dense == 1
    assert sparsity_classes(neuron_shares(rows)).dense == 0


def test_gaussian_rows_have_kurtosis_three_and_one_neuron_far_more():
    gaussian = gaussian_rows(torch.empty(200, N), generator(0))
    assert float(kurtosis(gaussian).mean()) == pytest.approx(3, abs=0.05)
    assert float(kurtosis(planted(5, 0, 0)).min()) > 100


def test_other_cut_offs_move_rows_between_classes():
    shares = neuron_shares(planted(4, 3, 13))
    one, ten, dense = by_cut_offs(shares, [0.02, 0.35, 0.99], [0.1, 1.0])
    torch.testing.assert_close(one + ten + dense, torch.ones(3, 2, dtype=torch.float64))
    assert dense[:2].tolist() == [[0.0, 0.0], pytest.approx([13 / 20] * 2)]
    assert one[1].tolist() == pytest.approx([4 / 20, 4 / 20])
    assert float(one[0, 1]) == pytest.approx(7 / 20)  # the rows of ten neurons have a tenth in each
    assert sparsity_classes(shares, CutOffs(one=0.05, next_nine=1.0)).one == pytest.approx(7 / 20)


def test_the_null_space_share_is_one_inside_zero_outside_and_chance_at_random():
    W_out = torch.randn(40, 10, generator=generator(0))
    full, _ = torch.linalg.qr(W_out, mode="complete")
    torch.testing.assert_close(null_share(full[:, 10:].T, W_out), torch.ones(30, dtype=torch.float64))
    torch.testing.assert_close(null_share(W_out.T, W_out), torch.zeros(10, dtype=torch.float64), atol=1e-6, rtol=0)
    random = torch.randn(5000, 40, generator=generator(1))
    assert null_share_by_chance(W_out) == 0.75
    assert float(null_share(random, W_out).mean()) == pytest.approx(0.75, abs=0.01)


def test_a_matrix_that_reads_fewer_dimensions_than_it_has_columns_has_a_larger_null_space():
    thin = torch.randn(40, 4, generator=generator(0)) @ torch.randn(4, 10, generator=generator(1))
    assert null_share_by_chance(thin) == 0.9
    random = torch.randn(5000, 40, generator=generator(1))
    assert float(null_share(random, thin).mean()) == pytest.approx(0.9, abs=0.01)
