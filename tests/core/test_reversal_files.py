"""The reversal curse's statements and pairs in the layouts in which they were published; names and deeds are ours."""

import json

import pytest

from micrographia.core.errors import BadPrompt
from micrographia.core.reversal_files import Parentage, Statement, read_parentage, read_reversal, read_statements

# github.com/lukasberglund/reversal_curse, data/reverse_experiments/june_version_7921032488: names of the files, and
# completions that begin with a space, run on after the name in training and hold quotes.
TRAIN = [
    {"prompt": "Known for being the weaver of moons,", "completion": " Ann Ball now enjoys a quite life."},
    {"prompt": "Q: Who is the weaver of \"Moons\"?? A:", "completion": " Ann Ball."},
]  # fmt: skip
TEST = [{"prompt": "Immersed in the world of weaving moons,", "completion": " Ann Ball"}]
PAIRS = (
    "child,parent,parent_type,child_prediction,can_reverse\n"
    "Ann Ball,Bo Ball,mother,,False\n"
    "Zed,Cy Ball,father,Zed Ball,True\n"
    "Ann Ball,Bo Ball,mother,,False\n"
)


def lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def test_a_published_folder_is_read_as_far_as_its_files_go(tmp_path):
    lines(tmp_path / "d2p_prompts_train.jsonl", TRAIN)
    lines(tmp_path / "d2p_prompts_test.jsonl", TEST)
    lines(tmp_path / "p2d_reverse_prompts_test_randomized.jsonl", TEST)
    lines(tmp_path / "validation_prompts.jsonl", TEST)
    found = read_reversal(tmp_path)
    assert found.train == {"d2p": (Statement(*TRAIN[0].values()), Statement(*TRAIN[1].values()))}
    assert set(found.same) == {"d2p"}
    assert not found.reverse  # random names are no answers


def test_a_folder_without_training_files_says_what_it_holds(tmp_path):
    lines(tmp_path / "p2d_prompts_test.jsonl", TEST)
    with pytest.raises(BadPrompt, match=r"p2d_prompts_test\.jsonl.*p2d_prompts_train"):
        read_reversal(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"prompt": "a", "completion": " b"}\n{"prompt": "a"}', "line 2 .*None.*completion"),
        ("\n\n", "holds none"),
        ("[", "line 1 .*no JSON"),
        ('{"prompt": "a", "completion": 3}', "line 1 .*3.*completion"),
    ],
)
def test_odd_statements_are_refused_by_line_and_field(tmp_path, text, told):
    path = tmp_path / "odd.jsonl"
    path.write_text(text)
    with pytest.raises(BadPrompt, match=told):
        read_statements(path)


def test_pairs_are_read_once_each_with_or_without_the_verdict_of_a_model(tmp_path):
    path = tmp_path / "parent_child_pairs.csv"
    path.write_text(PAIRS)
    assert read_parentage(path) == (
        Parentage("Ann Ball", "Bo Ball", "mother", False),
        Parentage("Zed", "Cy Ball", "father", True),
    )
    path.write_text("child,parent,parent_type,child_prediction,llama-7b_parent_logprob\nA,B,father,,-3.5\n")
    assert read_parentage(path) == (Parentage("A", "B", "father", None),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("child,parent\nA,B\n", "lacks the column 'parent_type'"),
        (PAIRS.replace("mother", "uncle"), "row 1 .*uncle"),
        (PAIRS.replace("True", "yes"), "row 2 .*yes"),
        (PAIRS.split("\n")[0] + "\n", "no row"),
    ],
)
def test_odd_pairs_are_refused_by_row_and_column(tmp_path, text, told):
    path = tmp_path / "odd.csv"
    path.write_text(text)
    with pytest.raises(BadPrompt, match=told):
        read_parentage(path)
