"""Harvest: the model's own activations, of the tokens that count; the layers behind are left out, mishaps are named."""

from types import SimpleNamespace

import pytest
import torch

from letters import random_rows, reader
from micrographia.core.errors import BadConfig, NonFiniteActivations, UnknownSite, UserError
from micrographia.core.events import Note
from micrographia.core.sites import Site
from micrographia.core.stream import harvest as harvest_module
from micrographia.core.stream.harvest import harvest, harvester
from tiny_families import tiny

SITES = ["L0.mlp_out", "L1.z", "embed"]


def gathered(*arguments, **choices):
    found = list(harvest(*arguments, **choices))
    return {site: torch.cat([each[site] for each in found]) for site in found[0]}


def plain(model, site, rows, *, sink=True):
    """The same in the slowest way: every row alone, the whole model, token by token."""
    found = []
    for row in rows:
        value = model.run(row[None], keep=[site]).cache[site][0]
        for pos, token in enumerate(row.tolist()):
            if token not in rows.special and not (sink and pos == 0):
                found.append(value[pos].flatten())
    return torch.stack(found)


@pytest.mark.parametrize("sink", [True, False])
def test_activations_are_the_models_own(sink):
    model, rows = reader(torch.float64), random_rows(9)
    found = gathered(model, SITES, rows, rows_a_pass=4, sink=sink)
    assert list(found) == [Site.parse(name) for name in SITES]
    for name in SITES:
        torch.testing.assert_close(found[Site.parse(name)], plain(model, name, rows, sink=sink))


def test_rows_come_in_the_order_asked_for():
    model, rows = reader(torch.float64), random_rows(9)
    order = torch.tensor([5, 2, 8])
    found = gathered(model, "L0.resid_post", rows, order=order)
    torch.testing.assert_close(found[Site("resid_post", 0)], plain(model, "L0.resid_post", rows.take(order)))


@pytest.mark.parametrize("kind", ["grouped heads", "parallel blocks", "norms behind", "flattened mlp", "encoder"])
def test_every_site_of_every_family_is_read_whichever_comes_last(kind):
    model = tiny(kind)
    rows = random_rows(3, 5, d_vocab=31)
    sites = [site for site in model.sites if "query" not in site.axes]
    whole = model.run(rows[:], keep=sites).cache
    for first in range(3, len(sites), 11):
        some = sites[first::-3] + sites[: first + 1 : 4]
        found = gathered(model, some, rows)
        for site in some:
            wanted = whole[site].flatten(2)[rows.kept(rows[:])]
            torch.testing.assert_close(found[site], wanted, msg=f"{site} of {some}")


def test_layers_behind_the_last_site_are_not_computed():
    model, ran = tiny("grouped heads"), []
    for i, layer in enumerate(model.body.layers):
        layer.mlp.register_forward_hook(lambda *_, i=i: ran.append(i))
    head = model.module.get_output_embeddings().register_forward_hook(lambda *_: ran.append("head"))
    try:
        list(harvest(model, ["L0.resid_post", "embed"], random_rows(2)))
        assert set(ran) == {0}
        ran.clear()
        list(harvest(model, ["L1.attn_out"], random_rows(2)))
        assert set(ran) == {0}
    finally:
        head.remove()
        for layer in model.body.layers:
            layer.mlp._forward_hooks.clear()


def test_no_graph_is_kept():
    (found,) = harvest(reader(), "L0.mlp_out", random_rows(2))
    assert not found[Site("mlp_out", 0)].requires_grad


def test_what_is_left_out_is_said():
    heard = []
    list(harvest(reader(), "embed", random_rows(2, special=(0, 3)), watch=heard.append))
    assert heard[0] == Note(
        "Left out: 2 special tokens (0, 3) and the first position of each row (the attention sink)."
    )
    list(harvest(reader(), "embed", random_rows(2, special=()), sink=False, watch=heard.append))
    assert Note("Every token counts: none is special, and the first position is kept.") in heard


class Broken:
    """A model with bad activations in some rows, or without memory for many."""

    def __init__(self, *, bad_token: int | None = None, most: int = 99, error: Exception | None = None) -> None:
        self.inner, self.bad_token, self.most, self.error = reader(), bad_token, most, error
        self.passes: list[int] = []
        self.shape, self.sites = self.inner.shape, self.inner.sites
        self.weights, self.tokenizer, self.fused, self.unembed = (), None, self.inner, self.inner.unembed

    def run(self, ids, *, keep, stop):
        self.passes.append(len(ids))
        if len(ids) > self.most:
            raise self.error
        cache = dict(self.inner.run(ids, keep=keep, stop=stop).cache)
        if self.bad_token is not None:
            for value in cache.values():
                value[ids == self.bad_token] = torch.nan
        return SimpleNamespace(cache=cache)


ROWS = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 3], [1, 5, 2, 5], [5, 4, 3, 2]])


def test_nan_activations_stop_and_the_batch_is_named():
    with pytest.raises(
        NonFiniteActivations, match=r"at L0.mlp_out in 2 of 6 tokens of rows 2 to 3, the first in row 2"
    ):
        list(harvest(Broken(bad_token=5), "L0.mlp_out", ROWS, rows_a_pass=2))


def test_nan_activations_are_skipped_when_asked():
    heard = []
    found = gathered(Broken(bad_token=5), "L0.mlp_out", ROWS, rows_a_pass=2, bad="skip", watch=heard.append)
    kept = (ROWS != 5) & (torch.arange(4) > 0)
    wanted = reader().run(ROWS, keep=["L0.mlp_out"]).cache["L0.mlp_out"][kept]
    torch.testing.assert_close(found[Site("mlp_out", 0)], wanted)
    assert [each.level for each in heard if isinstance(each, Note)] == ["info", "warning"]


def test_infinite_sums_of_finite_activations_are_not_taken_for_bad():
    assert harvest_module.not_finite(torch.full((4, 2), 3e38)) is None
    assert harvest_module.not_finite(torch.tensor([[1.0], [torch.inf], [-torch.inf]])).tolist() == [False, True, True]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("CPUAllocator: can't allocate memory")],
    ids=["cuda", "python", "cpu"],
)  # fmt: skip
def test_a_pass_without_memory_is_halved_and_said(error):
    model, heard = Broken(most=3, error=error), []
    found = gathered(model, "L0.mlp_out", random_rows(20), rows_a_pass=16, watch=heard.append)
    torch.testing.assert_close(found, gathered(reader(), "L0.mlp_out", random_rows(20)))
    assert model.passes == [16, 8, 4, *[2] * 10]
    said = [each.text for each in heard if isinstance(each, Note) and each.level == "warning"]
    assert [text.split(";")[0] for text in said] == [f"Memory ran out in a pass of {n} rows" for n in (16, 8, 4)]


def test_no_memory_for_one_row_is_an_error():
    with pytest.raises(UserError, match="one row of 4 tokens at a time"):
        list(harvest(Broken(most=0, error=MemoryError("no memory")), "L0.mlp_out", ROWS))


def test_other_errors_of_the_model_are_not_hidden():
    with pytest.raises(RuntimeError, match="shapes"):
        list(harvest(Broken(most=0, error=RuntimeError("shapes do not fit")), "L0.mlp_out", ROWS))


def test_what_cannot_be_read_is_refused():
    model = reader()
    for wanted, says in {
        "L0.pattern": "one number for a pair",
        "L9.z": "no site",
        "L0.resid_post[sae].latents": "parts of a dictionary",
    }.items():
        with pytest.raises(UnknownSite, match=says):
            harvester(model, wanted, ROWS)
    with pytest.raises(UnknownSite, match="at no site"):
        harvester(model, [], ROWS)
    with pytest.raises(UserError, match="this model reads 4"):
        harvester(model, "embed", random_rows(2, 5))
    with pytest.raises(UserError, match="no rows"):
        harvester(model, "embed", random_rows(2).between(0, 0))
    with pytest.raises(BadConfig, match="rows a pass"):
        harvester(model, "embed", ROWS, rows_a_pass=0)
