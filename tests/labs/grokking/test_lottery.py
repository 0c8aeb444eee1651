"""The lottery: who takes part, what is asked of them, and that nothing is run twice."""

import pytest
from fake_members import FakeRuns, smallest

from micrographia.core.errors import BadConfig, Interrupted
from micrographia.core.store import load_run, read_metrics, verify
from micrographia.faces.figures.draw import DRAW, draw
from micrographia.labs.grokking.lottery.config import LotteryConfig
from micrographia.labs.grokking.lottery.run import lottery
from micrographia.methods.fourier.scores import SCORES


def config(**changes) -> LotteryConfig:
    few = {"init_seeds": (0, 1, 2, 3), "split_seeds": (0, 1), "looks": (0, 1, 20, 40)}
    return LotteryConfig(base=smallest(), permutations=20, resamples=20, **{**few, **changes})


@pytest.fixture
def fake(monkeypatch):
    return FakeRuns().stand_in(monkeypatch, "lottery")


def test_initialisation_and_split_are_crossed():
    networks = config().networks
    assert len(networks) == 8
    assert {(each.seed, each.split_seed) for each in networks.values()} == {(i, s) for i in range(4) for s in range(2)}
    assert len(LotteryConfig().networks) >= 32


def test_every_score_is_held_against_the_winners_at_every_checkpoint(fake, tmp_path):
    run = lottery(config(), out=tmp_path / "lottery")
    assert (run.status, run.preset) == ("finished", "lottery")
    assert {(row["score"], row["t0"]) for row in run.results["curves"]} == {
        (score, look) for score in (*SCORES, "combined") for look in (0, 20, 40)
    }
    assert all(0 <= row["area"] <= 1 and 0 < row["p_value"] <= 1 for row in run.results["curves"])
    assert len(read_metrics(run.path)["area"]) == 8 * 3
    assert verify(run.path) == []


def test_winners_that_the_initialisation_decides_are_found(fake, tmp_path):
    """The fakes' winners follow from the initial seed alone."""
    run = lottery(config(), out=tmp_path / "lottery")
    assert run.results["causes"]["init"]["value"] == pytest.approx(1)
    assert run.results["causes"]["shared_same_init"]["value"] == 2


def test_networks_that_did_not_grok_or_failed_are_named_and_left_out(fake, tmp_path):
    fake.grok = {3: None}
    fake.broken = {"init-0_split-1"}
    run = lottery(config(), out=tmp_path / "lottery")
    out = {row["network"]: row["why_not"] for row in run.results["networks"] if not row["takes_part"]}
    assert set(out) == {"init-0_split-1", "init-3_split-0", "init-3_split-1"}
    assert out["init-3_split-0"] == "did not grok"
    assert "NaN" in out["init-0_split-1"]
    assert run.summary[0].startswith("5 of 8 networks")
    assert run.results["curves"]


def test_with_too_few_networks_nothing_is_claimed(fake, tmp_path):
    fake.grok = {1: None, 2: None, 3: None}
    run = lottery(config(), out=tmp_path / "lottery")
    assert (run.results["curves"], run.results["causes"]) == ([], None)
    assert [figure.name for figure in run.figures] == ["networks"]
    assert len(run.summary) == 2


def test_every_figure_of_the_lottery_can_be_drawn(fake, tmp_path):
    run = lottery(config(), out=tmp_path / "lottery")
    names = {figure.name for figure in run.figures}
    assert {"areas", "area_embedding", "area_combined", "shared_winners", "what_decides", "winners"} <= names
    for figure in run.figures:
        if figure.kind in DRAW:
            assert draw(figure)["data"]


def test_an_interrupted_lottery_goes_on_and_ends_as_one_left_alone(fake, tmp_path):
    few = config(init_seeds=(0, 1))
    fake.stop_after = 3
    with pytest.raises(Interrupted, match="3 of 4"):
        lottery(few, out=tmp_path / "lottery")
    fake.stop_after = None
    run = lottery(few, out=tmp_path / "lottery", resume=True)
    assert len(fake.begun) == 4
    alone = lottery(few, out=tmp_path / "alone")
    assert alone.results == run.results
    assert load_run(tmp_path / "lottery").figures[0].name == alone.figures[0].name


def test_what_cannot_be_asked_is_refused():
    for changes, expected in [
        ({"init_seeds": (0,)}, "init_seeds"),
        ({"split_seeds": (1, 1)}, "split_seeds"),
        ({"looks": (-1,)}, "looks"),
    ]:
        with pytest.raises(BadConfig, match=expected):
            config(**changes)
    with pytest.raises(BadConfig, match="no characters"):
        LotteryConfig(base=smallest(operation="polynomial"))
    with pytest.raises(BadConfig, match="decided by init_seeds"):
        LotteryConfig(base=smallest(seed=3))
