"""What the exact check of an attribution finds: whole Sites at once, and the strongest places without a table."""

import pytest

from micrographia.core.config import Target
from micrographia.core.errors import BadConfig
from micrographia.core.store import read_metrics
from micrographia.labs.workbench.config import Attribute, Patch, Prompts
from micrographia.labs.workbench.run import run
from miniature import CLEAN, CORRUPT

INLINE = Prompts(clean=CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John")


def target(model):
    return Target(model=str(model), device="cpu", threads=1)


def by_place(done):
    return {row["place"]: row for row in done.results["places"]}


def test_whole_sites_stand_beside_the_sum_of_their_places(trained, tmp_path):
    asked = Attribute(target=target(trained), prompts=INLINE, sites="L*.z, L*.resid_pre", verify=500, mode="denoise")
    done = run(asked, out=tmp_path / "a")
    rows = {row["what"]: row for row in done.results["wholes"]}
    assert rows.keys() == {"L0.z", "L1.z", "all z"}  # the residual stream is one stream: nothing to add up
    exact = Patch(target=target(trained), prompts=INLINE, sites="L*.z", by="layer", mode="denoise")
    at_once = by_place(run(exact, out=tmp_path / "p"))
    alone = Patch(target=target(trained), prompts=INLINE, sites="L*.z", by="pos,head", mode="denoise")
    apart = by_place(run(alone, out=tmp_path / "q")).values()
    for name in ("L0.z", "L1.z"):
        assert rows[name]["at_once"] == pytest.approx(at_once[name]["denoise_change"], abs=1e-4)
        summed = sum(row["denoise_change"] for row in apart if row["place"].startswith(name))
        assert rows[name]["all_measured"]
        assert rows[name]["alone"] == pytest.approx(summed, abs=1e-3)
        assert rows[name]["so"] in ("alike, within 40%", "more together", "less together", "too small to say")


def test_only_the_strongest_are_held_and_they_are_those_of_the_whole_table(gpt2, tmp_path):
    chosen = {"target": target(gpt2), "prompts": INLINE, "sites": "L*.neurons, L*.z"}
    few = run(Attribute(**chosen, strongest=7, verify=5), out=tmp_path / "few")
    whole = run(Attribute(**chosen, verify=0), out=tmp_path / "all")
    every = by_place(whole)
    assert few.results["method"]["places"] == whole.results["method"]["places"]
    for mode, verb in (("denoise", "restored"), ("noise", "destroyed")):
        held = {name: row[verb] for name, row in by_place(few).items() if row[verb] is not None}
        largest = sorted(every, key=lambda name: -abs(every[name][verb]))[:7]
        assert held.keys() == set(largest)
        for name, share in held.items():
            assert share == pytest.approx(every[name][verb], rel=1e-3)
        assert sum(row[f"{mode}_exact"] is not None for row in by_place(few).values()) == 5
    assert len(read_metrics(few.path)["place"]) == len(few.results["places"])


def test_the_exact_effect_beside_a_strongest_place_is_that_of_patching_it(trained, tmp_path):
    few = run(
        Attribute(target=target(trained), prompts=INLINE, sites="L*.z", strongest=4, mode="noise"), out=tmp_path / "f"
    )
    exact = by_place(
        run(
            Patch(target=target(trained), prompts=INLINE, sites="L*.z", by="pos,head", mode="noise"), out=tmp_path / "p"
        )
    )
    assert len(by_place(few)) == 4
    for name, row in by_place(few).items():
        assert row["noise_exact"] == pytest.approx(exact[name]["noise_change"], abs=1e-4)
        assert row["destroyed_exactly"] == pytest.approx(exact[name]["destroyed"], abs=1e-3)


@pytest.mark.parametrize("method", ["atp", "edges"])
def test_the_exact_effect_stands_beside_every_estimate_that_was_checked(trained, tmp_path, method):
    sites = {} if method == "edges" else {"sites": "L*.z"}
    asked = Attribute(target=target(trained), prompts=INLINE, method=method, verify=24, mode="noise", **sites)
    done = run(asked, out=tmp_path / "a")
    scatter = next(figure for figure in done.figures if figure.kind == "scatter")
    measured = dict(zip(scatter.data["names"], scatter.data["x"]))
    gap = done.results["baselines"][0]["clean"] - done.results["baselines"][0]["corrupt"]
    rows = {row["place"]: row["destroyed_exactly"] for row in done.results["places"]}
    assert sum(share is not None for share in rows.values()) >= 5
    for name, share in rows.items():
        if name in measured:
            assert share == pytest.approx(-measured[name] / gap, rel=1e-4, abs=1e-6)
        else:
            assert share is None
    top = next(figure for figure in done.figures if figure.name == "top")
    assert "exact" in str(top.data["columns"])
    largest = done.results["top"][0]
    assert f"(exact: {largest['destroyed_exactly']:.1%})" in " ".join(done.results["summary"])


def test_scores_that_are_sizes_are_not_told_as_effects(trained, tmp_path):
    asked = Attribute(target=target(trained), prompts=INLINE, sites="L*.z", method="atp-star", mode="denoise")
    done = run(asked, out=tmp_path / "a")
    told = " ".join(done.results["summary"])
    assert "has the largest score" in told
    assert "restored" not in told
    assert all(row["restored"] is None for row in done.results["places"])
    top = next(figure for figure in done.figures if figure.name == "top")
    assert top.title == "Largest scores"
    assert "share" not in top.caption
    (picture,) = [figure for figure in done.figures if figure.group == "In pictures"]
    assert "does not estimate" in picture.caption


def test_as_many_places_are_checked_as_were_asked_for_and_the_progress_names_the_direction(trained, tmp_path):
    stages = set()
    asked = Attribute(target=target(trained), prompts=INLINE, sites="L*.neurons, L*.mlp_out", verify=40)
    done = run(asked, out=tmp_path / "a", watch=lambda event: stages.add(getattr(event, "stage", "")))
    assert {"check by patching, denoise", "check by patching, noise"} <= stages
    assert sum(row["checked"] for row in done.results["calibration"] if row["mode"] == "noise") == 40
    assert "Checked on 40 places" in " ".join(done.results["summary"])
    table = next(figure for figure in done.figures if figure.name == "calibration")
    assert "no interval over prompts" in table.caption  # of one pair there is none


@pytest.mark.parametrize("method", ["ig", "ig-activation", "atp-star", "edges"])
def test_a_method_that_comes_back_to_its_scores_must_hold_all(method):
    with pytest.raises(BadConfig, match="atp-qk"):
        Attribute(target=Target(model="m"), prompts=INLINE, strongest=5, method=method)
