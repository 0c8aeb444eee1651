"""Effects: shares and signs by hand, the largest first, tables and pictures for whatever axes there are."""

import numpy as np
import pytest
import torch

from micrographia.core import effect_figures
from micrographia.core.effect_figures import figures_of_maps
from micrographia.core.effects import (
    COORDINATES,
    NEGLIGIBLE,
    Effects,
    axes_of_scores,
    columns,
    effect_map,
    effect_maps,
    kind_of,
    largest,
    record,
    summed_along,
)
from micrographia.core.errors import UserError
from micrographia.core.sites import Site
from micrographia.core.sweep import Place
from micrographia.core.titles import MODES

N_PROMPTS, N_POS, N_HEADS, N_UNITS = 3, 4, 2, 50
LENGTHS = {"pos": N_POS, "query": N_POS, "key": N_POS, "head": N_HEADS, "unit": N_UNITS}
WORDS = tuple(f"{i} word{i}" for i in range(N_POS))
CLEAN, CORRUPT = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0.0, -1.0, -2.0])  # the gap is 3


def effects(by: dict[str, tuple[str, ...]], mode: str = "denoise", *, seed: int = 0, **more: object) -> Effects:
    """Scores drawn at random for each Site with these axes."""
    draw = torch.Generator().manual_seed(seed)
    axes = {Site.parse(name): each for name, each in by.items()}
    scores = {
        site: torch.randn(N_PROMPTS, *(LENGTHS[axis] for axis in each), generator=draw) for site, each in axes.items()
    }
    given = {"method": "exact", "scores": scores, "axes": axes, "clean": CLEAN, "corrupt": CORRUPT, "metric": "m"}
    return Effects(mode, **{**given, **more})


def planted(values: dict[str, list[float]], mode: str = "denoise", **more: object) -> Effects:
    """These scores along the positions of each Site, the same for every prompt."""
    found = effects(dict.fromkeys(values, ("pos",)), mode, **more)
    for name, each in values.items():
        found.scores[Site.parse(name)] = torch.tensor(each).expand(N_PROMPTS, -1)
    return found


def test_a_share_is_what_is_restored_or_destroyed_of_the_gap():
    raw = {"L0.resid_pre": [3.0, 1.5, 0.0, -3.0]}
    restored, destroyed = (planted(raw, mode).share()[Site("resid_pre", 0)].tolist() for mode in MODES)
    assert restored == [1.0, 0.5, 0.0, -1.0]
    assert destroyed == [-1.0, -0.5, 0.0, 1.0]
    assert [planted(raw, mode).base.tolist() for mode in MODES] == [CORRUPT.tolist(), CLEAN.tolist()]
    assert planted(raw).gap == 3


def test_prompts_that_score_alike_have_no_gap_and_no_shares():
    alike = planted({"L0.resid_pre": [1.0, 0.0, 0.0, 0.0]}, clean=CORRUPT + 1e-7, corrupt=CORRUPT)
    assert alike.gap is None
    with pytest.raises(UserError, match="score alike"):
        alike.share()
    [each] = alike.maps()
    assert np.isnan(each.shares["denoise"]).all()
    assert [value for _, value in alike.top()] == [1.0]  # the scores are there all the same
    assert record(each, 0, WORDS)["restored"] is None
    assert "of the gap" not in str(alike)
    assert alike.figures()[0].data["value_label"] == "change of m"


def test_the_largest_in_size_come_first_over_all_sites_and_negligible_ones_are_left_out():
    tiny = 0.5 * NEGLIGIBLE * 4
    found = planted({"L1.resid_pre": [0.0, -4.0, tiny, 1.0], "L0.mlp_out": [2.0, 0.0, 0.0, 3.0]})
    top = [(str(place), value) for place, value in found.top()]
    assert top == [
        ("L1.resid_pre[pos=1]", -4.0),
        ("L0.mlp_out[pos=3]", 3.0),
        ("L0.mlp_out[pos=0]", 2.0),
        ("L1.resid_pre[pos=3]", 1.0),
    ]
    assert [str(place) for place, _ in found.top(2)] == [name for name, _ in top[:2]]
    assert [place for place, _ in found.top(1)] == [Place(Site("resid_pre", 1), {"pos": 1})]


def test_where_nothing_has_an_effect_equals_are_listed_in_their_order():
    found = planted({"L0.resid_pre": [0.0] * 4})
    assert [place.where["pos"] for place, _ in found.top(2)] == [0, 1]


def test_scores_are_found_by_site_and_one_that_was_not_taken_is_named():
    found = planted({"L0.resid_pre": [1.0, 2.0, 3.0, 4.0]})
    assert found["L0.resid_pre"].shape == (N_PROMPTS, N_POS)
    assert found[Site("resid_pre", 0)] is found["L0.resid_pre"]
    with pytest.raises(UserError, match=r"L1\.z, which were not taken\. There are L0\.resid_pre"):
        found["L1.z"]


def test_effects_print_how_they_were_found_and_where_they_are_largest():
    exact = planted({"L0.resid_pre": [3.0, 1.5, 0.0, 0.0]}).named(WORDS)
    lines = str(exact).splitlines()
    assert lines[0] == repr(exact) == "Effects(denoise, exact, 4 places of 1 site, 3 prompts)"
    assert lines[2].split() == ["L0.resid_pre[pos=0]", "+3", "+100.0%", "of", "the", "gap", "at", "'0", "word0'"]
    assert len(lines) == 4
    by_size = planted({"L0.resid_pre": [3.0, 1.5, 0.0, 0.0]}, method="atp-star", gives="size")
    assert "estimated by atp-star" in repr(by_size)
    assert "of the gap" not in str(by_size)  # a size is no share


def test_a_table_has_a_row_for_every_place():
    found = effects({"L0.z": ("pos", "head"), "L1.z": ("pos", "head"), "embed": ("pos",)})
    table = found.table()
    n = 2 * N_POS * N_HEADS + N_POS
    assert {len(column) for column in table.values()} == {n}
    assert set(table) == {"kind", *COORDINATES, "denoise_share", "denoise_change", "denoise_sd"}
    row = next(i for i in range(n) if [table[name][i] for name in ("kind", "layer", "pos", "head")] == ["z", 1, 2, 1])
    score = found["L1.z"][:, 2, 1].double()
    assert table["denoise_change"][row] == pytest.approx(score.mean().item())
    assert table["denoise_sd"][row] == pytest.approx(score.std().item())
    assert table["denoise_share"][row] == pytest.approx(score.mean().item() / 3)
    embed = table["kind"].index("embed")
    assert [table[name][embed] for name in ("layer", "pos", "head", "unit")] == [-1, 0, -1, -1]


def test_the_spread_over_one_prompt_is_unknown():
    found = planted({"L0.resid_pre": [1.0] * 4}, clean=CLEAN[:1], corrupt=CORRUPT[:1])
    found.scores[Site("resid_pre", 0)] = torch.ones(1, N_POS)
    assert np.isnan(found.table()["denoise_sd"]).all()
    assert record(found.maps()[0], 0, WORDS)["denoise_sd"] is None


def test_two_directions_stand_side_by_side():
    raw = {"L0.resid_pre": [3.0, 1.5, 0.0, 0.0]}
    [both] = effect_maps([planted(raw, "denoise"), planted(raw, "noise")])
    assert both.shares["denoise"].tolist() == [[1.0, 0.5, 0.0, 0.0]]
    assert both.shares["noise"].tolist() == [[-1.0, -0.5, 0.0, 0.0]]
    row = record(both, 1, WORDS)
    assert row == {
        "place": "L0.resid_pre[pos=1]", "part": "stream before L0", "token": "1 word1", "restored": 0.5,
        "denoise_change": 1.5, "denoise_sd": 0.0, "destroyed": -0.5, "noise_change": 1.5, "noise_sd": 0.0,
    }  # fmt: skip
    assert {"denoise_share", "noise_share"} <= columns([both]).keys()


def test_places_of_several_layers_are_named_by_their_numbers_in_the_model():
    [each] = effects({"L3.z": ("pos", "head"), "L7.z": ("pos", "head")}).maps()
    assert (each.axes, each.lengths, each.layers, each.size) == (("layer", "pos", "head"), (2, 4, 2), (3, 7), 16)
    assert each.cell(13) == {"layer": 7, "pos": 2, "head": 1}
    assert each.place(13) == Place(Site("z", 7), {"pos": 2, "head": 1})
    assert each.name(13) == "L7.z[pos=2, head=1]"
    assert each.component(13) == "L7H1"
    assert each.raw["denoise"].shape == (N_PROMPTS, 2, 4, 2)


def test_sites_patched_together_are_one_row_under_the_first_of_them():
    found = effects({"L3.z": ("head",), "L7.z": ("head",)}, together=True)
    [each] = found.maps()
    assert (each.axes, each.lengths, each.layers) == (("head",), (N_HEADS,), (3, 7))
    assert each.name(1) == "L*.z[head=1]"
    assert each.place(1) == Place(Site("z", 3), {"head": 1})
    assert each.raw["denoise"].tolist() == found["L3.z"].double().tolist()


def test_latents_of_a_dictionary_keep_its_name():
    found = effects({f"L{i}.resid_pre[sae].latents": ("pos", "unit") for i in (0, 1)})
    [each] = found.maps()
    site = Site.parse("L1.resid_pre[sae].latents")
    assert each.kind == kind_of(site) == "resid_pre[sae].latents"
    flat = N_POS * N_UNITS + 2 * N_UNITS + 7
    assert each.place(flat) == Place(site, {"pos": 2, "unit": 7})
    assert each.name(flat) == "L1.resid_pre[sae].latents[pos=2, unit=7]"
    assert {place.site.dictionary for place, _ in found.top()} == {"sae"}


def test_the_same_kind_with_other_axes_is_another_map():
    maps = effects({"L0.z": ("pos", "head"), "L1.z": ("head",), "L1.mlp_out": ("pos",)}).maps()
    assert [(each.kind, each.axes) for each in maps] == [
        ("z", ("layer", "pos", "head")),
        ("z", ("layer", "head")),
        ("mlp_out", ("layer", "pos")),
    ]


@pytest.mark.parametrize(
    ("name", "axes", "summed"),
    [
        ("L0.resid_pre", ("pos",), ()),
        ("L0.z", ("pos", "head"), ("head",)),
        ("L0.neurons", ("pos", "unit"), ("unit",)),
        ("L0.pattern", ("head", "query", "key"), ("head",)),
        ("L0.resid_pre[sae].latents", ("pos", "unit"), ("unit",)),
    ],
)
def test_scores_of_a_site_sum_over_what_makes_one_place(name, axes, summed):
    assert axes_of_scores(Site.parse(name)) == axes
    assert axes_of_scores(Site.parse(name), summed=True) == summed


def test_summed_along_an_axis_raw_and_shares_are_sums():
    [each] = effects({"L0.neurons": ("pos", "unit"), "L1.neurons": ("pos", "unit")}).maps()
    whole = summed_along(each, "unit")
    assert (whole.axes, whole.lengths) == (("layer", "pos"), (2, N_POS))
    np.testing.assert_allclose(whole.raw["denoise"], each.raw["denoise"].sum(-1))
    np.testing.assert_allclose(whole.shares["denoise"], whole.raw["denoise"].mean(0) / 3)


AXES = {
    "nothing": ((), "bars"),
    "positions": (("pos",), "heatmap"),
    "heads": (("head",), "heatmap"),
    "heads by position": (("pos", "head"), "heatmap"),
    "units": (("unit",), "bars"),
    "units by position": (("pos", "unit"), "bars"),
    "queries by key": (("query", "key"), "attention"),
    "heads, query by key": (("head", "query", "key"), "attention"),
    "heads by query": (("head", "query"), "heatmap"),
}
KINDS = {(): "attn_out", ("pos",): "resid_pre", ("query", "key"): "pattern", ("unit",): "neurons"}


def drawn(axes: tuple[str, ...], layers: tuple[int, ...], *, modes=tuple(MODES), **more: object):
    kind = KINDS.get(axes, "z")
    found = [effects({f"L{i}.{kind}": axes for i in layers}, mode, seed=1, **more) for mode in modes]
    return found, figures_of_maps(effect_maps(found), WORDS, metric="m", done="patched")


@pytest.mark.parametrize("layers", [(0, 1, 2), (5,)], ids=["layers", "one layer"])
@pytest.mark.parametrize(("axes", "kind"), AXES.values(), ids=AXES)
def test_whatever_the_axes_are_every_effect_is_drawn_or_the_largest_are(axes, kind, layers):
    found, figures = drawn(axes, layers)
    [figure] = figures
    one_row = {"heatmap": "tokens", "bars": "bars", "attention": "attention"}
    expected = one_row[kind] if layers == (5,) and axes == ("pos",) else kind
    assert figure.kind == expected
    values = np.asarray(figure.data.get("z", figure.data.get("y", figure.data.get("values"))), dtype=float)
    first = effect_maps(found)[0]
    shares = first.shares["denoise"]
    if figure.kind == "bars":
        assert len(figure.data["names"]) == min(24, shares.size)
        assert np.abs(values).max() == pytest.approx(max(np.abs(each).max() for each in first.shares.values()))
    elif figure.kind == "attention":  # of two directions the first
        np.testing.assert_allclose(np.sort(values.ravel()), np.sort(shares.ravel()))
    else:
        every = np.concatenate([each.ravel() for each in first.shares.values()])
        np.testing.assert_allclose(np.sort(values.ravel()), np.sort(every))


def test_a_cell_of_a_heat_map_is_the_share_of_the_place_that_its_names_say():
    [found, _], [figure] = drawn(("pos", "head"), (3, 7))
    data = figure.data
    assert (list(data["x_names"]), list(data["y_names"])) == (list(WORDS), ["L3H0", "L3H1", "L7H0", "L7H1"])
    assert data["z"][0, data["y_names"].index("L7H1"), 2] == pytest.approx(found.share()[Site("z", 7)][2, 1].item())


def test_attention_has_a_frame_for_each_layer_and_a_panel_for_each_head():
    [found, _], [figure] = drawn(("head", "query", "key"), (3, 7))
    assert figure.frames == ("layer 3", "layer 7")
    assert figure.data["z"].shape == (2, N_HEADS, N_POS, N_POS)
    np.testing.assert_allclose(figure.data["z"][1], found.share()[Site("z", 7)].numpy())


def test_estimates_of_units_are_drawn_alone_and_summed_but_exact_ones_do_not_add_up():
    by = {"L0.neurons": ("pos", "unit"), "L1.neurons": ("pos", "unit")}
    estimated = effects(by, method="atp")
    assert [each.kind for each in estimated.figures()] == ["bars", "heatmap"]
    np.testing.assert_allclose(
        estimated.figures()[1].data["z"][0], summed_along(estimated.maps()[0], "unit").shares["denoise"]
    )
    assert [each.kind for each in effects(by).figures()] == ["bars"]


def test_names_of_positions_are_shown_and_their_number_has_to_fit():
    found = effects({"L0.resid_pre": ("pos",), "L1.resid_pre": ("pos",)})
    assert list(found.figures()[0].data["x_names"]) == ["0", "1", "2", "3"]
    assert list(found.named(WORDS).figures()[0].data["x_names"]) == list(WORDS)
    with pytest.raises(UserError, match="2 names were given for the 4 positions"):
        found.named(WORDS[:2]).figures()


def test_figures_of_several_kinds_have_names_of_their_own():
    found = effects({"L0.resid_pre": ("pos",), "L0.z": ("pos", "head"), "embed": ("pos",)})
    names = [each.name for each in found.figures()]
    assert len(set(names)) == len(names) == 3


def test_the_largest_of_a_map_are_those_of_numpy():
    [each] = effects({f"L{i}.z": ("pos", "head") for i in range(3)}).maps()
    size = np.abs(each.raw["denoise"].mean(0).ravel())
    assert [flat for _, flat in largest([each], 5)] == np.argsort(-size, kind="stable")[:5].tolist()


def test_positions_before_the_first_effect_are_left_out_and_heads_stand_in_their_layers():
    found = [effects({f"L{i}.z": ("pos", "head") for i in (3, 7)}, mode) for mode in MODES]
    for each in found:
        for score in each.scores.values():
            score[:, :2] = 1e-7
    [figure] = figures_of_maps(effect_maps(found), WORDS, metric="m", done="patched")
    assert figure.data["x_names"] == list(WORDS[2:])
    assert figure.data["z"].shape == (2, 4, 2)
    assert figure.data["y_groups"] == ["3", "3", "7", "7"]
    assert "Positions before '2 word2' have no effect and are left out" in figure.caption


def test_of_many_heads_a_map_shows_each_at_its_strongest_position(monkeypatch):
    monkeypatch.setattr(effect_figures, "MANY_CELLS", 10)
    [found, _], [by_head, every] = drawn(("pos", "head"), (3, 7))
    share = effect_maps([found])[0].shares["denoise"]  # layer, pos, head
    best = np.abs(share).argmax(1)
    np.testing.assert_allclose(by_head.data["z"][0], np.take_along_axis(share, best[:, None], 1)[:, 0])
    assert by_head.data["told"][0] == [[f"at {WORDS[pos]}" for pos in row] for row in best]
    assert (by_head.data["x_names"], by_head.data["y_names"], every.data["z"].shape[1]) == (["0", "1"], ["3", "7"], 4)


def test_units_summed_within_each_layer_are_drawn_under_the_name_of_their_site():
    raw = {"denoise": np.arange(1.0, 7.0).reshape(1, 2, 3)}
    each = effect_map("neurons", ("layer", "unit"), (2, 3), (4, 5), raw, gap=2.0)
    units, whole = figures_of_maps([each], [], metric="logit", done="estimated")
    assert units.data["names"][0] == "L4.neurons[0]"
    assert whole.data["names"] == ["L4.neurons", "L5.neurons"]
    assert np.asarray(whole.data["y"]).tolist() == [[3.0, 7.5]]
