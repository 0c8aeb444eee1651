"""What a Run shows, section by section, before it is drawn."""

from dataclasses import replace

from micrographia.core import figures
from micrographia.faces.sections import UNGROUPED, sections, subtitle, summary, title


def titles(run):
    return [each.title for each in sections(run)]


def cells(section):
    (figure,) = section.figures
    return figure.data["rows"]


def test_figures_stand_in_their_groups_in_the_order_in_which_these_first_come(run):
    assert titles(run) == ["The run", UNGROUPED, "The circuit", "Widget"]
    assert [figure.name for figure in sections(run)[2].figures] == ["spectrum", "neurons"]
    assert sum(len(each.figures) for each in sections(run)) == len(run.figures)


def test_a_section_is_essential_where_one_of_its_figures_is(run):
    assert [each.essential for each in sections(run)] == [True, True, True, False]


def test_a_run_without_any_table_shows_its_results_after_the_pictures_that_open_it(run):
    pictures = tuple(figure for figure in run.figures if figure.kind != "table")
    old = replace(run, figures=pictures)
    assert titles(old) == ["The run", "Losses", "Heads", UNGROUPED, "The circuit", "Widget"]
    losses, heads = sections(old)[1:3]
    assert cells(losses) == [["test", "1.9e-5"], ["restricted, i", "1.1e-6"], ["gini W_E", "–"], ["by k", "56 values"]]
    assert heads.figures[0].data["columns"] == ["kind", "head", "fve"]
    assert cells(heads) == [["clock", 0, 0.9], ["clock", 1, 0.97]]


def of_results(run, **results):
    return sections(replace(run, results=results, figures=()))


def test_results_of_any_form_are_shown(run):
    long = "A sentence that is far too long for a cell."
    members, note, lines = of_results(
        run,
        members=[{"seed": 0, "epochs": 5}, {"seed": 1, "norm": "none", "says": long}],
        note="x",
        lines=["a = 1", "  b = 2"],
        nothing=[],
        summary="left out",
    )
    assert members.figures[0].data["columns"] == ["norm", "seed", "epochs"]
    assert cells(members) == [[None, 0, 5], ["none", 1, None]]
    assert members.figures[0].data["notes"] == ["", long]
    assert note.figures[0].data["paragraphs"] == ["x"]
    assert lines.figures[0].data["preformatted"] is True


def test_records_within_a_mapping_are_a_table_of_their_own(run):
    (found,) = of_results(run, measures={"loss": 0.5, "heads": [{"head": 0}]})[:1]
    assert cells(found) == [["loss", "0.5"]]
    assert titles(replace(run, results={"measures": {"heads": [{"head": 0}]}}, figures=())) == ["Heads"]


def test_wide_tables_are_left_to_the_report(run):
    (wide,) = of_results(run, members=[{f"column_{i}": i for i in range(20)}])
    assert not wide.essential


def test_a_table_among_the_figures_means_that_the_lab_shows_all_itself(run):
    shown = (figures.table("t", "T", [[1]], columns=["a"]),)
    assert titles(replace(run, figures=shown)) == [UNGROUPED]


def test_a_run_has_a_title_of_its_own_or_that_of_its_lab_and_preset(run):
    assert (title(run), subtitle(run)) == ("Addition modulo 11", "one network")
    unfinished = replace(run, results=None, status="running", figures=())
    assert (title(unfinished), subtitle(unfinished)) == ("Fake", "preset quick")
    assert (sections(unfinished), summary(unfinished)) == ([], [])
