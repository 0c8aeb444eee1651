"""What a Run says, before it is drawn."""

from dataclasses import replace

from micrographia.faces.outline import outline, summary, title


def section(run, name):
    return next(each for each in outline(run) if each.id == name)


def test_the_parts_come_in_reading_order(run):
    ids = [each.id for each in outline(run)]
    assert ids == ["phases", "frequencies", "algorithm", "replacements", "ablations", "measures"]


def test_what_a_newcomer_needs_is_essential(run):
    essential = [each.id for each in outline(run) if each.essential]
    assert essential == ["phases", "frequencies", "algorithm", "replacements"]


def test_the_frequency_table_leads_with_its_known_columns_and_marks_the_keys(run):
    table = section(run, "frequencies").table
    assert list(table.columns)[:3] == ["k", "kind", "logit energy"]
    assert [row[0] for i, row in enumerate(table.rows) if i in table.strong] == run.results["key_frequencies"]


def test_the_published_rule_stands_beside_ours(run):
    assert "published rule" in section(run, "frequencies").lead
    assert "2, 3, 1" in section(run, "frequencies").lead


def test_that_no_frequency_was_found_is_said(run):
    empty = replace(run, results={**run.results, "frequencies": [], "key_frequencies": []})
    said = section(empty, "frequencies")
    assert "No key frequency was found" in said.lead
    assert said.table is None


def test_nested_measures_are_named_by_their_path_and_long_ones_left_to_figures(run):
    measures = {**run.results["measures"], "by_frequency": list(range(56)), "heads": [{"head": 0, "fve": 0.9}]}
    found = replace(run, results={**run.results, "measures": measures})
    labels = [row[0] for row in section(found, "measures").table.rows]
    assert "restricted loss, i all" in labels
    assert "by frequency" not in labels
    assert section(found, "heads").table.rows == [[0, 0.9]]


def test_phases_carry_their_intervals(run):
    phases = {"memorised": 140, "memorised_low": 120, "memorised_high": 160, "settled": None}
    table = section(replace(run, results={"phases": phases}), "phases").table
    assert list(table.columns) == ["what happened", "epoch", "between"]
    assert table.rows[0][1:] == [140, "120 to 160"]
    assert table.rows[1][1:] == [None, ""]


def test_results_that_no_builder_knows_are_still_shown(run):
    results = {
        "members": [{"seed": 0, "epochs": 5}, {"seed": 1, "norm": "none"}],
        "total": {"a": {"b": 1}, "c": 2},
        "note": "x",
    }
    members, total, note = outline(replace(run, results=results))
    assert list(members.table.columns) == ["seed", "epochs", "norm"]
    assert members.table.rows[1] == [1, None, "none"]
    assert total.table.rows == [["a, b", 1], ["c", 2]]
    assert note.lead == "x"


def test_a_run_without_results_has_no_sections_but_a_title(run):
    unfinished = replace(run, results=None, status="running")
    assert outline(unfinished) == []
    assert summary(unfinished) == []
    assert title(unfinished) == "Grokking addition modulo 11"


def test_a_sweep_shows_its_settings_and_leaves_wide_tables_to_the_report(run):
    median = {"median": 550, "low": 500, "high": 600, "never": 0}
    results = {
        "groups": [{"group": "base", "modulus": 59, "networks": 3, "epochs_to_grok": median}],
        "members": [{f"column_{i}": i for i in range(20)}],
    }
    groups, members = outline(replace(run, results=results, preset="sweep", config={}))
    assert list(groups.table.columns) == ["setting", "networks", "epochs to grok"]
    assert not members.essential
    assert title(replace(run, preset="sweep", config={})) == "Grokking: sweep"
