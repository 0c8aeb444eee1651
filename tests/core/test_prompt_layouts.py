"""Prompt files of other people, in miniature: read as they come, or refused with the columns to name."""

import json

import pytest

from micrographia.core.answers import TokenId
from micrographia.core.errors import BadPrompt
from micrographia.core.prompt_files import read_pairs
from micrographia.core.prompt_layouts import NAMES
from micrographia.core.prompts import PairText
from micrographia.labs.workbench.config import Prompts

IOI = "When Marco and William went to the garden, William gave a computer to"
ABC = "When Roman and Ian went to the garden, Crew gave a computer to"
NAMED = ("When", "Marco", "and", "William", "went", "to", "the", "garden", "gave", "a", "computer")
YEAR = "The plan lasted from the year 1697 to the year 16"
CIRCUIT = {"seq_labels": ["BOS", "When"], "word_idxs": {"IO": 2, "end": 14}}
PLAYER = {"clean": IOI, "corrupt": ABC, "answers": [" Marco"], "wrong_answers": [" William", " Roman"]}
NEAR = {"clean_prefix": "The parents near the girl", "patch_prefix": "The parent near the girl"}


def years(first, last):
    return tuple(f"{year:02d}" for year in range(first, last + 1))


def ids(*numbers, among=()):
    return tuple(TokenId(number, among) for number in numbers)


READ = {
    "auto-circuit": (
        "ioi.json",
        json.dumps({**CIRCUIT, "prompts": [PLAYER]}),
        PairText(IOI, ABC, (" Marco",), (" William", " Roman")),
    ),
    "auto-circuit without wrong answers": (
        "x.json",
        json.dumps({"prompts": [{"clean": "a", "corrupt": "b", "answers": ["c|d"], "wrong_answers": []}]}),
        PairText("a", "b", ("c|d",), None),
    ),
    "ids of auto-circuit": (
        "x.json",
        json.dumps({"prompts": [{"clean": "a", "corrupt": "b", "answers": [0, 1], "wrong_answers": [2]}]}),
        PairText("a", "b", ids(0, 1), ids(2)),
    ),
    "EAP-IG's names": (
        "ioi.csv",
        f',clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n470,"{IOI}","{ABC}","x",36547,3977\n',
        PairText(IOI, ABC, ids(36547, among=NAMED), ids(3977, among=NAMED)),
    ),
    "EAP-IG's years": (
        "greater.csv",
        f"clean,corrupted,label\n{YEAR},{YEAR.replace('1697', '1601')},97\n",
        PairText(YEAR, YEAR.replace("1697", "1601"), years(98, 99), years(0, 97)),
    ),
    "EAP-IG's years under another name": (
        "greater.csv",
        f"clean,corrupted,correct_idx\n{YEAR.replace('1697', '1604')},{YEAR},4\n",
        PairText(YEAR.replace("1697", "1604"), YEAR, years(5, 99), years(0, 4)),
    ),
    "EAP-IG's hypernyms": (
        "hypernymy.csv",
        "clean,h1,answers,answers_idx,corrupted,corrupted_answers,corrupted_answers_idx\n"
        '", gems and other",gems,"[\'gem\', \'gems\']","[16840, 23685]",", cats and other",[\'animals\'],[4695]\n',
        PairText(", gems and other", ", cats and other", (" gem", " gems"), (" animals",)),
    ),
    "EAP-IG's countries": (
        "facts.csv",
        "clean,capital,country,country_idx,corrupted,corrupted_capital,corrupted_country,corrupted_country_idx\n"
        '" Paris, the capital of",Paris,France,4881," Rome, the capital of",Rome, Italy,8031\n',
        PairText(" Paris, the capital of", " Rome, the capital of", (" France",), (" Italy",)),
    ),
    "EAP-IG's pronouns": (
        "bias.csv",
        "clean,corrupted,clean_answer_idx,corrupted_answer_idx,label\nThe nurse said that,The man said that,673,339,0",
        PairText(
            "The nurse said that",
            "The man said that",
            ids(673, among=("he", "she")),
            ids(339, among=("he", "she")),
        ),
    ),
    "feature circuits": (
        "rc_train.jsonl",
        json.dumps({**NEAR, "clean_answer": " are", "patch_answer": " is", "case": "plural_singular"}),
        PairText(NEAR["clean_prefix"], NEAR["patch_prefix"], " are", " is"),
    ),
    "ARENA": (
        "ioi.json",
        json.dumps({"prompts": [IOI, ABC], "answers": [[" Marco", " Ian"], [" Ian", " Marco"]]}),
        PairText(IOI, ABC, " Marco", " Ian"),
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_as_it_comes(name, tmp_path):
    file, text, pair = READ[name]
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert read_pairs(tmp_path / file)[0] == pair


def test_prompts_with_answers_in_turn_are_each_others_corrupt(tmp_path):
    (tmp_path / "p.json").write_text(READ["ARENA"][1])
    assert read_pairs(tmp_path / "p.json")[1] == PairText(ABC, IOI, " Ian", " Marco")
    (tmp_path / "q.json").write_text(json.dumps({"prompts": [IOI, ABC], "answers": [[" A", " B"], [" A", " B"]]}))
    with pytest.raises(BadPrompt, match="followed by its own corrupt one"):
        read_pairs(tmp_path / "q.json")


TRACR = {"clean": "a b", "corrupt": "b a", "answers": [[0, 1]], "wrong_answers": [[1, 0]]}
REFUSED = {
    "a class": ("clean,corrupted,group,plural\na,b,ML,0\n", r"columns are clean, corrupted, group, plural.*--columns"),
    "a label": ("clean,corrupted,label\nThe nurse said,The man said,0\n", r"label '0', which is not the end of a year"),
    "ids that are none": (
        f'clean,corrupted,correct_idx,incorrect_idx\n"{IOI}",b,Marco,3\n',
        "neither an id nor a list",
    ),
    "an answer left out": ('clean,corrupted,answers,corrupted_answers\na,b,"[1, 2]",c\n', "Write a word"),
    "columns unknown to us": ("prompt,foil,target\na,b,c\n", r"prompt, foil, target: no layout that is known"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_does_not_tell_is_asked_for(name, tmp_path):
    text, says = REFUSED[name]
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    with pytest.raises(BadPrompt, match=says):
        read_pairs(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (TRACR, r"row 1 of .* has in answers .*A sequence of answers, one for each position"),
        ({**PLAYER, "clean": [3, 0, 0]}, r"row 1 of .* has a clean prompt of numbers"),
        ({**PLAYER, "answers": [0.5]}, r"has in answers"),
        ({"clean": "I like", "corrupt": "I hate"}, r"row 1 of .* lacks answer"),
    ],
)
def test_rows_of_another_kind_of_model_are_refused(row, says, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({"prompts": [row]}))
    with pytest.raises(BadPrompt, match=says):
        read_pairs(tmp_path / "p.json")


def test_columns_that_are_named_are_read_whatever_the_layout(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,foil,target,other,n\na,b, c, d,1\n")
    columns = {"clean": "prompt", "corrupt": "foil", "answer": "target", "wrong": "other"}
    assert read_pairs(tmp_path / "p.csv", columns=columns) == [PairText("a", "b", " c", " d")]
    with pytest.raises(BadPrompt, match="they hold no 'targets'"):
        read_pairs(tmp_path / "p.csv", columns={**columns, "answer": "targets"})
    (tmp_path / "q.csv").write_text(READ["EAP-IG's names"][1])
    hard = read_pairs(tmp_path / "q.csv", columns={"corrupt": "corrupted_hard"})
    assert hard == [PairText(IOI, "x", ids(36547, among=NAMED), ids(3977, among=NAMED))]
    asked = {"clean": "clean", "corrupt": "corrupted", "answer": "correct_idx"}
    assert read_pairs(tmp_path / "q.csv", columns=asked) == [PairText(IOI, ABC, ids(36547))]
    with pytest.raises(BadPrompt, match=r"not those of feature-circuits"):
        read_pairs(tmp_path / "q.csv", layout="feature-circuits")
    with pytest.raises(BadPrompt, match="layout 'mine'"):
        read_pairs(tmp_path / "q.csv", layout="mine")


def test_a_set_in_our_own_files_is_a_list_or_has_bars_between(tmp_path):
    own = {"clean": "a", "corrupt": "b"}
    (tmp_path / "p.jsonl").write_text(json.dumps({**own, "answer": ["5", "6"], "wrong": "0|1"}))
    assert read_pairs(tmp_path / "p.jsonl") == [PairText("a", "b", ("5", "6"), "0|1")]


def test_the_first_pairs_alone_can_be_taken(tmp_path):
    (tmp_path / "p.csv").write_text("clean,corrupt,answer\na,b,c\nd,e,f\n")
    assert [row.clean for row in read_pairs(tmp_path / "p.csv", limit=1)] == ["a"]


@pytest.mark.parametrize("name", ["auto", *NAMES])
def test_every_layout_can_be_chosen_on_the_command_line(name):
    assert Prompts(prompts="x.json", prompt_format=name).prompt_format == name
