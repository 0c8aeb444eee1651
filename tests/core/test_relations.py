"""Relations: files in the published layout as they come, with everything that is odd in them, and our own table."""

import json

import pytest

from micrographia.core.errors import BadPrompt
from micrographia.core.relations import Fact, read_relations, shipped

# github.com/evandez/relations, data/factual/company_ceo.json at ee252f93: names and order of the fields; the facts are
# ours.
PUBLISHED = {
    "name": "company CEO",
    "prompt_templates": ["{}'s CEO is", "The CEO of {} is"],
    "prompt_templates_zs": ["The name of the CEO of {} is", "Who is the CEO of {}? Their name is"],
    "properties": {
        "relation_type": "factual", "domain_name": "company", "range_name": "person", "symmetric": False,
    },
    "samples": [
        {"subject": "Acme & Sons", "object": "Ada Byron"},
        {"subject": "Bolt", "object": "Cy Dee"},
        {"subject": "Bolt", "object": "Cy Dee"},
    ],
}  # fmt: skip


def written(path, found) -> str:
    path.write_text(json.dumps(found, indent=4), encoding="utf-8")
    return str(path)


def test_a_published_file_is_read_as_it_comes(tmp_path):
    (relation,) = read_relations(written(tmp_path / "company_ceo.json", PUBLISHED))
    assert relation.name == "company CEO"
    assert relation.templates[1] == "The CEO of {} is"
    assert relation.bare[0] == "The name of the CEO of {} is"
    assert relation.facts == (Fact("Acme & Sons", "Ada Byron"), Fact("Bolt", "Cy Dee"))  # what stands twice, once
    assert not relation.inverse


def test_a_folder_is_read_whole_and_older_files_lack_fields(tmp_path):
    (tmp_path / "factual").mkdir()
    old = {"name": "b", "prompt_templates": ["{} is"], "samples": [{"subject": "x", "object": "y"}], "domain": ["x"]}
    written(tmp_path / "factual" / "b.json", old)
    written(tmp_path / "a.json", PUBLISHED)
    assert [each.name for each in read_relations(tmp_path)] == ["company CEO", "b"]


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("prompt_templates", ["The CEO is"], "prompt_templates.*The CEO is"),
        ("prompt_templates", [], "no prompt_templates"),
        ("samples", [], "samples"),
        ("samples", [{"subject": "Bolt", "object": 3}], "sample 1 .*3.*object"),
        ("samples", [{"subject": "Bolt"}], "sample 1 .*None.*object"),
        ("name", 7, "name"),
    ],
)
def test_what_is_amiss_is_named_with_its_file_row_and_field(tmp_path, field, value, told):
    with pytest.raises(BadPrompt, match=told) as error:
        read_relations(written(tmp_path / "odd.json", {**PUBLISHED, field: value}))
    assert "odd.json" in str(error.value)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    for path in (tmp_path / "bad.json", tmp_path / "none.json"):
        with pytest.raises(BadPrompt, match=path.name):
            read_relations(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadPrompt, match=r"no \.json file"):
        read_relations(tmp_path / "empty")
    with pytest.raises(BadPrompt, match="Found a int"):
        read_relations(written(tmp_path / "n.json", 3))


def test_the_shipped_table_has_one_answer_a_subject_and_enough_of_each():
    relations = shipped()
    assert len(relations) >= 7
    for relation in relations:
        subjects = [fact.subject for fact in relation.facts]
        assert len(set(subjects)) == len(subjects) >= 40, relation.name
        assert "{}" in relation.templates[0]


def test_a_relation_can_be_turned_where_it_has_a_form_for_it():
    capital, language = shipped(["country capital", "country language"])
    turned = capital.turned()
    assert Fact("Paris", "France") in turned.facts
    assert turned.turned().facts == capital.facts
    with pytest.raises(BadPrompt, match="no inverse template"):
        language.turned()


def test_an_unknown_relation_is_refused_with_the_nearest():
    with pytest.raises(BadPrompt, match="country capital"):
        shipped(["country capitol"])
