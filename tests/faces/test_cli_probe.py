"""`micrographia probe`: labelled texts in, a Run out with nulls, and a sentence for every file that will not do."""

import json

import pytest

from micrographia.core.store import load_run
from micrographia.core.store.formats import read_tensors
from micrographia.faces.cli.main import main
from miniature import save_run

NAMES, PLACES = ("Mary", "John", "Anna", "Tom"), ("store", "park")
TEXTS = [
    {"text": f"{name} went to the {place} {middle} gave a {thing}", "label": "one" if name in NAMES[:2] else "other"}
    for name in NAMES
    for place in PLACES
    for middle in ("then", "and then", "and")
    for thing in ("drink", "book")
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "trained")


def written(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def asked(model, file, *words):
    start = ["probe", "--model", str(model), "--text-labels", str(file), "--threads", "1", "--device", "cpu"]
    return main([*start, *words])


def test_a_probe_is_a_run_with_nulls_a_report_and_directions(trained, tmp_path, capsys):
    file, out = written(tmp_path / "labels.jsonl", TEXTS), tmp_path / "r"
    words = ["--sites", "L*.resid_post, embed", "--steps", "40", "--untrained", "--out", str(out), "--json"]
    assert asked(trained, file, *words) == 0
    first = capsys.readouterr().out
    found = json.loads(first)
    assert found["question"] == "probe"
    assert found["classes"] == {"one": 24, "other": 24}
    assert [row["site"] for row in found["sites"]] == ["L0.resid_post", "L1.resid_post", "embed"]
    assert all({"accuracy", "shuffled", "majority", "selectivity", "untrained"} <= row.keys() for row in found["sites"])
    assert found["split"] | {"grouped": None} == {
        "train_groups": 36, "test_groups": 12, "train_rows": 36, "test_rows": 12, "grouped": None,
    }  # fmt: skip
    assert sum(map(sum, found["confusions"])) == 12
    assert (out / "report.html").exists()
    (vector,) = read_tensors(out / "direction.safetensors").values()
    assert float(vector.norm()) == pytest.approx(1)
    assert {figure.name for figure in load_run(out).figures} >= {"accuracy-resid_post", "probes", "confusions"}
    assert main(["verify", str(out)]) == 0
    capsys.readouterr()
    assert main(["probe", "--resume", "--out", str(out), "--json"]) == 0
    assert capsys.readouterr().out == first


def test_in_words_it_fits_80_columns_and_tells_what_to_doubt(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    file = written(tmp_path / "labels.jsonl", [{**row, "label": i % 2} for i, row in enumerate(TEXTS)])
    words = ["--sites", "embed", "--steps", "20", "--at", "0", "--out", str(tmp_path / "r")]
    assert asked(trained, file, *words) == 0
    told = capsys.readouterr().out
    assert "nothing was read" in " ".join(told.split())
    assert "commonest" in told
    assert max(len(line) for line in told.splitlines() if str(tmp_path) not in line) <= 80


def test_columns_and_groups_are_named_and_groups_stay_together(trained, tmp_path, capsys):
    rows = [{"sentence": row["text"], "mood": row["label"], "by": i // 4} for i, row in enumerate(TEXTS)]
    file = written(tmp_path / "labels.jsonl", rows)
    named = ["--columns", "text=sentence, label=mood, group=by", "--sites", "L-1.z", "--hidden", "4"]
    assert asked(trained, file, *named, "--steps", "5", "--json", "--out", str(tmp_path / "r")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["split"] == {
        "train_groups": 9, "test_groups": 3, "train_rows": 36, "test_rows": 12, "grouped": True,
    }  # fmt: skip
    assert not (tmp_path / "r" / "direction.safetensors").exists()


BAD = {
    "one class": ([{**row, "label": "one"} for row in TEXTS], "every label is 'one'"),
    "too few": (TEXTS[::8], "Each needs 4 at least"),
    "no label": ([*TEXTS, {"text": "Mary went"}], "row 49 of"),
    "an empty label": ([{**row, "label": ""} for row in TEXTS], "has no 'label'"),
    "a label that is no class": ([{**row, "label": 0.5} for row in TEXTS], "whole number"),
    "no text": ([{"sentence": "Mary", "label": 1}], "it has sentence, label"),
    "a lone group": ([{**TEXTS[0], "group": 1}, *TEXTS[1:]], "row 2 of"),
    "words": (["Mary went"], "an object with text and label"),
    "too long": ([{"text": "Mary " * 30, "label": i % 2} for i in range(20)], "at most 24"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_will_not_do_is_refused_before_a_run_is_begun(name, trained, tmp_path, capsys):
    rows, says = BAD[name]
    file = written(tmp_path / "labels.jsonl", rows)
    assert asked(trained, file, "--sites", "embed", "--out", str(tmp_path / "r"), "--json") == 1
    said = capsys.readouterr()
    assert says in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--at", "middle"], "'middle'"),
        (["--test-share", "1"], "--test-share"),
        (["--hidden", "0"], "--hidden"),
        (["--columns", "answer=x"], "text=, label= or group="),
        (["--sites", ","], "--sites"),
        (["--memory", "0"], "--memory"),
    ],
)
def test_wrong_choices_are_wrong_usage(words, says, trained, tmp_path, capsys):
    assert asked(trained, written(tmp_path / "labels.jsonl", TEXTS), *words) == 2
    assert says in capsys.readouterr().err
