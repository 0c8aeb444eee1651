"""Coverage and reconstruction of labelled properties, against loops, on boards that are known."""

import pytest
import torch
from torch import Tensor

from micrographia.core.errors import BadShape, UserError
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.evaluation.coverage import count, coverage, random_encoder


def board(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Six squares, independent; activations are their directions and noise."""
    g = generator(seed)
    labels = (torch.rand(n, 6, generator=g) < 0.3).float()
    return labels + 0.05 * torch.randn(n, 6, generator=g), labels


def chunked(data: tuple[Tensor, Tensor], size: int = 100) -> list[tuple[Tensor, Tensor]]:
    return list(zip(data[0].split(size), data[1].split(size)))


def seeing(x: Tensor) -> Tensor:
    """A latent for each square but the last; one for two at once; a dead one."""
    return torch.cat([(x[:, :5] - 0.5).relu(), (x[:, :1] + x[:, 1:2] - 1.5).relu(), 0 * x[:, :1]], 1)


def test_the_best_f1_is_that_of_loops():
    x, labels = board(120, 0)
    found = coverage(lambda x: x.relu(), chunked((x, labels), 50), chunked(board(50, 1)))
    latents = x.relu()
    for i, best in enumerate(found.best):
        tried = {}
        for latent in range(6):
            for t in range(10):
                on = latents[:, latent] > t / 10 * latents[:, latent].max()
                true = labels[:, i] > 0
                tried[latent, t] = float(2 * (on & true).sum() / (on.sum() + true.sum()))
        assert best.f1 == pytest.approx(max(tried.values()))
        on = latents[:, best.latent] > best.level
        assert float(2 * (on & (labels[:, i] > 0)).sum() / (on.sum() + labels[:, i].sum())) == pytest.approx(best.f1)


def test_squares_with_a_latent_are_covered_and_reconstructed_and_others_are_not():
    train, held_out = chunked(board(1500, 0)), chunked(board(500, 1))
    found = coverage(
        seeing, train, held_out, [f"square {i}" for i in range(6)], generator=generator(2),
        random=random_encoder(6, 7, generator(3)),
    )  # fmt: skip
    assert [each.f1 for each in found.best[:5]] == pytest.approx([1] * 5)
    assert found.best[5].f1 < 0.55
    assert found.reconstruction[:5].tolist() == pytest.approx([1] * 5)
    assert float(found.reconstruction[5]) == 0
    assert found.n_detectors.tolist() == [2, 2, 1, 1, 1, 0]  # the latent of two squares is precise for either
    assert found.coverage > 0.85
    for cover, reconstruction in found.nulls.values():
        assert cover < found.coverage - 0.1
        assert reconstruction < found.mean_reconstruction - 0.1
    assert set(found.nulls) == {"permuted labels", "random directions"}
    assert "permuted labels" in str(found)
    assert [figure.kind for figure in found.figures()] == ["table", "table"]
    assert found.rows()[0]["property"] == "square 0"


def test_a_detector_that_is_not_precise_reconstructs_nothing():
    train, held_out = chunked(board(1500, 0)), chunked(board(500, 1))
    noisy = coverage(lambda x: (x[:, :2].amax(1, keepdim=True) - 0.5).relu(), train, held_out)
    assert float(noisy.reconstruction[0]) == 0
    assert noisy.best[0].f1 > 0.3


def test_a_detector_must_fire_often_enough():
    x, labels = board(300, 0)
    rare = torch.zeros(300, 1)
    rare[:5] = 1
    labels[:, 0] = 0
    labels[:7, 0] = 1  # precise at five tokens
    data = [(torch.cat([x, rare], 1), labels)]
    assert int(coverage(lambda x: x[:, 6:], data, data).n_detectors[0]) == 0
    assert int(coverage(lambda x: x[:, 6:], data, data, fewest=5).n_detectors[0]) == 1


def test_counts_do_not_depend_on_the_chunks():
    data = board(200, 0)
    one, many = count(seeing, [data]), count(seeing, chunked(data, 17))
    for a, b in zip(one, many):
        torch.testing.assert_close(a, b)


def test_what_cannot_be_covered_is_refused():
    train, held_out = chunked(board(200, 0)), chunked(board(50, 1))
    with pytest.raises(UserError, match="is an iterator"):
        coverage(seeing, iter(train), held_out)
    with pytest.raises(UserError, match="no data"):
        coverage(seeing, [], held_out)
    with pytest.raises(BadShape, match="2 names were given for 6"):
        coverage(seeing, train, held_out, ["a", "b"])
    with pytest.raises(BadShape, match="Labels"):
        coverage(seeing, [(x, y[:-1]) for x, y in train], held_out)
    with pytest.raises(UserError, match=r"The properties \[3\] are the same"):
        coverage(seeing, [(x, y * (torch.arange(6) != 3)) for x, y in train], held_out)
    with pytest.raises(UserError, match="ever true"):
        coverage(seeing, train, [(x, 0 * y) for x, y in held_out])
