"""Ablate, steer and generate as Runs: tables, nulls, and the direction as a file that can be added again."""

import pytest

from micrographia.core.config import Target
from micrographia.core.errors import BadConfig, BadPrompt, UnknownSite, UserError
from micrographia.core.store.formats import read_tensors
from micrographia.labs.workbench.config import Ablate, Around, Generate, Heads, Steer
from micrographia.labs.workbench.run import run
from miniature import CLEAN, CORRUPT


def target(model):
    return Target(model=str(model), device="cpu", threads=1)


def test_an_ablation_ranks_places_with_intervals_and_colours_texts(gpt2, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join([CLEAN, CORRUPT, "When Anna and Tom went to the park"]), encoding="utf-8")
    done = run(Ablate(target=target(gpt2), texts=str(file), replace="zero"), out=tmp_path / "r")
    rows = done.results["places"]
    assert len(rows) == 2 * 3 + 2
    assert [abs(row["change"]) for row in rows] == sorted((abs(row["change"]) for row in rows), reverse=True)
    assert all(row["interval"]["low"] <= row["change"] <= row["interval"]["high"] for row in rows)
    heads = [row for row in rows if "H" in row["part"]]
    null = next(null for null in done.results["at_random"] if null["n"] == 6)
    assert null["range"]["low"] < null["median"] < null["range"]["high"]
    figures = {figure.name: figure for figure in done.figures}
    assert figures["z"].data["z"].shape == (1, 2, 3)
    worst = max(heads, key=lambda row: row["change"])
    assert worst["part"] in figures["worst"].title
    costs = [sum(row) / len(row) for row in figures["worst"].data["values"]]
    assert sum(costs) / 3 == pytest.approx(worst["change"], abs=1e-5)
    assert [len(row) for row in figures["worst"].data["tokens"]].count(7) == 1  # the short text, less its first token


def test_a_direction_of_a_run_can_be_added_when_generating(gpt2, tmp_path):
    asked = Steer(
        target=target(gpt2), positive="Mary went to the store", negative="John gave a book", prompt="When Anna",
        strength="-2, 3", words="Mary|John", null=4, tokens=4,
    )  # fmt: skip
    done = run(asked, out=tmp_path / "steer")
    assert done.results["site"] == "L1.resid_pre"
    assert [row["strength"] for row in done.results["said"]] == [0, -2, 3]
    odds = done.results["odds"]
    assert len(odds) == 2 * 3
    assert all(row["random_low"] <= row["random_mean"] <= row["random_high"] for row in odds)
    assert all(row["probability"] == pytest.approx(row["random_mean"]) for row in odds if row["strength"] == 0)
    vector = done.path / "vector.safetensors"
    assert float(read_tensors(vector)["vector"].norm()) == pytest.approx(done.results["norm"], rel=1e-5)
    typed = f"add 3 '{vector}' L1.resid_pre"
    again = run(Generate(target=target(gpt2), prompt="When Anna", edits=typed, tokens=4), out=tmp_path / "generate")
    said = {row["how"]: row["text"] for row in again.results["said"]}
    assert said == {
        "as it is": done.results["said"][0]["text"],
        typed: done.results["said"][2]["text"],
    }


def test_what_makes_no_sense_is_refused_before_a_run_begins(gpt2, trained, tmp_path):
    steer = {"positive": "Mary", "negative": "John", "prompt": "When Anna"}
    for error, says, asked in (
        (BadConfig, "numbers with commas", lambda: Steer(target=target(gpt2), strength="much", **steer)),
        (BadConfig, "no words", lambda: Steer(target=target(gpt2), null=3, **steer)),
        (UnknownSite, "several places", lambda: run(
            Steer(target=target(gpt2), site="L*.z", **steer), out=tmp_path / "a")),
        (BadConfig, "without --answer", lambda: Ablate(target=target(gpt2), texts=CLEAN, wrong="Mary")),
        (BadPrompt, "cannot be read", lambda: run(Ablate(target=target(gpt2), texts="no.txt"), out=tmp_path / "b")),
        (BadConfig, "shorter --span", lambda: run(Heads(target=target(gpt2), span=40), out=tmp_path / "c")),
        (UserError, "chat", lambda: run(
            Generate(target=target(gpt2), prompt="Mary", around=Around(chat=True)), out=tmp_path / "d")),
    ):  # fmt: skip
        with pytest.raises(error, match=says):
            asked()
    assert not [path for path in tmp_path.iterdir() if (path / "run.json").exists()]
