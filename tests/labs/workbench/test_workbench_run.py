"""A question in, a Run out, on a miniature GPT-2 and on a network of our own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from micrographia.core.edits import put
from micrographia.core.errors import BadConfig, BadPrompt, RunExists, UserError
from micrographia.core.metrics import kl, logit, logit_difference, prob
from micrographia.core.prompts import PairText, from_texts
from micrographia.core.small.trained import load_trained
from micrographia.core.store import load_run, read_metrics, verify
from micrographia.labs.workbench import edges, words
from micrographia.labs.workbench.config import Attribute, Circuit, Patch, Prompts, Target, Trace, stored
from micrographia.labs.workbench.effects import grid, strongest
from micrographia.labs.workbench.prompts import Ends
from micrographia.labs.workbench.run import run
from micrographia.labs.workbench.trace import positions_of
from miniature import CLEAN, CORRUPT, pairs_file

INLINE = Prompts(clean=CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John")


def target(folder):
    return Target(model=str(folder), device="cpu", threads=1)


@pytest.fixture(scope="module")
def patched(trained, tmp_path_factory):
    """Two pairs, every head at every position, in both directions, with a second metric."""
    folder = tmp_path_factory.mktemp("patched")
    prompts = Prompts(prompts=str(pairs_file(folder / "pairs.jsonl")))
    question = Patch(target=target(trained), prompts=prompts, sites="L*.z", by="head,pos", metrics="logit-diff,rank")
    return question, run(question, out=folder / "run")


def test_a_patch_in_the_results_is_the_patch_made_by_hand(patched, trained):
    _, done = patched
    model = load_trained(trained)
    other = CLEAN.replace("Mary", "Anna").replace("John", "Tom"), CORRUPT.replace("Mary", "Anna").replace("John", "Tom")
    pairs = from_texts(model, [PairText(CLEAN, CORRUPT, "Mary", "John"), PairText(*other, "Anna", "Tom")])
    metric = logit_difference(pairs.answer, pairs.wrong)
    rows = torch.arange(2)
    clean = model.run(pairs.clean, keep="L1.z")
    ends = [metric.of_vocabulary(model.run(side).logits, rows).mean().item() for side in (pairs.clean, pairs.corrupt)]
    edit = put("L1.z", clean.cache["L1.z"][:, 14, 1], pos=14, head=1)
    value = metric.of_vocabulary(model.run(pairs.corrupt, edits=[edit]).logits, rows)
    (row,) = [row for row in done.results["places"] if row["place"] == "L1.z[pos=14, head=1]"]
    assert row["denoise_change"] == pytest.approx(value.mean().item() - ends[1], abs=1e-4)
    assert row["restored"] == pytest.approx((value.mean().item() - ends[1]) / (ends[0] - ends[1]), rel=1e-3)
    spread = (value - metric.of_vocabulary(model.run(pairs.corrupt).logits, rows)).std().item()
    assert row["denoise_sd"] == pytest.approx(spread, abs=1e-4)
    baseline = done.results["baselines"][0]
    assert (baseline["clean"], baseline["corrupt"]) == pytest.approx(tuple(ends), abs=1e-4)


def test_every_place_is_in_the_table(patched):
    _, done = patched
    table = read_metrics(done.path)
    assert len(table["kind"]) == 2 * 2 * 15
    assert set(table["kind"]) == {"z"}
    at = np.flatnonzero((table["layer"] == 1) & (table["head"] == 1) & (table["pos"] == 14))
    (row,) = [row for row in done.results["places"] if row["place"] == "L1.z[pos=14, head=1]"]
    assert table["denoise_change"][at].tolist() == pytest.approx([row["denoise_change"]])
    assert "rank noise_change" in table


def test_the_picture_holds_both_directions_with_tokens_along_the_axis(patched):
    _, done = patched
    (figure,) = [figure for figure in done.figures if figure.kind == "heatmap"]
    assert np.asarray(figure.data["z"]).shape == (2, 4, 15)
    assert figure.data["colour"] == "diverging"
    assert figure.data["x_names"][0] == "0 <bos>"
    assert figure.data["x_names"][10] == "10 …"
    assert figure.data["y_names"] == ["0.0", "0.1", "1.0", "1.1"]


def test_the_results_say_what_was_asked_and_read(patched):
    question, done = patched
    assert done.config == stored(question)
    assert (done.lab, done.preset, done.status, done.claims) == ("workbench", "patch", "finished", ())
    assert done.results["n_prompts"] == 2
    assert done.results["prompts"][0]["corrupt_tokens"][10] == "Mary"
    assert "2 prompt pairs" in done.results["summary"][0]
    assert any("Noising" in sentence for sentence in done.results["explanation"])
    assert {"rank, denoise", "rank, noise"} <= done.results["other_metrics"][0].keys()
    assert not verify(done.path)


def test_a_finished_run_is_read_again_and_another_question_is_refused(patched):
    question, done = patched
    with pytest.raises(RunExists):
        run(question, out=done.path)
    before = (done.path / "results.json").stat().st_mtime_ns
    assert run(question, out=done.path, resume=True).results == done.results
    assert (done.path / "results.json").stat().st_mtime_ns == before
    with pytest.raises(BadConfig, match="another config"):
        run(replace(question, sites="L0.z"), out=done.path, resume=True)


def test_what_was_mistyped_leaves_no_run_behind(trained, tmp_path):
    with pytest.raises(UserError):
        run(Patch(target=target(trained), prompts=INLINE, sites="L*.zz"), out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_prompts_without_a_gap_are_refused(trained, tmp_path):
    same = Prompts(clean=CLEAN, corrupt=CLEAN, answer="Mary", wrong="John")
    with pytest.raises(UserError, match="no gap"):
        run(Patch(target=target(trained), prompts=same), out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


ONE = torch.zeros(1, dtype=torch.long)
METRICS = {
    "difference": logit_difference(ONE, ONE),
    "logit": logit(ONE),
    "prob": prob(ONE),
    "kl": kl(torch.zeros(1, 2)),
}


def ends_of(metric, clean, corrupt):
    return Ends(METRICS[metric], torch.tensor([clean]), torch.tensor([corrupt]))


@pytest.mark.parametrize(
    ("metric", "clean", "corrupt", "says"),
    [("difference", 1.0, 2.0, ["do not stand above"]), ("difference", -1.0, -2.0, ["prefers the wrong answer"]),
     ("difference", -2.0, -1.95, ["do not stand above", "prefers the wrong answer", "tiny"]),
     ("logit", -3.0, -3.05, ["tiny, below 0.1 logits"]), ("prob", 0.012, 0.005, ["tiny, below 0.01 probability"]),
     ("kl", 0.5, 0.0, ["do not stand below"])],
)  # fmt: skip
def test_a_gap_that_means_nothing_is_warned_of(metric, clean, corrupt, says):
    ends = ends_of(metric, clean, corrupt)
    found = words.doubts(ends)
    assert len(found) == len(says)
    assert all(text in told for text, told in zip(says, found))
    assert words.opening(ends, 1)[1].startswith("Warning")


@pytest.mark.parametrize(
    ("metric", "clean", "corrupt"),
    [("difference", 2.0, -1.0), ("logit", -3.0, -5.0), ("prob", 0.4, 0.1), ("kl", 0.0, 2.0)],
)
def test_a_gap_that_means_something_is_not(metric, clean, corrupt):
    assert words.opening(ends_of(metric, clean, corrupt), 1) == [words.baselines(ends_of(metric, clean, corrupt), 1)]


def test_where_the_gap_means_nothing_no_place_is_explained(trained, tmp_path):
    """Of a question and the same with its prompts swapped, one at least has the gap the wrong way round."""
    sides = (CLEAN, CORRUPT), (CORRUPT, CLEAN)
    asked = [Prompts(clean=one, corrupt=other, answer="Mary", wrong="John") for one, other in sides]
    runs = [run(Patch(target=target(trained), prompts=p), out=tmp_path / f"r{i}") for i, p in enumerate(asked)]
    warned = [any(said.startswith("Warning") for said in done.results["summary"]) for done in runs]
    assert any(warned)
    for done, bad in zip(runs, warned):
        assert any("of the gap, noising it" in said for said in done.results["explanation"]) is not bad
        assert (words.NOT_EXPLAINED in done.results["explanation"]) is bad


@pytest.mark.parametrize(("kind", "option"), [(Patch, "--metrics"), (Attribute, "--metric"), (Circuit, "--metric")])
def test_a_missing_wrong_answer_is_asked_for_by_its_option(trained, tmp_path, kind, option):
    prompts = Prompts(clean=CLEAN, corrupt=CORRUPT, answer="Mary")
    with pytest.raises(BadPrompt, match=f"Give --wrong, or choose {option} logit"):
        run(kind(target=target(trained), prompts=prompts), out=tmp_path / "r")


def test_an_interrupted_question_begins_anew(trained, tmp_path):
    question = Patch(target=target(trained), prompts=INLINE, mode="noise")

    def stop(event):
        if getattr(event, "stage", "") == "patching":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(question, out=tmp_path / "r", watch=stop)
    assert load_run(tmp_path / "r").status == "interrupted"
    assert run(question, out=tmp_path / "r", resume=True).status == "finished"


@pytest.mark.parametrize(
    ("sites", "by", "kind"),
    [("L*.mlp_out", "layer", "bars"), ("L0.resid_pre", "pos", "tokens"), ("L0.neurons", "unit", "bars"),
     ("L*.pattern", "head", "heatmap"), ("L0.pattern", "head,query,key", "attention")],
)  # fmt: skip
def test_every_grid_has_its_picture(trained, tmp_path, sites, by, kind):
    question = Patch(target=target(trained), prompts=INLINE, sites=sites, by=by, mode="denoise")
    done = run(question, out=tmp_path / "r")
    assert done.figures[0].kind == kind


def test_replacing_by_a_reference_is_said(gpt2, tmp_path):
    (tmp_path / "reference.txt").write_text(f"{CLEAN}\n{CORRUPT}\n", encoding="utf-8")
    question = Patch(
        target=target(gpt2), prompts=INLINE, replace="mean", reference=str(tmp_path / "reference.txt"), by="layer"
    )
    done = run(question, out=tmp_path / "r")
    assert any("mean" in sentence and "defines what was asked" in sentence for sentence in done.results["summary"])


def test_attribution_is_checked_exactly(trained, tmp_path):
    question = Attribute(target=target(trained), prompts=INLINE, sites="L*.z, L*.mlp_out", verify=80, mode="denoise")
    done = run(question, out=tmp_path / "r")
    rows = {row["kind"]: row for row in done.results["calibration"]}
    assert rows.keys() == {"z", "mlp_out"}
    assert rows["mlp_out"]["missed"]["of"] <= 10
    assert rows["z"]["pearson"]["low"] is None  # one pair: no interval
    check = next(figure for figure in done.figures if figure.kind == "scatter")
    exact = dict(zip(check.data["names"], check.data["x"]))
    patch = Patch(target=target(trained), prompts=INLINE, sites="L*.z", by="pos,head", mode="denoise")
    by_patching = {row["place"]: row for row in run(patch, out=tmp_path / "p").results["places"]}
    shared = exact.keys() & by_patching.keys()
    assert shared
    for name in shared:
        assert exact[name] == pytest.approx(by_patching[name]["denoise_change"], abs=1e-4)
    assert any(figure.kind == "heatmap" for figure in done.figures)


def test_without_a_check_the_summary_says_so(gpt2, tmp_path):
    question = Attribute(target=target(gpt2), prompts=INLINE, sites="L*.neurons", verify=0, method="relp")
    done = run(question, out=tmp_path / "r")
    assert "Nothing was checked" in done.results["summary"][-1]
    assert done.results["calibration"] == []


def test_edges_become_a_graph_and_are_checked(trained, tmp_path):
    question = Attribute(target=target(trained), prompts=INLINE, method="edges", verify=8, mode="denoise")
    done = run(question, out=tmp_path / "r")
    graph = next(figure for figure in done.figures if figure.kind == "graph")
    assert {"input", "logits"} <= set(graph.data["nodes"])
    assert done.results["calibration"][0]["checked"] == 8
    assert len(read_metrics(done.path)["writer"]) == done.results["method"]["places"]


def test_a_circuit_that_leaves_nothing_out_says_that_it_is_the_whole_model(trained, tmp_path):
    asked = {"target": target(trained), "prompts": INLINE, "null": 2, "minimal": False}
    told = run(Circuit(**asked, n=500), out=tmp_path / "n").results["summary"][-1]
    assert "is the whole model" in told
    assert "smaller n" in told
    small = run(Circuit(**asked, n=1), out=tmp_path / "one").results["summary"]
    assert not any("whole model" in sentence for sentence in small)


def test_a_trace_follows_the_models_own_answer(gpt2, tmp_path):
    question = Trace(target=target(gpt2), prompt=CLEAN, subject="Mary and", samples=3, window=2)
    done = run(question, out=tmp_path / "r")
    trace = done.results["trace"]
    assert trace["answer"]
    assert 0 <= trace["clean"] <= 1
    assert done.results["subject_positions"] == [
        at for at, token in enumerate(done.results["tokens"]) if token in ("Mary", "and")
    ]
    figures = {figure.name: figure for figure in done.figures}
    assert np.asarray(figures["trace"].data["z"]).shape[0] == 3
    assert np.asarray(figures["severed"].data["z"]).shape[0] == 2
    assert any("*" in name for name in figures["trace"].data["y_names"])


def test_a_trace_says_what_there_is_to_say_of_its_blur(gpt2, tmp_path):
    twice = Trace(target=target(gpt2), prompt=f"{CLEAN} Mary", subject="Mary", samples=2, window=8, noise=1e-6)
    done = run(twice, out=tmp_path / "r")
    assert any("stands in the prompt" in sentence for sentence in done.results["summary"])
    assert "there is little to bring back" in done.results["summary"][-1]
    assert "A window spans all layers" in next(f for f in done.figures if f.name == "trace").caption


def test_a_subject_is_found_where_it_stands_first_also_in_parts_of_words():
    assert positions_of("Space Needle", "The Space Needle is", ["<s>", "The", " Sp", "ace", " Need", "le", " is"]) == [
        2,
        3,
        4,
        5,
    ]
    assert positions_of("a", "b a a", ["b", "a", "a"]) == [1]


def test_the_strongest_places_leave_out_what_does_nothing():
    raw = {"denoise": np.array([[0.0, -2.0, 1.0, 1e-9]])}
    only = grid("z", ("layer",), (4,), (3, 4, 5, 6), raw, gap=-2.0)
    assert [only.name(flat) for _, flat in strongest([only], 10)] == ["L4.z", "L5.z"]
    assert only.shares["denoise"].tolist() == [0.0, 1.0, -0.5, -5e-10]


@pytest.mark.parametrize("units", ["nodes", "edges"])
def test_a_circuit_is_judged_beside_its_ablation_and_random_ones(trained, tmp_path, units):
    question = Circuit(target=target(trained), prompts=INLINE, units=units, n=4, ablation="zero", null=5)
    done = run(question, out=tmp_path / "r")
    found = done.results["circuit"]
    assert (found["members"], found["ablation"]) == (4, "zeros")
    gap = found["score_of_the_model"] - found["score_of_nothing"]
    assert found["faithfulness"] == pytest.approx((found["score_alone"] - found["score_of_nothing"]) / gap, rel=1e-3)
    assert "zeros" in " ".join(done.results["summary"])
    assert [figure.kind for figure in done.figures] == ["graph", "lines", "bars"]
    assert sum(read_metrics(done.path)["chosen"]) == 4


def test_a_greedy_circuit_hangs_together(trained, tmp_path):
    question = Circuit(
        target=target(trained), prompts=INLINE, units="edges", select="greedy", n=3, minimal=False, null=2
    )
    done = run(question, out=tmp_path / "r")
    assert any(row["member"].endswith("-> logits") for row in done.results["members"])


def test_a_revision_of_what_lies_on_this_machine_is_refused(trained, gpt2, tmp_path):
    for folder in (trained, gpt2):
        question = Patch(target=replace(target(folder), revision="main"), prompts=INLINE)
        with pytest.raises(BadConfig, match=r"revision 'main' of .* on this machine.*leave it out"):
            run(question, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_of_many_edges_the_strongest_of_each_mode_are_written_out(trained, tmp_path, monkeypatch):
    question = Attribute(target=target(trained), prompts=INLINE, method="edges", verify=0)
    every = run(question, out=tmp_path / "every").results["places"]
    monkeypatch.setattr(edges, "MOST_PLACES", 5)
    few = run(question, out=tmp_path / "few").results
    assert few["places"] == every[:5]
    for verb in ("restored", "destroyed"):
        largest = max(abs(row[verb]) for row in every)
        assert any(f"{verb} {row[verb]:.1%}" in " ".join(few["summary"]) for row in every if abs(row[verb]) == largest)
