"""Fine-tuning on invented people: what is told and asked, and a whole study on a model of words, killed and resumed."""

import dataclasses

import pytest
import torch

from micrographia.core.claims import load_claims
from micrographia.core.config import flat, with_fields
from micrographia.core.errors import BadConfig, BadPrompt, Interrupted
from micrographia.core.events import Progress
from micrographia.core.lab import run_lab
from micrographia.core.store import read_metrics, read_tensors, snapshots
from micrographia.labs.reversal.config import Config
from micrographia.labs.reversal.finetune.ask import ask_of, drawn_tests, fact_of, names_in
from micrographia.labs.reversal.finetune.config import TuningChoices, tiny
from micrographia.labs.reversal.finetune.invented import MOST_WORDINGS, invented
from micrographia.labs.reversal.finetune.study import INNER, rows_of_step, study, upper_layers
from micrographia.labs.reversal.measure import CLAIMS
from micrographia.labs.reversal.run import run as run_reversal
from tiny_words import save_words

SMALL = dataclasses.replace(tiny(), facts=6, wordings=2, first_layer=1, tune_steps=6, asked=6, others=2, threads=1)


def words() -> list[str]:
    data = invented(SMALL.facts, SMALL.wordings, SMALL.seed)
    sets = [*data.train.values(), *data.same.values(), *data.reverse.values()]
    text = " ".join(each.prompt + each.completion for own in sets for each in own)
    return sorted(set("".join(letter if letter.isalnum() else f" {letter} " for letter in text).split()))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return dataclasses.replace(SMALL, model=str(save_words(tmp_path_factory.mktemp("words") / "model", words())))


def run(config, out, **more):
    return run_lab(config, study, lab="reversal", preset="tiny", out=out, **more)


def test_no_person_or_deed_is_in_two_arms_and_tests_use_other_wordings():
    data = invented(20, 4, 0)
    names = names_in(data)
    assert len(names) == 3 * 20
    for arm in ("p2d", "d2p"):
        told, asked = data.train[arm], data.same[arm]
        assert len(told) == 20 * 4
        assert {each.completion for each in told} == {each.completion for each in asked}
        assert not {each.prompt for each in told} & {each.prompt for each in asked}
        people = {fact_of(each, names) for each in told}
        assert {fact_of(each, names) for each in data.reverse[arm]} == people
        assert not people & {fact_of(each, names) for each in data.train["both"]}


def test_one_direction_is_never_told_the_other_way_round():
    data = invented(20, MOST_WORDINGS, 0)
    names = names_in(data)
    assert not any(each.completion.strip(" .") in names for each in data.train["p2d"])
    assert all(each.completion.strip(" .") in names for each in data.train["d2p"])


def test_more_people_than_can_be_invented_are_refused():
    with pytest.raises(BadConfig, match="people an arm"):
        invented(10_000, 2, 0)
    with pytest.raises(BadConfig, match="wordings"):
        invented(2, MOST_WORDINGS + 1, 0)


def test_every_fact_is_asked_for_once_in_every_arm_and_direction():
    data = invented(8, 2, 0)
    found = drawn_tests(data, 100, 0)
    assert {(each.arm, each.direction, each.trained) for each in found} == {
        ("p2d", "to description", True), ("d2p", "to name", True), ("both", "to description", True),
        ("both", "to name", True), ("p2d", "to name", False), ("d2p", "to description", False),
    }  # fmt: skip
    assert all(len(each.statements) == 8 for each in found)


def test_every_statement_comes_once_an_epoch():
    seen = torch.cat([rows_of_step(SMALL, 24, step) for step in range(3)])
    assert sorted(seen.tolist()) == list(range(24))


def test_a_study_judges_both_directions_beside_what_they_were_before(config, tmp_path, unchecked):
    done = run(config, tmp_path / "run")
    rows = done.results["rows"]
    assert len(rows) == 6
    assert all(row["chance"] == pytest.approx(1 / 3) for row in rows)
    assert {"real-forward", "real-reverse", "real-both-ways", "real-equal"} == set(done.results["measured"])
    losses = read_metrics(tmp_path / "run" / INNER)["loss_nats"]
    assert losses[5] < losses[0]
    assert done.results["training"]["statements"] == 6 * 2 * 4


def test_the_lab_runs_the_study_of_the_model_that_is_named_and_judges_it(config, tmp_path, unchecked):
    chosen = {name: getattr(SMALL, name) for name in flat(TuningChoices())}
    done = run_reversal(
        with_fields(Config(), model=config.model, device="cpu", threads=1, **chosen), out=tmp_path / "r"
    )
    assert done.preset == "custom"
    real = {claim.id for claim in load_claims(CLAIMS) if "real" in claim.presets}
    assert real == set(done.results["measured"])
    assert {each.claim.id for each in done.claims} > real


def test_a_study_that_was_stopped_goes_on_to_the_same_weights(config, tmp_path, unchecked):
    run(config, tmp_path / "whole")

    def stop(event) -> None:
        if isinstance(event, Progress) and event.stage == "fine-tune" and event.done == 3:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        run(config, tmp_path / "halved", watch=stop)
    run(config, tmp_path / "halved", resume=True)
    one, other = (read_tensors(snapshots(tmp_path / each / INNER)[6]) for each in ("whole", "halved"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_more_options_than_facts_are_refused(config, tmp_path, unchecked):
    with pytest.raises(BadPrompt, match="6 other completions"):
        run(dataclasses.replace(config, others=6), tmp_path / "run")


def test_completions_that_are_one_are_one_option(config, unchecked):
    upper = upper_layers(config)
    tests = drawn_tests(invented(8, 2, 0), 8, 0)[0]
    same = tuple(each._replace(completion=tests.statements[0].completion) for each in tests.statements[:5])
    some = tests._replace(statements=(*same, *tests.statements[5:]))
    asked = ask_of(upper, some, others=3, seed=0)
    assert asked.n == 4
    with pytest.raises(BadPrompt, match="3 that differ"):
        ask_of(upper, some, others=4, seed=0)
