"""A question in, a Run out, on a miniature GPT-2 and on a network of our own."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from micrographia.core.config import Target
from micrographia.core.edits import put
from micrographia.core.effects import effect_map, largest
from micrographia.core.errors import BadConfig, BadPrompt, RunExists, UserError
from micrographia.core.metrics import logit_difference
from micrographia.core.prompts import PairText, from_texts
from micrographia.core.small.trained import load_trained
from micrographia.core.store import load_run, read_metrics, verify
from micrographia.labs.workbench import estimates, words
from micrographia.labs.workbench.config import Attribute, Circuit, Lens, Patch, Prompts, Trace, stored
from micrographia.labs.workbench.run import run
from micrographia.methods.sink import Sink
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
    assert np.asarray(figure.data["z"]).shape == (2, 4, 5)
    assert figure.data["colour"] == "diverging"
    assert figure.data["x_names"][0] == "10 …"  # before it both prompts are alike
    assert figure.data["y_names"] == ["L0H0", "L0H1", "L1H0", "L1H1"]


def test_the_results_say_what_was_asked_and_read(patched):
    question, done = patched
    assert done.config == stored(question)
    assert (done.lab, done.preset, done.status, done.claims) == ("workbench", "patch", "finished", ())
    assert done.results["n_prompts"] == 2
    assert done.results["prompts"][0]["corrupt_tokens"][10] == "Mary"
    assert (done.results["title"], done.results["subtitle"]) == (
        "Patching trained",
        "2 prompt pairs, BOS '<bos>', float32",
    )
    assert set(words.explanation(("denoise", "noise"))) <= set(done.results["explanation"])
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


def test_a_finished_run_read_again_over_other_weights_says_so(trained, tmp_path):
    model, heard = shutil.copytree(trained, tmp_path / "model"), []
    question = Lens(target=target(model), prompt=CLEAN)
    run(question, out=tmp_path / "r")
    run(question, out=tmp_path / "r", resume=True, watch=heard.append)
    assert not heard
    weights, *_ = sorted(model.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    run(question, out=tmp_path / "r", resume=True, watch=heard.append)
    assert [note.level for note in heard] == ["warning"]
    assert "have changed since the Run" in heard[0].text


def test_what_was_mistyped_leaves_no_run_behind(trained, tmp_path):
    with pytest.raises(UserError):
        run(Patch(target=target(trained), prompts=INLINE, sites="L*.zz"), out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_prompts_without_a_gap_are_refused(trained, tmp_path):
    same = Prompts(clean=CLEAN, corrupt=CLEAN, answer="Mary", wrong="John")
    with pytest.raises(UserError, match="no gap"):
        run(Patch(target=target(trained), prompts=same), out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_where_the_gap_means_nothing_no_place_is_explained(trained, tmp_path):
    """Of a question and the same with its prompts swapped, one at least has the gap the wrong way round."""
    sides = (CLEAN, CORRUPT), (CORRUPT, CLEAN)
    asked = [Prompts(clean=one, corrupt=other, answer="Mary", wrong="John") for one, other in sides]
    runs = [run(Patch(target=target(trained), prompts=p), out=tmp_path / f"r{i}") for i, p in enumerate(asked)]
    shown = [words.NOT_EXPLAINED not in done.results["explanation"] for done in runs]
    assert not all(shown)
    for done, explained in zip(runs, shown):
        own = len(done.results["explanation"]) - len(words.explanation(("denoise", "noise")))
        assert own >= 4 if explained else own == 1  # a sentence for each of the four strongest places at least


@pytest.mark.parametrize(("kind", "option"), [(Patch, "--metrics"), (Attribute, "--metric"), (Circuit, "--metric")])
def test_a_missing_wrong_answer_is_asked_for_by_its_option(trained, tmp_path, kind, option):
    prompts = Prompts(clean=CLEAN, corrupt=CORRUPT, answer="Mary")
    with pytest.raises(BadPrompt, match=f"Give --wrong, or choose {option} logit"):
        run(kind(target=target(trained), prompts=prompts), out=tmp_path / "r")


def test_an_interrupted_question_begins_anew(trained, tmp_path):
    question = Patch(target=target(trained), prompts=INLINE, mode="noise")

    def stop(event):
        if getattr(event, "stage", "") == "patching, noise":
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
    assert next(figure for figure in done.figures if figure.group == "In pictures").kind == kind


def test_the_summary_names_the_reference_of_a_replacement(gpt2, tmp_path):
    (tmp_path / "reference.txt").write_text(f"{CLEAN}\n{CORRUPT}\n", encoding="utf-8")
    question = Patch(
        target=target(gpt2), prompts=INLINE, replace="mean", reference=str(tmp_path / "reference.txt"), by="layer"
    )
    done = run(question, out=tmp_path / "r")
    assert "the mean over 2 reference prompts" in done.results["summary"][-1]


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
    assert done.results["summary"][-1] == words.UNCHECKED
    assert done.results["calibration"] == []


def test_edges_become_a_graph_and_are_checked(trained, tmp_path):
    question = Attribute(target=target(trained), prompts=INLINE, method="edges", verify=8, mode="denoise")
    done = run(question, out=tmp_path / "r")
    graph = next(figure for figure in done.figures if figure.kind == "graph")
    assert {"input", "logits"} <= set(graph.data["nodes"])
    row = done.results["calibration"][0]
    assert row["checked"] == 8
    assert row["missed"]["of"] == done.results["method"]["places"] - row["n_top"]  # others were drawn from these
    assert any(sentence.startswith("edges: the estimates") for sentence in done.results["flags"])
    assert len(read_metrics(done.path)["writer"]) == done.results["method"]["places"]


def test_a_circuit_that_leaves_nothing_out_is_compared_with_nothing(trained, tmp_path):
    asked = {"target": target(trained), "prompts": INLINE, "null": 2, "minimal": False}
    whole, small = (run(Circuit(**asked, n=n), out=tmp_path / str(n)).results for n in (500, 1))
    assert whole["circuit"]["members"] == whole["circuit"]["of"]
    assert "smaller n" in whole["summary"][-1]
    assert (
        len(small["summary"]) == len(whole["summary"]) + 3
    )  # alone, at random, random with a way through, with members removed
    assert "the least that 2 draws can show" in " ".join(small["summary"]) or "p = " in " ".join(small["summary"])
    assert "of a gap of" in small["summary"][-1]


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


def test_a_blur_that_does_little_is_reported(gpt2, tmp_path):
    twice = Trace(target=target(gpt2), prompt=f"{CLEAN} Mary", subject="Mary", samples=2, window=2, noise=1e-6)
    done = run(twice, out=tmp_path / "r")
    assert len(done.results["summary"]) == 3  # the blur, that the subject occurs twice, and that the blur does little
    assert "layer 1, it is left out" in next(figure for figure in done.figures if figure.name == "trace").caption
    with pytest.raises(UserError, match="Windows of 8 layers"):
        run(replace(twice, window=8), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_strongest_places_leave_out_what_does_nothing():
    raw = {"denoise": np.array([[0.0, -2.0, 1.0, 1e-9]])}
    only = effect_map("z", ("layer",), (4,), (3, 4, 5, 6), raw, gap=-2.0)
    assert [only.name(flat) for _, flat in largest([only], 10)] == ["L4.z", "L5.z"]
    assert only.shares["denoise"].tolist() == [0.0, 1.0, -0.5, -5e-10]


@pytest.mark.parametrize("units", ["nodes", "edges"])
def test_a_circuit_is_judged_beside_its_ablation_and_random_ones(trained, tmp_path, units):
    question = Circuit(target=target(trained), prompts=INLINE, units=units, n=4, ablation="zero", null=5)
    done = run(question, out=tmp_path / "r")
    found = done.results["circuit"]
    assert (found["members"], found["ablation"]) == (4, "zeros")
    gap = found["score_of_the_model"] - found["score_of_nothing"]
    assert found["faithfulness"] == pytest.approx((found["score_alone"] - found["score_of_nothing"]) / gap, rel=1e-3)
    pictures = [figure for figure in done.figures if figure.group == "In pictures"]
    assert [figure.kind for figure in pictures] == ["graph", "lines", "bars"]
    (table,) = [figure for figure in done.figures if figure.name == "circuit"]
    assert dict(map(tuple, table.data["rows"]))["metric of the circuit alone"] == found["score_alone"]
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
    monkeypatch.setattr(estimates, "MOST_PLACES", 5)
    few = run(question, out=tmp_path / "few").results
    assert few["places"][:5] == every[:5]
    assert len(few["places"]) <= 2 * 5 < len(every)
    for verb in ("restored", "destroyed"):
        largest = max(abs(row[verb]) for row in every)
        assert any(row["part"] in " ".join(few["summary"]) for row in every if abs(row[verb]) == largest)


def test_the_tables_hold_what_the_results_hold(patched):
    _, done = patched
    tables = {figure.name: figure for figure in done.figures if figure.kind == "table"}
    assert tables.keys() == {"answers", "answers-worst", "baselines", "top", "other-metrics", "prompts"}
    assert [name for name, figure in tables.items() if figure.essential] == ["top", "answers", "baselines"]
    assert tables["top"].data["columns"] == ["place", "token", "restored", "change", "SD", "destroyed", "change", "SD"]
    first = done.results["top"][0]
    assert tables["top"].data["rows"][0][2:5] == [first["restored"], first["denoise_change"], first["denoise_sd"]]
    assert tables["baselines"].data["rows"][0][:3] == [
        "logit difference",
        "logits",
        done.results["baselines"][0]["clean"],
    ]
    clean, corrupt = next(figure for figure in done.figures if figure.name == "tokens").data["tokens"]
    assert [i for i, (one, other) in enumerate(zip(clean, corrupt)) if one != other] == [10]
    names = [figure.name for figure in done.figures]
    assert names.index("z") < names.index("top") < names.index("explanation") < names.index("prompts")


def test_a_sink_is_said_once_marked_and_warned_of(trained, gpt2, tmp_path, monkeypatch):
    sink = Sink(torch.tensor([1.0, 144.0]), 1, 1, 5, 0.98, 0.5, 0.1)
    monkeypatch.setattr("micrographia.labs.workbench.prompts.find_sink", lambda model, inputs: sink)
    differ = Prompts(clean=CLEAN, corrupt=CORRUPT.replace("When", "then"), answer="Mary", wrong="John")
    warning = {"zero": words.SINK_REPLACED.format(written="zeros"), "differ": words.SINK_DIFFERS}
    asked = {
        "r": Patch(target=target(trained), prompts=INLINE),
        "zero": Patch(target=target(trained), prompts=INLINE, replace="zero"),
        "differ": Attribute(target=target(gpt2), prompts=differ, sites="L*.z", verify=0, metric="log-prob"),
        "lens": Lens(target=target(trained), prompt=CLEAN),
        "trace": Trace(target=target(trained), prompt=CLEAN, subject="Mary", samples=2, noise=9),
    }
    for name, question in asked.items():
        done = run(question, out=tmp_path / name)
        assert done.results["summary"].count(str(sink)) == 1, name
        assert done.results["sink"]["dimension"] == 5
        axes = [
            label for figure in done.figures for axis in ("x_names", "y_names") for label in figure.data.get(axis, ())
        ]
        marked = any(label.endswith("(sink)") for label in axes)
        assert marked is (name != "r"), name  # where position 0 has no effect it is left out of the picture
        warned = [
            sentence for sentence in done.results["summary"] if sentence.startswith("Warning") and "sink" in sentence
        ]
        assert warned == ([warning[name]] if name in warning else []), name


def test_what_holds_by_construction_is_no_headline(trained, tmp_path):
    done = run(Patch(target=target(trained), prompts=INLINE, by="layer"), out=tmp_path / "whole")
    assert done.results["summary"][-1] == words.CERTAIN
    done = run(Patch(target=target(trained), prompts=INLINE), out=tmp_path / "by-position")
    assert "L0 at 'John / Mary'" not in " ".join(done.results["summary"])
    tokens = [row["token"] for row in done.results["by_position"]]
    assert "10 John / Mary" in tokens
    assert len(set(tokens)) == len(tokens)
    assert next(each for each in done.figures if each.name == "by-position").kind == "table"


def test_entries_of_one_row_of_attention_do_not_stand_in_for_each_other(trained, tmp_path):
    question = Patch(target=target(trained), prompts=INLINE, sites="L0.pattern", by="head,query,key")
    done = run(question, out=tmp_path / "r")
    gates = [sentence for sentence in done.results["explanation"] if "look like" in sentence or "redundant" in sentence]
    assert not [sentence for sentence in gates if sentence.count("'to' (14)") > 1]


def test_edges_are_drawn_in_both_directions(trained, tmp_path):
    question = Attribute(target=target(trained), prompts=INLINE, method="edges", verify=0)
    graphs = [figure for figure in run(question, out=tmp_path / "r").figures if figure.kind == "graph"]
    assert [figure.name for figure in graphs] == ["edges-denoise", "edges-noise"]


def test_places_patched_in_both_directions_are_explained_beside_their_estimate(gpt2, tmp_path):
    explained = []
    for i, swapped in enumerate((False, True)):
        sides = (CORRUPT, CLEAN) if swapped else (CLEAN, CORRUPT)
        prompts = Prompts(clean=sides[0], corrupt=sides[1], answer="Mary", wrong="John")
        question = Attribute(target=target(gpt2), prompts=prompts, sites="L*.resid_pre", metric="log-prob", verify=100)
        done = run(question, out=tmp_path / str(i))
        explained.append(len(done.results["explanation"]) > len(words.explanation(("denoise", "noise"))))
        calibration = {each["mode"]: each for each in done.results["calibration"]}
        assert calibration["denoise"]["missed"]["of"] + calibration["denoise"]["n_top"] == 2 * 5  # before: all the same
        (flags,) = [figure for figure in done.figures if figure.name == "flags"]
        assert flags.data["paragraphs"] == done.results["flags"]
    assert any(explained)
