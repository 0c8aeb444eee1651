"""The exact engine: grids, what is computed, kept Sites, spliced dictionaries, memory, and what is refused."""

import pytest
import torch
from torch import Tensor

from micrographia.core.edits import add, apply, noise, put, scale, splice, zero
from micrographia.core.errors import BadConfig, BadEdit, UserError
from micrographia.core.events import Note, Progress
from micrographia.core.metrics import logit, logit_difference
from micrographia.core.model import Output
from micrographia.core.sites import Site
from micrographia.core.small.transformer import Transformer
from micrographia.core.sweep import Place, Reference, grids, places, replacement, runs, sweep
from small import A_FEW, small_model, some_tokens

ARCH = A_FEW["normed"]
N = 3
READ = [logit_difference(torch.arange(N), torch.arange(N) + 1)]


@pytest.fixture
def model() -> Transformer:
    return small_model(ARCH, dtype=torch.float64)


@pytest.fixture
def base() -> Tensor:
    return some_tokens(ARCH, batch=N, seed=1)


@pytest.fixture
def donor(model):
    return model.run(some_tokens(ARCH, batch=N, seed=2), keep=model.sites).cache


class Watched:
    """A model that writes down what is run of it."""

    def __init__(self, model: Transformer, room: int | None = None) -> None:
        self.model = model
        self.room = room
        self.calls: list[dict] = []

    shape = property(lambda self: self.model.shape)
    sites = property(lambda self: self.model.sites)
    weights = property(lambda self: self.model.weights)
    fused = property(lambda self: self)
    tokenizer = None

    def run(self, inputs, **asked) -> Output:
        if self.room is not None and len(inputs) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.calls.append({"rows": len(inputs), **asked})
        return self.model.run(inputs, **asked)

    def unembed(self, residual: torch.Tensor) -> torch.Tensor:
        return self.model.unembed(residual)


def test_a_grid_has_a_patch_a_cell_and_finds_its_way_back(model):
    [z] = grids(model, "L*.z", ("head", "layer", "pos"), ARCH.n_ctx)
    assert z.axes == ("layer", "pos", "head")
    assert z.lengths == (2, ARCH.n_ctx, 3)
    assert z.layers == (0, 1)
    table = z.table(torch.arange(len(z.patches)))
    assert z.patches[table[1, 2, 0]] == (Place(Site("z", 1), {"pos": 2, "head": 0}),)
    assert z.table(torch.zeros(len(z.patches), 5)).shape == (2, ARCH.n_ctx, 3, 5)


def test_without_layer_all_layers_of_a_kind_are_patched_together(model):
    first, second = grids(model, ["L*.mlp_out", "L*.attn_out"], ("pos",), ARCH.n_ctx)
    assert first.patches[1] == tuple(Place(Site("mlp_out", i), {"pos": 1}) for i in range(2))
    assert second.kind == "attn_out"
    assert len(places(model, "L*.attn_out", (), 4)) == 1


def test_every_axis_of_every_kind_has_its_length(model):
    lengths = {"resid_pre": 10, "neurons": 12, "z": 4}
    for kind, size in lengths.items():
        [grid] = grids(model, f"L0.{kind}", ("unit",), ARCH.n_ctx)
        assert grid.lengths == (size,)
    [pattern] = grids(model, "L0.pattern", ("head", "query", "key"), ARCH.n_ctx)
    assert pattern.lengths == (3, ARCH.n_ctx, ARCH.n_ctx)
    with pytest.raises(BadConfig, match="head"):
        grids(model, "L0.mlp_out", ("head",), ARCH.n_ctx)
    with pytest.raises(BadConfig, match="n_latents"):
        grids(model, Site("resid_post", 0, "sae", "latents"), ("unit",), ARCH.n_ctx)


def test_nothing_before_the_patch_is_computed_again(model, base, donor):
    watched = Watched(model)
    sweep(watched, base, [(Place(Site("mlp_out", 0), {"pos": 2}),)], donor, READ)
    first, second, *last = watched.calls
    assert first.get("start") is None
    assert second["start"].layer == 0
    assert second["start"].offset == 2
    assert second["rows"] == N
    assert second["start"].residual.shape == (N, ARCH.n_ctx - 2, ARCH.d_model)
    assert sorted(second["start"].past) == [0, 1]
    assert [call["start"].layer for call in last] == [1, 1]


def test_of_the_last_layer_only_keys_are_computed_where_nothing_is_read(model, base, donor):
    watched = Watched(model)
    patches = places(model, ["L1.resid_pre", "L1.k", "L1.z", "L1.neurons"], ("pos",), ARCH.n_ctx)
    patches = [(place,) for (place,) in patches if place.where["pos"] != ARCH.n_ctx - 1]
    found = sweep(watched, base, patches, donor, READ)
    keys, rest = watched.calls[1:3]
    assert keys["stop"] == Site("z", 1)
    assert rest["start"].offset == ARCH.n_ctx - 1
    assert torch.allclose(found, sweep(model, base, patches, donor, READ, plan="strict"), atol=1e-12)
    early = [logit_difference(torch.arange(N), torch.arange(N) + 1, pos=1)]
    fast, strict = (sweep(model, base, patches, donor, early, plan=plan) for plan in ("fast", "strict"))
    assert torch.allclose(fast, strict, atol=1e-12)


def test_a_patch_of_resid_post_starts_at_the_next_layer_and_after_the_last_one_too(model, base, donor):
    watched = Watched(model)
    patches = places(model, "L*.resid_post", ("layer",), ARCH.n_ctx)
    found = sweep(watched, base, patches, donor, READ)
    assert [call["start"].layer for call in watched.calls[1:]] == [1, 2]
    expected = sweep(model, base, patches, donor, READ, plan="strict")
    assert torch.allclose(found, expected, atol=1e-12)


def test_patches_of_several_layers_go_as_one_wave(model, base, donor):
    watched = Watched(model)
    sweep(watched, base, places(model, "L*.resid_pre", ("layer", "pos"), ARCH.n_ctx), donor, READ)
    joined = [ARCH.n_ctx * N, 2 * ARCH.n_ctx * N]
    assert [call["rows"] for call in watched.calls[1:]] == [*joined, joined[-1]]


def test_places_may_be_several_positions_heads_and_donors(model, base, donor):
    zeros = {site: torch.zeros_like(value[:1]) for site, value in donor.items()}
    patch = (Place(Site("z", 0), {"pos": (1, -1), "head": (0, 2)}), Place(Site("mlp_out", 1), {"pos": 0}, donor=1))
    whole = torch.stack([donor["L0.z"][:, [1, 3]][:, :, i] for i in (0, 2)], 2)
    edits = [put("L0.z", whole, pos=[1, 3], head=[0, 2]), put("L1.mlp_out", 0.0, pos=0)]
    logits = model.run(base, edits=edits).logits
    expected = READ[0].of_vocabulary(logits, torch.arange(N))
    for plan in ("fast", "strict"):
        found = sweep(model, base, [patch], [donor, zeros], READ, plan=plan)
        assert torch.allclose(found[0, :, 0], expected, atol=1e-12)


def test_runs_keep_sites_at_every_position_whether_a_patch_has_joined_or_not(model, base, donor):
    keep = ["L0.z", "L0.resid_post", "L1.resid_pre", "final_norm", "embed"]
    patches = places(model, "L*.resid_post", ("layer", "pos"), ARCH.n_ctx)
    seen = {}
    for indices, output in runs(model, base, patches, donor, keep=keep, tokens_at_once=50):
        for row, i in enumerate(indices):
            seen[i] = {site: value[row * N : (row + 1) * N] for site, value in output.cache.items()}
            assert output.logits.shape[1] == 1
    assert sorted(seen) == list(range(len(patches)))
    for i, (place,) in enumerate(patches):
        at = place.where["pos"]
        edit = put(place.site, donor[place.site][:, at], pos=at)
        expected = model.run(base, keep=keep, edits=[edit]).cache
        for site in expected:
            assert torch.allclose(seen[i][site], expected[site], atol=1e-12), (place, site)


class Rotation:
    """An invertible dictionary."""

    def __init__(self, width: int) -> None:
        self.turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(3)).double())[0]

    def encode(self, activation: Tensor) -> Tensor:
        return (activation @ self.turn).relu()

    def decode(self, latents: Tensor) -> Tensor:
        return latents @ self.turn.T


@pytest.mark.parametrize("kind", ["resid_post", "mlp_out", "resid_pre"])
def test_latents_of_a_spliced_dictionary_are_places_like_any_other(model, base, kind):
    edits = [splice(f"L0.{kind}", Rotation(ARCH.d_model))]
    site = Site(kind, 0, "sae", "latents")
    donor = model.run(some_tokens(ARCH, batch=N, seed=2), keep=[site], edits=edits).cache
    patches = [(Place(site, {"unit": unit, "pos": 1}),) for unit in range(ARCH.d_model)]
    found = sweep(model, base, patches, donor, READ, edits=edits)
    assert torch.allclose(found, sweep(model, base, patches, donor, READ, edits=edits, plan="strict"), atol=1e-12)
    for i, (_place,) in enumerate(patches):
        values = donor[site][:, 1, i]
        logits = model.run(base, edits=[*edits, put(site, values, pos=1, unit=i)]).logits
        assert torch.allclose(found[i, :, 0], READ[0].of_vocabulary(logits, torch.arange(N)), atol=1e-12)


def test_edits_that_hold_in_every_run_act_once(model, base, donor):
    edits = [add("L0.resid_pre", 0.5), add("L1.resid_pre", -0.25), add("embed", 0.1)]
    patches = places(model, ["L*.resid_pre", "L*.z", "embed"], ("pos",), ARCH.n_ctx)
    found = sweep(model, base, patches, donor, READ, edits=edits)
    for i, patch in enumerate(patches):
        puts = [put(place.site, donor[place.site][:, place.where["pos"]], pos=place.where["pos"]) for place in patch]
        logits = model.run(base, edits=[*edits, *puts]).logits
        assert torch.allclose(found[i, :, 0], READ[0].of_vocabulary(logits, torch.arange(N)), atol=1e-12)


def test_out_of_memory_halves_what_goes_at_once_and_says_so(model, base, donor):
    told = []
    patches = places(model, "L*.z", ("layer", "pos"), ARCH.n_ctx)
    tight = Watched(model, room=4 * N)
    found = sweep(tight, base, patches, donor, READ, watch=told.append)
    assert torch.allclose(found, sweep(model, base, patches, donor, READ), atol=1e-12)
    assert any(isinstance(event, Note) and "memory" in event.text for event in told)
    done = [event.done for event in told if isinstance(event, Progress)]
    assert done == sorted(set(done))
    assert done[-1] == len(patches)


def test_one_patch_that_does_not_fit_into_memory_is_an_error(model, base, donor):
    tight = Watched(model, room=N)
    patch = [(Place(Site("z", 0)),)] * 2
    assert len(sweep(tight, base, patch, donor, READ)) == 2
    base_only = Watched(model)

    def run(inputs, **asked):
        if asked.get("start") is not None:
            raise torch.OutOfMemoryError("no room")
        return model.run(inputs, **asked)

    base_only.run = run
    with pytest.raises(UserError, match="Give fewer prompts"):
        sweep(base_only, base, patch, donor, READ)


def test_edits_that_would_not_be_the_same_in_every_run_are_refused(model, base, donor):
    patches = places(model, "L1.z", ("pos",), ARCH.n_ctx)
    with pytest.raises(UserError, match="Take the plan 'strict'"):
        sweep(model, base, patches, donor, READ, edits=[zero("L0.z", batch=1)])
    assert sweep(model, base, patches, donor, READ, edits=[zero("L0.z", batch=1)], plan="strict").isfinite().all()
    for plan in ("fast", "strict"):
        with pytest.raises(UserError, match="drawn anew"):
            sweep(model, base, patches, donor, READ, edits=[noise("L0.z", 1.0, torch.Generator())], plan=plan)


def test_a_function_of_the_users_meets_the_positions_that_it_expects(model, base, donor):
    def third(value: Tensor) -> Tensor:
        value[:, 2] = 0
        return value

    patches = places(model, "L1.resid_pre", ("pos",), ARCH.n_ctx)
    edits = [apply("L1.attn_norm", third), scale("L1.z", 0.5)]
    fast, strict = (sweep(model, base, patches, donor, READ, edits=edits, plan=plan) for plan in ("fast", "strict"))
    assert torch.allclose(fast, strict, atol=1e-12)
    assert not torch.allclose(fast, sweep(model, base, patches, donor, READ, edits=edits[1:]), atol=1e-6)


def test_what_cannot_be_swept_is_refused(model, base, donor):
    place = Place(Site("z", 0), {"pos": 1})
    with pytest.raises(UserError, match="patch nothing"):
        sweep(model, base, [], donor, READ)
    with pytest.raises(UserError, match="writes nothing"):
        sweep(model, base, [()], donor, READ)
    with pytest.raises(UserError, match="measure nothing"):
        sweep(model, base, [(place,)], donor, [])
    with pytest.raises(UserError, match=r"holds no L0\.z"):
        sweep(model, base, [(place,)], {}, READ)
    with pytest.raises(UserError, match="There are 1"):
        sweep(model, base, [(place._replace(donor=1),)], donor, READ)
    with pytest.raises(BadEdit, match="lacks"):
        sweep(model, base, [(Place(Site("z", 0), {"query": 1}),)], donor, READ)
    with pytest.raises(BadEdit, match="4 long"):
        sweep(model, base, [(Place(Site("z", 0), {"pos": 9}),)], donor, READ)
    with pytest.raises(BadEdit, match="float32"):
        sweep(model, base, [(place,)], {Site("z", 0): donor["L0.z"].float()}, READ)
    with pytest.raises(BadEdit, match="one for each prompt"):
        sweep(model, base, [(place,)], {Site("z", 0): donor["L0.z"][:2]}, READ)


def test_a_metric_at_an_early_position_is_not_cut_off(model, base, donor):
    early = [logit(torch.arange(N), pos=1)]
    patches = places(model, "L*.resid_pre", ("layer", "pos"), ARCH.n_ctx)
    found = sweep(model, base, patches, donor, early)
    expected = sweep(model, base, patches, donor, early, plan="strict")
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.equal(expected[2:4], expected[2:3].expand(2, N, 1))  # later positions do not reach it


REFERENCE = torch.arange(24.0).reshape(4, 3, 2)


def test_replacements_are_what_they_say():
    site = Site("mlp_out", 0)
    reference = Reference({site: REFERENCE})
    assert torch.equal(replacement("zero", reference, 2, 3)[site], torch.zeros(1, 3, 2))
    assert torch.equal(replacement("mean", reference, 2, 3)[site], REFERENCE.mean(0, keepdim=True))
    assert torch.equal(replacement("mean", reference, 2, 5)[site], REFERENCE.mean((0, 1)).expand(1, 5, 2))
    drawn = replacement("resample", reference, 50, 3, torch.Generator().manual_seed(0))[site]
    assert {tuple(row.flatten().tolist()) for row in drawn} == {tuple(row.flatten().tolist()) for row in REFERENCE}
    noise = replacement("noise", reference, 4000, 3, torch.Generator().manual_seed(0))[site]
    assert torch.allclose(noise.mean((0, 1)), REFERENCE.mean((0, 1)), atol=0.3)
    assert torch.allclose(noise.std((0, 1)), REFERENCE.flatten(0, 1).std(0, correction=0), atol=0.2)


def test_padding_takes_no_part_in_a_mean():
    site = Site("mlp_out", 0)
    mask = torch.tensor([[False, True, True], [True, True, True]])
    reference = Reference({site: REFERENCE[:2]}, mask)
    mean = replacement("mean", reference, 1, 3)[site]
    assert torch.equal(mean[0, 0], REFERENCE[1, 0])
    assert torch.equal(mean[0, 1:], REFERENCE[:2, 1:].mean(0))
    assert torch.allclose(replacement("mean", reference, 1, 4)[site][0, 0], REFERENCE[:2].flatten(0, 1)[1:].mean(0))


def test_replacements_that_make_no_sense_are_refused():
    site, pattern = Site("mlp_out", 0), Site("pattern", 0)
    with pytest.raises(UserError, match="generator"):
        replacement("resample", Reference({site: REFERENCE}), 2, 3)
    with pytest.raises(UserError, match="another number"):
        replacement("resample", Reference({site: REFERENCE}), 2, 4, torch.Generator())
    with pytest.raises(UserError, match="no positions"):
        replacement("mean", Reference({pattern: torch.ones(2, 1, 3, 3)}), 2, 4)


def test_a_resample_of_padded_prompts_is_refused():
    site = Site("z", 0)
    padded = Reference({site: torch.zeros(2, 3, 1, 1)}, torch.tensor([[True] * 3, [False, True, True]]))
    with pytest.raises(UserError, match="padding would be written"):
        replacement("resample", padded, 2, 3, torch.Generator())


def test_means_and_spreads_of_half_precision_do_not_overflow():
    site = Site("resid_pre", 0)
    large = torch.full((3, 4, 2), 60_000.0, dtype=torch.float16)
    large[0] = -60_000.0
    for n_pos in (4, 5):
        found = replacement("mean", Reference({site: large}), 2, n_pos)[site]
        assert found.dtype == torch.float16
        torch.testing.assert_close(found, torch.full_like(found, 20_000.0))
    drawn = replacement("noise", Reference({site: large}), 2, 4, torch.Generator().manual_seed(0))[site]
    assert drawn.dtype == torch.float16
    assert not drawn.isnan().any()
