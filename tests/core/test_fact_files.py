"""Athletes and known facts in the layouts in which they were published; the rows are ours."""

import json

import pytest

from micrographia.core.errors import BadPrompt
from micrographia.core.fact_files import AskedFact, read_athletes, read_known, relation_of

# github.com/neelnanda-io/LLaMA-Fact, short_df.csv: head, an index without a name, prompts of two lines in quotes.
HEAD = ",index,athlete,sport,log_prob_one_shot,num_athlete_tokens,sport_index,sport_token,prompt,zero_shot_prompt,clp\n"
ROW = (
    '{n},738,{name},{sport},-0.1057,3,2,5842,"Fact: Tiger Woods plays the sport of golf\n'
    'Fact: {name} plays the sport of",Fact: {name} plays the sport of,-0.36\n'
)
KNOWN = [
    {
        "known_id": 0, "subject": "Mount Vesper", "attribute": "Antarctica",
        "template": "{} is located in the continent",
        "prediction": " of Antarctica. It is", "prompt": "Mount Vesper is located in the continent of",
        "relation_id": "P30",
    },
    {
        "known_id": 1, "subject": "Mount Moth", "attribute": "Asia", "template": "{} is located in the continent",
        "prediction": " of Asia", "prompt": "Mount Moth is located in the continent of", "relation_id": "P30",
    },
]  # fmt: skip


def test_athletes_are_read_with_prompts_of_two_lines(tmp_path):
    path = tmp_path / "top_facts_df.csv"
    path.write_text(HEAD + ROW.format(n=1, name="Ann Ball", sport="golf") + ROW.format(n=3, name="Bo", sport="tennis"))
    first, second = read_athletes(path)
    question = "Fact: Tiger Woods plays the sport of golf\nFact: Ann Ball plays the sport of"
    assert first == AskedFact("Ann Ball", "golf", question, "athlete sport")
    assert second.subject == "Bo"
    relation = relation_of([first, second])
    assert relation.templates == ("Fact: Tiger Woods plays the sport of golf\nFact: {} plays the sport of",)
    assert relation.answers == ("golf", "tennis")


def test_known_facts_ask_with_their_prompt_and_not_their_template(tmp_path):
    path = tmp_path / "known_1000.json"
    path.write_text(json.dumps(KNOWN))
    first, second = read_known(path)
    assert first.prompt.endswith("continent of")
    assert (first.subject, first.answer, first.relation) == ("Mount Vesper", "Antarctica", "P30")
    assert relation_of([first, second]).templates == ("{} is located in the continent of",)


def test_facts_of_two_forms_are_no_relation(tmp_path):
    one = AskedFact("A", "x", "A is", "r")
    with pytest.raises(BadPrompt, match="2 forms"):
        relation_of([one, AskedFact("B", "y", "It is B that", "r")])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("athlete,sport\nA,golf\n", "lacks the column 'prompt'"),
        (HEAD, "no row"),
        (HEAD + ROW.format(n=1, name="", sport="golf"), "row 1 .*athlete"),
        (HEAD + ROW.format(n=1, name="Ann", sport="golf").replace("Fact: Ann", "Fact: Bob"), "row 1 .*does not name"),
    ],
)
def test_odd_athletes_are_refused_by_row_and_column(tmp_path, content, told):
    path = tmp_path / "odd.csv"
    path.write_text(content)
    with pytest.raises(BadPrompt, match=told):
        read_athletes(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [("{", "no JSON"), ("{}", "no list"), ('[{"subject": "A"}]', "row 1 .*attribute"), ("[3]", "row 1 .*3")],
)
def test_odd_known_facts_are_refused_by_row_and_field(tmp_path, content, told):
    path = tmp_path / "known_1000.json"
    path.write_text(content)
    with pytest.raises(BadPrompt, match=told):
        read_known(path)
