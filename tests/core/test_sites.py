"""Site, its table, TransformerLens' names, and selections."""

import pytest

from micrographia.core.errors import UnknownSite
from micrographia.core.sites import AXES, LAYERLESS, LENS_LAYERLESS, LENS_NAMES, PARTS, Site, as_site, select

TWO_LAYERS = [
    Site("embed"),
    *(Site(kind, layer) for layer in range(2) for kind in ("resid_pre", "q", "rot_q", "z", "mlp_out", "resid_post")),
    Site("logits"),
]


@pytest.mark.parametrize("kind", AXES)
def test_every_kind_has_a_site_that_names_its_axes(kind):
    site = Site(kind) if kind in LAYERLESS else Site(kind, 2)
    assert site.axes == AXES[kind]
    assert site.axes[0] == "batch"
    assert len(set(site.axes)) == len(site.axes)
    assert str(site) == (kind if kind in LAYERLESS else f"L2.{kind}")


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_a_dictionary_are_sites(part):
    site = Site.parse(f"L12.resid_post[sae_4k].{part}")
    assert site == Site("resid_post", 12, "sae_4k", part) == Site("resid_post", 12).within("sae_4k", part)


def test_latents_have_axes_of_their_own_and_the_error_those_of_its_site():
    assert Site("z", 0, "sae", "latents").axes == ("batch", "pos", "latent")
    assert Site("mlp_out", 0, "sae", "latents").axes == ("batch", "pos", "latent")
    assert Site("z", 0, "sae", "error").axes == Site("z", 0).axes
    assert Site("mlp_out", 0, "sae", "error").axes == Site("mlp_out", 0).axes


@pytest.mark.parametrize(
    ("theirs", "ours"),
    {
        "hook_embed": "embed",
        "hook_pos_embed": "pos_embed",
        "blocks.0.hook_resid_pre": "L0.resid_pre",
        "blocks.3.hook_resid_mid": "L3.resid_mid",
        "blocks.11.hook_resid_post": "L11.resid_post",
        "blocks.3.hook_attn_out": "L3.attn_out",
        "blocks.3.hook_mlp_out": "L3.mlp_out",
        "blocks.3.attn.hook_q": "L3.q",
        "blocks.3.attn.hook_k": "L3.k",
        "blocks.3.attn.hook_v": "L3.v",
        "blocks.3.attn.hook_rot_q": "L3.rot_q",
        "blocks.3.attn.hook_rot_k": "L3.rot_k",
        "blocks.3.attn.hook_attn_scores": "L3.scores",
        "blocks.3.attn.hook_pattern": "L3.pattern",
        "blocks.3.attn.hook_z": "L3.z",
        "blocks.3.attn.hook_result": "L3.result",
        "blocks.3.mlp.hook_pre": "L3.mlp_pre",
        "blocks.3.mlp.hook_post": "L3.neurons",
        "blocks.3.ln1.hook_scale": "L3.attn_norm_scale",
        "blocks.3.ln1.hook_normalized": "L3.attn_norm",
        "blocks.3.ln2.hook_scale": "L3.mlp_norm_scale",
        "blocks.3.ln2.hook_normalized": "L3.mlp_norm",
        "ln_final.hook_scale": "final_norm_scale",
        "ln_final.hook_normalized": "final_norm",
    }.items(),
)
def test_transformer_lens_names_parse(theirs, ours):
    assert str(Site.parse(theirs)) == ours


OURS = {"logits", "attn_raw", "mlp_raw", "router_logits", "router_probs", "expert_out"}


def test_every_kind_but_logits_raw_outputs_and_experts_has_a_transformer_lens_name():
    assert {*LENS_NAMES.values(), *LENS_LAYERLESS.values()} == AXES.keys() - OURS


@pytest.mark.parametrize(
    "text",
    [
        *("", "L3", "L3.", "L3.nonsense", "nonsense", "z", "L0.logits", "L-1.z", "L*.z", "Lx.z", "3.z", "L3.z "),
        *("L3.z[sae]", "L3.z[sae].nonsense", "L3.z[].latents", "L3.z[my sae].latents"),
        *("blocks.0.attn.hook_nonsense", "blocks.0.hook_z", "blocks.x.attn.hook_z", "blocks.0.hook_embed", "hook_z"),
    ],
)
def test_what_is_no_site_is_refused(text):
    with pytest.raises(UnknownSite):
        Site.parse(text)


@pytest.mark.parametrize(
    "fields",
    [
        ("z",),
        ("logits", 0),
        ("z", -1),
        ("nonsense", 0),
        ("z", 0, "sae"),
        ("z", 0, "", "latents"),
        ("z", 0, "a b", "error"),
    ],
)
def test_a_site_that_could_not_be_printed_and_read_cannot_be_made(fields):
    with pytest.raises(UnknownSite):
        Site(*fields)


def test_an_error_names_what_came_and_the_nearest_kind():
    with pytest.raises(UnknownSite, match=r"'L3\.mlp_uot'.*mlp_out"):
        Site.parse("L3.mlp_uot")


def test_sites_are_values():
    assert len({Site("z", 0), Site("z", 0), Site.parse("L0.z")}) == 1
    assert sorted([Site("z", 1), Site("embed"), Site("z", 0)]) == [Site("embed"), Site("z", 0), Site("z", 1)]
    assert as_site(Site("z", 0)) is not None
    assert as_site("L0.z") == as_site(Site("z", 0))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("logits", ["logits"]),
        (Site("z", 1), ["L1.z"]),
        ("L*.z", ["L0.z", "L1.z"]),
        ("L-1.z", ["L1.z"]),
        ("L-2.z", ["L0.z"]),
        ("L0:1.z", ["L0.z"]),
        ("L1:5.z", ["L1.z"]),
        ("L:.z", ["L0.z", "L1.z"]),
        ("L0.*", ["L0.resid_pre", "L0.q", "L0.rot_q", "L0.z", "L0.mlp_out", "L0.resid_post"]),
        ("L1.resid_*", ["L1.resid_pre", "L1.resid_post"]),
        ("L*.*q", ["L0.q", "L0.rot_q", "L1.q", "L1.rot_q"]),
        ("L1.?", ["L1.q", "L1.z"]),
        ("blocks.1.attn.hook_z", ["L1.z"]),
        (["logits", "L*.z", "L0.z"], ["logits", "L0.z", "L1.z"]),
        (["L1.z", "L*.z"], ["L1.z", "L0.z"]),
        ((), []),
        ("L0.z[sae].latents", ["L0.z[sae].latents"]),
    ],
)
def test_selections(wanted, found):
    assert [str(site) for site in select(TWO_LAYERS, wanted)] == found


def test_a_range_of_layers_ends_before_its_second_number():
    here = [Site("z", layer) for layer in range(8)]
    assert select(here, "L2:5.z") == tuple(here[2:5])
    assert select(here, "L-2:.z") == select(here, "L6:.z") == tuple(here[6:])
    assert select(here, "L:-6.z") == tuple(here[:2])


@pytest.mark.parametrize(
    "wanted", ["L2.z", "L-3.z", "L5:9.z", "L*.pattern", "L0.nothing*", "L*", "pos_embed", "L0.pattern"]
)
def test_a_selection_that_fits_nothing_is_refused(wanted):
    with pytest.raises(UnknownSite):
        select(TWO_LAYERS, wanted)


def test_a_site_that_the_model_lacks_is_refused_with_the_nearest_it_has():
    with pytest.raises(UnknownSite, match=r"no site 'L2\.mlp_out'.*L1\.mlp_out"):
        select(TWO_LAYERS, "L2.mlp_out")
