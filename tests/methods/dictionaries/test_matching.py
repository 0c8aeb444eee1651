"""Two bundles compared: best matches against numpy's dense correlation and cosine."""

import numpy as np
import pytest
import torch

from micrographia.core.runtime import generator
from micrographia.core.store.formats import write_tensors
from micrographia.methods.dictionaries.features.firings import FiringStore
from micrographia.methods.dictionaries.features.matching import FEWEST, MATCHING, compare_folders, matching_tensors

TOKENS, OUT = 300, 16


def dense(n: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(TOKENS, n, generator=generator(seed))
    return (drawn * (drawn > 1)).half().float()


def kept(activations: torch.Tensor, decoder: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    latents, places = activations.T.nonzero(as_tuple=True)
    counts = latents.bincount(minlength=activations.shape[1])
    return {
        "decoder": torch.nn.functional.normalize(decoder, dim=1).half(),
        "ids": ids,
        "starts": torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int(),
        "places": places.to(torch.int16),
        "values": activations.T[latents, places].half(),
    }


def written(folder, content):
    write_tensors(folder / MATCHING, content)
    return folder


def test_best_matches_are_those_of_the_dense_tables(tmp_path):
    a, b = dense(20, 0), dense(30, 1)
    b[:, 4], b[:, 5] = 2 * a[:, 3], a[:, 3] + 0.5 * (a[:, 3] > 0)
    a[:, 7], b[:, 9] = 0, 0
    a[:3, 8], a[3:, 8] = 1, 0  # fires too seldom
    decoders = [torch.randn(n, OUT, generator=generator(n)) for n in (20, 30)]
    ids = torch.arange(TOKENS).int()
    one, other = (written(tmp_path / str(i), kept(each, decoders[i], ids)) for i, each in enumerate((a, b)))
    found = compare_folders(one, other)
    units = [torch.nn.functional.normalize(each, dim=1) for each in decoders]
    cosines = (units[0] @ units[1].T).numpy()
    assert [latent for latent, _ in found["cosine"]] == cosines.argmax(1).tolist()
    np.testing.assert_allclose([value for _, value in found["cosine"]], cosines.max(1), atol=1e-3)
    live = [i for i in range(20) if i not in (7, 8)]
    with np.errstate(invalid="ignore"):
        table = np.nan_to_num(np.corrcoef(a.T.numpy(), b.T.numpy())[:20, 20:], nan=-1)
    assert [found["correlation"][i][0] for i in live if i != 3] == table.argmax(1)[[i for i in live if i != 3]].tolist()
    np.testing.assert_allclose([found["correlation"][i][1] for i in live], table.max(1)[live], atol=1e-3)
    assert found["correlation"][3][0] == 4
    assert found["correlation"][7][1] is None
    assert found["correlation"][8][1] is None
    assert FEWEST > 3


def test_activations_of_any_size_are_compared(tmp_path):
    class Store(FiringStore):
        n_ctx, n_rows, n_latents = 30, 10, 6
        signed_ids = torch.arange(TOKENS)

        def __init__(self, activations):
            self.activations = activations

        def some_rows(self, rows):
            latents, places = self.activations.T.nonzero(as_tuple=True)
            yield latents.int(), places, self.activations.T[latents, places]

    unit, usual = torch.eye(6), dense(6, 0)
    folders = [
        written(tmp_path / str(scale), matching_tensors(unit, Store(scale * usual))) for scale in (1.0, 1e6, 1e-9, -1e5)
    ]
    for folder in folders[:3]:
        found = compare_folders(folders[0], folder)["correlation"]
        assert [at for at, _ in found] == list(range(6))
        assert [value for _, value in found] == pytest.approx([1.0] * 6, abs=1e-3)
    assert all(value < 0.5 for _, value in compare_folders(folders[0], folders[3])["correlation"])


def test_only_the_tokens_that_both_begin_with_count(tmp_path):
    a, decoder, ids = dense(20, 0), torch.randn(20, OUT, generator=generator(0)), torch.arange(TOKENS).int()
    longer = torch.cat([a, 5 * a.flip(0)])
    one = written(tmp_path / "a", kept(a, decoder, ids))
    other = written(tmp_path / "b", kept(longer, decoder, torch.cat([ids, ids])))
    assert compare_folders(one, other)["correlation"] == [[i, 1.0] for i in range(20)]


def test_other_widths_other_tokens_and_bundles_without_it_are_not_compared(tmp_path):
    a, ids = dense(20, 0), torch.arange(TOKENS).int()
    one = written(tmp_path / "a", kept(a, torch.randn(20, OUT, generator=generator(0)), ids))
    other = written(tmp_path / "b", kept(a, torch.randn(20, 8, generator=generator(0)), ids + 1))
    assert compare_folders(one, other) == {"cosine": None, "correlation": None}
    assert compare_folders(one, tmp_path / "nowhere") == {"cosine": None, "correlation": None}
