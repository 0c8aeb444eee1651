"""Prompt pairs: aligned, differing where they should, with right answers and roles that point at them."""

import pytest
import torch
from torch import Generator

from micrographia.core.errors import BadConfig
from micrographia.labs.ioi.config import LONGEST_PROMPT
from micrographia.labs.ioi.grammar import BOS, IDS, NAMES, PARTS, TEMPLATES, WORDS
from micrographia.labs.ioi.task import BEHAVIOURS, prompt_pairs

N = 300
ALL = [(behaviour, name) for behaviour, own in BEHAVIOURS.items() for name in own.corruptions]


def pairs(behaviour: str, corruption: str = "", **choices):
    return prompt_pairs(behaviour, N, Generator().manual_seed(0), corruption=corruption, **choices)


def words(ids: torch.Tensor) -> list[str]:
    return [WORDS[i] for i in ids.tolist()]


def at(found, role: str, *, corrupt: bool = False) -> list[str]:
    rows = found.corrupt if corrupt else found.clean
    return words(rows.gather(1, found.roles[role][:, None])[:, 0])


@pytest.mark.parametrize(("behaviour", "corruption"), ALL)
def test_clean_and_corrupt_are_aligned_and_differ_in_one_word(behaviour, corruption):
    found = pairs(behaviour, corruption)
    assert found.clean.shape == found.corrupt.shape
    assert found.clean.shape[1] <= LONGEST_PROMPT
    assert bool((found.clean[:, 0] == IDS[BOS]).all())
    assert bool(((found.clean != found.corrupt).sum(1) == 1).all())


@pytest.mark.parametrize(
    ("behaviour", "corruption", "role"),
    [
        ("ioi", "swap", "S2"),
        ("ioi", "abc", "S2"),
        ("induction", "last", "END"),
        ("pronoun", "gender", "N"),
        ("greater", "first", "YY"),
    ],
)
def test_the_corruption_is_where_its_role_says(behaviour, corruption, role):
    found = pairs(behaviour, corruption)
    assert torch.equal((found.clean != found.corrupt).int().argmax(1), found.roles[role])


@pytest.mark.parametrize(("behaviour", "corruption"), ALL)
def test_the_right_answer_is_right_and_the_wrong_one_is_not(behaviour, corruption):
    found = pairs(behaviour, corruption)
    assert bool(found.answers.gather(1, found.answer[:, None]).all())
    assert not bool(found.answers.gather(1, found.wrong[:, None]).any())


def test_the_name_that_comes_once_is_the_answer():
    found = pairs("ioi")
    assert words(found.answer) == at(found, "IO")
    assert words(found.wrong) == at(found, "S1") == at(found, "S2")
    assert all(row.tolist().count(answer) == 1 for row, answer in zip(found.clean, found.answer.tolist()))


def test_the_swap_turns_the_answer_round():
    found = pairs("ioi", "swap")
    assert at(found, "S2", corrupt=True) == words(found.answer)
    assert all(row.tolist().count(wrong) == 1 for row, wrong in zip(found.corrupt, found.wrong.tolist()))


def test_the_third_name_is_none_of_the_two():
    found = pairs("ioi", "abc")
    third = at(found, "S2", corrupt=True)
    assert set(third) <= set(NAMES)
    assert not any(name in both for name, both in zip(third, zip(at(found, "IO"), at(found, "S1"))))


def test_both_orders_and_all_wordings_occur():
    kinds = {(TEMPLATES[i].frame, TEMPLATES[i].form) for i in pairs("ioi").template.tolist()}
    assert kinds == {(frame, form) for frame in range(8) for form in ("ABBA", "BABA")}
    assert {TEMPLATES[i].frame for i in pairs("ioi", frame=2).template.tolist()} == {2}


def test_what_followed_the_last_word_is_the_answer():
    found = pairs("induction")
    assert at(found, "END") == at(found, "A1")
    assert words(found.answer) == at(found, "A1+1")
    for row, wrong in zip(found.corrupt.tolist(), found.wrong.tolist()):
        assert row[row.index(row[-1]) + 1] == wrong


def test_the_pronoun_is_that_of_the_name():
    found = pairs("pronoun")
    for role, answers, corrupt in (("N", found.answer, False), ("N", found.wrong, True)):
        genders = [NAMES.index(name) % 2 for name in at(found, role, corrupt=corrupt)]
        assert [("she", "he")[gender] for gender in genders] == words(answers)


def test_later_years_are_the_answers_and_01_makes_the_wrong_one_right():
    found = pairs("greater")
    years = [int(year) for year in at(found, "YY")]
    later = [{int(WORDS[i]) for i in row.nonzero()[:, 0].tolist()} for row in found.answers]
    assert later == [set(range(year + 1, 100)) for year in years]
    assert all(1 < int(wrong) <= year for wrong, year in zip(words(found.wrong), years))
    assert set(at(found, "YY", corrupt=True)) == {"01"}
    assert at(found, "XX") == at(found, "END")


@pytest.mark.parametrize("held_out", [True, False])
def test_names_of_prompts_are_held_out_or_seen(held_out):
    found = pairs("ioi", held_out=held_out)
    sums = [NAMES.index(a) + NAMES.index(b) for a, b in zip(at(found, "IO"), at(found, "S1"))]
    assert all((total % PARTS == 0) == held_out for total in sums)


def test_a_held_out_name_is_corrupted_to_a_held_out_one():
    found = pairs("pronoun")
    moved = [NAMES.index(a) - NAMES.index(b) for a, b in zip(at(found, "N"), at(found, "N", corrupt=True))]
    assert all(by % PARTS == 0 and by % 2 for by in moved)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_every_prompt_has_every_role(behaviour):
    found = pairs(behaviour)
    assert set(found.roles) == set(TEMPLATES[int(found.template[0])].roles)
    assert bool((found.roles["END"] == found.clean.shape[1] - 1).all())
    assert all(bool(((role > 0) & (role < found.clean.shape[1])).all()) for role in found.roles.values())


def test_the_same_generator_gives_the_same_prompts():
    assert all(torch.equal(pairs("ioi").clean, again) for again in (pairs("ioi").clean, pairs("ioi", "swap").clean))


def test_an_unknown_corruption_names_those_there_are():
    with pytest.raises(BadConfig, match="swap, abc"):
        pairs("ioi", "noise")


def test_an_unknown_frame_is_refused():
    with pytest.raises(BadConfig, match="frame 99"):
        pairs("pronoun", frame=99)
