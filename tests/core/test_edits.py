"""What each edit does to a tensor, where, and what it refuses. How edits act inside a run is in test_transformer."""

import pytest
import torch
from torch import Tensor

from micrographia.core.edits import (
    Edit,
    add,
    apply,
    freeze,
    leaf,
    mean,
    noise,
    observe,
    project_out,
    put,
    scale,
    splice,
    zero,
)
from micrographia.core.errors import BadEdit, UnknownSite
from micrographia.core.graph import Node
from micrographia.core.sites import Site
from micrographia.core.sweep import Place

BATCH, POS, HEAD, UNIT = 3, 4, 2, 5


@pytest.fixture
def z() -> Tensor:
    """A value of `L0.z`: batch pos head d_head."""
    return torch.randn(BATCH, POS, HEAD, UNIT, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def other() -> Tensor:
    return torch.randn(BATCH, POS, HEAD, UNIT, generator=torch.Generator().manual_seed(1))


def every_edit() -> list[Edit]:
    vector = torch.arange(float(UNIT))
    generator = torch.Generator().manual_seed(0)
    return [
        apply("L0.z", lambda x: x.neg_()),
        put("L0.z", 1.5),
        put("L0.z", vector, pos=1),
        add("L0.z", vector, head=[0]),
        scale("L0.z", 3.0, unit=slice(1, 3)),
        zero("L0.z", batch=0),
        mean("L0.z", torch.ones(7, POS, HEAD, UNIT), pos=[0, 2], head=[1]),
        noise("L0.z", 0.1, generator),
        project_out("L0.z", vector[None]),
    ]


@pytest.mark.parametrize("edit", every_edit(), ids=lambda edit: edit.name)
def test_an_edit_changes_something_and_leaves_what_it_was_given(edit, z):
    before = z.clone()
    after = edit(z)
    assert torch.equal(z, before)
    assert not torch.equal(after, before)
    assert after.shape == z.shape


def test_put_add_scale_and_zero_do_what_they_say(z, other):
    assert torch.equal(put("L0.z", other)(z), other)
    assert torch.equal(put("L0.z", 2)(z), torch.full_like(z, 2))
    assert torch.equal(add("L0.z", other)(z), z + other)
    assert torch.equal(add("L0.z", 1.0)(z), z + 1)
    assert torch.equal(scale("L0.z", other[:, :1])(z), z * other[:, :1])
    assert torch.equal(scale("L0.z", 0.5)(z), z / 2)
    assert torch.equal(zero("L0.z")(z), torch.zeros_like(z))
    assert torch.equal(apply("L0.z", torch.sin)(z), z.sin())


def test_a_region_is_changed_and_the_rest_is_not(z):
    found = zero("L0.z", pos=2, head=[1])(z)
    assert (found[:, 2, 1] == 0).all()
    found[:, 2, 1] = z[:, 2, 1]
    assert torch.equal(found, z)


def test_negative_places_count_from_the_end(z):
    assert torch.equal(zero("L0.z", pos=-1)(z), zero("L0.z", pos=POS - 1)(z))
    assert torch.equal(zero("L0.z", pos=[-1], head=[-1, 0])(z), zero("L0.z", pos=POS - 1)(z))


def test_several_lists_mean_their_product(z):
    found = zero("L0.z", pos=[0, 3], head=[1], unit=[0, 4])(z)
    expected = z.clone()
    for pos in (0, 3):
        for unit in (0, 4):
            expected[:, pos, 1, unit] = 0
    assert torch.equal(found, expected)


def test_the_values_of_a_region_keep_the_order_of_the_axes(z, other):
    """Also where torch's own indexing would move the axes of two lists to the front."""
    edit = put("L0.z", other[:, [0, 2]][..., [1, 3, 4]], pos=[0, 2], unit=[1, 3, 4])
    expected = z.clone()
    for pos in (0, 2):
        for unit in (1, 3, 4):
            expected[:, pos, :, unit] = other[:, pos, :, unit]
    assert torch.equal(edit(z), expected)
    assert edit.inside(z).shape == (BATCH, 2, HEAD, 3)


def test_one_number_drops_its_axis(z):
    seen = []
    apply("L0.z", lambda x: seen.append(x.shape) or x, pos=1, unit=[0, 2])(z)
    apply("L0.z", lambda x: seen.append(x.shape) or x, batch=[0, 2], pos=1, unit=[0, 2])(z)
    assert seen == [(BATCH, HEAD, 2), (2, HEAD, 2)]


@pytest.mark.parametrize("as_mask", [list, torch.tensor])
def test_a_mask_chooses_where_it_is_true(z, as_mask):
    mask = as_mask([True, False, True, False])
    assert torch.equal(zero("L0.z", pos=mask)(z), zero("L0.z", pos=[0, 2])(z))
    assert torch.equal(zero("L0.z", pos=mask, head=[1])(z), zero("L0.z", pos=[0, 2], head=[1])(z))


def test_mean_writes_the_mean_over_the_batch_of_the_reference(z, other):
    average = other.mean(0)
    assert torch.equal(mean("L0.z", other)(z), average.expand_as(z))
    assert torch.equal(
        mean("L0.z", other, pos=1, unit=[0, 2])(z)[:, 1][..., [0, 2]], average[1][:, [0, 2]].expand(3, 2, 2)
    )
    one = mean("L0.z", other, batch=2, pos=[1])(z)
    assert torch.equal(one[2, 1], average[1])
    assert torch.equal(one[:2], z[:2])


def test_noise_is_drawn_from_the_generator_anew_at_each_call(z):
    edit = noise("L0.z", 0.5, torch.Generator().manual_seed(3), pos=[1, 2])
    first, second = edit(z) - z, edit(z) - z
    again = noise("L0.z", 0.5, torch.Generator().manual_seed(3), pos=[1, 2])(z) - z
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(first[:, [0, 3]], torch.zeros_like(first[:, [0, 3]]))


def test_noise_has_the_standard_deviation_asked_for():
    value = torch.zeros(50, 40, 5, 10)
    drawn = noise("L0.z", 0.5, torch.Generator().manual_seed(3))(value)
    assert drawn.std().item() == pytest.approx(0.5, rel=0.01)
    assert abs(drawn.mean().item()) < 0.01


def test_project_out_leaves_nothing_along_the_directions_and_all_else(z):
    value = z.double()
    first, second = torch.randn(2, UNIT, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = project_out("L0.z", torch.stack([first, first + 0.1 * second]))(value)
    torch.testing.assert_close(found @ first, torch.zeros_like(found[..., 0]), rtol=0, atol=1e-12)
    torch.testing.assert_close(found @ second, torch.zeros_like(found[..., 0]), rtol=0, atol=1e-12)
    removed = value - found
    assert torch.linalg.matrix_rank(removed.flatten(0, 2)) == 2
    torch.testing.assert_close((removed * found).sum(-1), torch.zeros_like(found[..., 0]), rtol=0, atol=1e-12)


def test_a_direction_named_twice_is_projected_out_once(z):
    direction = torch.arange(1.0, UNIT + 1)
    once = project_out("L0.z", direction[None])(z)
    torch.testing.assert_close(project_out("L0.z", torch.stack([direction, 2 * direction]))(z), once)


def test_freeze_holds_each_site_at_its_value_without_gradient(z):
    cache = {Site("z", 0): z.clone().requires_grad_(), Site("z", 1): 2 * z}
    edits = freeze(["L0.z", Site("z", 1)], cache)
    assert [edit.site for edit in edits] == [Site("z", 0), Site("z", 1)]
    assert torch.equal(edits[1](z), 2 * z)
    assert not edits[0](z).requires_grad


@pytest.mark.parametrize("make", [put, add, scale])
def test_a_trainable_value_gets_its_gradient(make, z):
    value = torch.ones(UNIT, requires_grad=True)
    make("L0.z", value, pos=1)(z)[:, 1].sum().backward()
    expected = z[:, 1].sum((0, 1)) if make is scale else torch.full((UNIT,), float(BATCH * HEAD))
    torch.testing.assert_close(value.grad, expected)


def test_trainable_directions_get_a_gradient_at_each_run(z):
    directions = torch.eye(2, UNIT, requires_grad=True)  # equal singular values: no trouble for the gradient
    edit = project_out("L0.z", directions)
    for _ in range(2):
        edit(z).square().sum().backward()
    assert directions.grad is not None
    assert directions.grad.isfinite().all()
    assert directions.grad.abs().max() > 0


@pytest.mark.parametrize("make", [put, add, scale])
def test_a_value_that_does_not_fit_is_refused(make, z):
    for value in (torch.zeros(UNIT + 1), torch.zeros(1, *z.shape)):
        with pytest.raises(BadEdit, match=rf"{make.__name__} at L0\.z gives shape"):
            make("L0.z", value)(z)


def test_a_change_of_another_shape_dtype_or_axis_is_refused(z):
    for edit in (
        apply("L0.z", lambda x: x[:, :1, :, 0]),
        apply("L0.z", lambda x: x.double()),
        add("L0.z", torch.zeros(UNIT, dtype=torch.float64)),
        mean("L0.z", torch.zeros(2, POS + 1, HEAD, UNIT)),
        project_out("L0.z", torch.ones(1, UNIT + 1)),
        project_out("L0.z", torch.ones(1, UNIT), unit=[0, 1]),
    ):
        with pytest.raises(BadEdit, match=r"at L0\.z"):
            edit(z)


@pytest.mark.parametrize(
    "where", [{"pos": POS}, {"pos": [0, POS]}, {"pos": [0, POS], "head": [0]}, {"head": -HEAD - 1}]
)
def test_places_that_do_not_exist_are_refused(where, z):
    with pytest.raises(BadEdit, match="Choose places that exist"):
        zero("L0.z", **where)(z)


@pytest.mark.parametrize(
    ("site", "where"), [("L0.z", "query"), ("L0.mlp_out", "head"), ("L0.pattern", "pos"), ("logits", "d")]
)
def test_an_axis_that_the_site_lacks_is_refused_when_the_edit_is_made(site, where):
    with pytest.raises(BadEdit, match=where):
        zero(site, **{where: 0})


def test_a_region_of_an_activation_with_other_axes_is_refused():
    """As of a dictionary whose latents keep the heads apart."""
    with pytest.raises(BadEdit, match="Edit it whole"):
        zero("L0.z[sae].latents", unit=1)(torch.zeros(BATCH, POS, HEAD, UNIT))
    assert zero("L0.z[sae].latents")(torch.ones(BATCH, POS, HEAD, UNIT)).sum() == 0


def test_query_and_key_choose_in_a_pattern():
    pattern = torch.full((2, 3, 4, 4), 0.25)
    found = zero("L0.pattern", query=3, key=[0, 1], head=1)(pattern)
    assert (found[:, 1, 3, :2] == 0).all()
    assert found.sum() == pattern.sum() - 2 * 2 * 0.25


def test_a_splice_inside_a_dictionary_or_under_a_bad_name_is_refused():
    class Whatever:
        def encode(self, activation: Tensor) -> Tensor:
            return activation

        def decode(self, latents: Tensor) -> Tensor:
            return latents

    with pytest.raises(BadEdit, match="part of a dictionary"):
        splice("L0.z[sae].latents", Whatever())
    with pytest.raises(UnknownSite):
        splice("L0.z", Whatever(), name="my sae")


@pytest.mark.parametrize(
    ("printed", "region"),
    [
        ("L0.z[head=0]", {"head": 0}),
        ("L0.z[pos=2, head=1]", {"pos": 2, "head": 1}),
        ("L0.z[1]", {"head": 1}),
        ("L0.neurons[3]", {"unit": 3}),
        ("L0.z[pos=(0, 2), head=1]", {"pos": [0, 2], "head": 1}),
        ("L0.pattern[head=1, query=3, key=0]", {"head": 1, "query": 3, "key": 0}),
        ("L0.z[pos=-1]", {"pos": -1}),
        ("L0.resid_pre[sae].latents[7]", {"unit": 7}),
        ("L0.z", {}),
    ],
)
def test_a_place_as_reports_print_it_can_be_edited(printed, region):
    assert zero(printed).region == region
    assert str(zero(printed).site) in printed


def test_a_printed_place_and_the_region_beside_it_go_together_but_not_twice(z):
    both, apart = zero("L0.z[head=1]", pos=0)(z), zero("L0.z", head=1, pos=0)(z)
    assert torch.equal(both, apart)
    with pytest.raises(BadEdit, match="twice"):
        zero("L0.z[head=1]", head=0)
    with pytest.raises(BadEdit, match="unit"):
        zero("L0.z[row=1]")
    with pytest.raises(BadEdit, match="for instance"):
        zero("L0.z[head:1]")


def test_what_a_sweep_prints_is_what_an_edit_reads():
    place = Place(Site("z", 3), {"pos": (0, 4), "head": 2})
    assert zero(str(place)).region == {"pos": [0, 4], "head": 2}
    assert zero(str(Node(Site("z", 9), 6))).region == {"head": 6}


def test_a_pattern_is_told_how_to_become_sites():
    with pytest.raises(UnknownSite, match=r"select\(model.sites, 'L\*.z'\)"):
        zero("L*.z")


def test_an_edit_shows_its_site_and_place():
    assert "kind='z', layer=0" in repr(zero("L0.z", pos=1))
    assert "'pos': 1" in repr(zero("L0.z", pos=1))


def test_observing_hands_over_the_live_tensor_and_gives_it_back(z):
    seen = []
    assert observe("L0.z", seen.append)(z) is z
    assert seen[0] is z


def test_a_leaf_begins_the_graph_anew(z):
    before = z.clone().requires_grad_()
    seen = []
    begun = leaf("L0.z", seen.append)(before * 2)
    begun.sum().backward()
    assert seen[0] is begun
    assert before.grad is None
    assert torch.equal(begun.grad, torch.ones_like(z))
