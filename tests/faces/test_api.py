"""The functions of the facade, as a newcomer calls them: results that fit a screen, and a sentence for each mistake."""

import pytest
import torch

import micrographia as mg
from micrographia.core.errors import BadConfig, BadPrompt, MicrographiaError, UnknownSite, UserError
from miniature import CLEAN, CORRUPT, pairs_file, save_run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mg.load(save_run(tmp_path_factory.mktemp("runs") / "trained"))


@pytest.fixture(scope="module")
def pairs(model):
    return mg.Pairs(model, clean=CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John")


@pytest.fixture(scope="module")
def estimate(model, pairs):
    return mg.attribute(model, pairs, "L*.z, L*.mlp_out", method="ig", steps=2)


RESULTS = {
    "patch": lambda model, pairs, estimate: mg.patch(model, pairs, "L*.z", by="head, pos", metric="logit_diff"),
    "attribute": lambda model, pairs, estimate: estimate,
    "check": lambda model, pairs, estimate: mg.check(model, pairs, estimate, budget=8),
    "trace": lambda model, pairs, estimate: mg.trace(model, CLEAN, "Mary", answer="Mary", n_samples=2),
    "circuit": lambda model, pairs, estimate: mg.circuit(model, pairs),
    "lens": lambda model, pairs, estimate: mg.lens(model, CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John"),
    "ablate": lambda model, pairs, estimate: mg.ablate(model, [CLEAN, CORRUPT], "L*.z, L*.mlp_out"),
    "probe": lambda model, pairs, estimate: mg.probe(
        model, [CLEAN, CORRUPT] * 8, [0, 1] * 8, "L*.z", groups=[*range(16)], steps=5
    ),
    "heads": lambda model, pairs, estimate: mg.head_scores(model, span=6),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_prints_itself_shortly_and_shows_its_pictures(model, pairs, estimate, name):
    found = RESULTS[name](model, pairs, estimate)
    assert len(repr(found)) < 200
    assert "\n" not in repr(found)
    assert "tensor(" not in str(found)
    assert len(str(found).splitlines()) < 40
    page = mg.show(found)._repr_html_()
    assert "<iframe" in found._repr_html_()
    assert all(f"figure-{figure.name}" in page for figure in found.figures())


def test_prompts_may_begin_otherwise_have_shots_and_sets_of_answers(model):
    asked = {"clean": CLEAN, "corrupt": CORRUPT, "wrong": "John"}
    several = mg.Pairs(model, **asked, answer=["Mary", "Anna"], bos=False, shots=["Tom went"])
    assert several.answer.tolist() == [[3, 5]]
    assert model.to_str_tokens(several.clean[0])[:4] == ["Tom", "went", "When", "Mary"]
    assert several.answer.tolist() == mg.Pairs(model, **asked, answer="Mary|Anna").answer.tolist()
    assert len(mg.lens(model, "Mary went to", bos=False).positions) == 3
    assert mg.lens(model, "Mary went to", answer="Mary|Anna").answers == ["Mary|Anna"]
    assert mg.trace(model, "Mary went to", "Mary", answer="Tom|Anna", bos=False, n_samples=1).subject == (0,)
    with pytest.raises(BadPrompt, match="no chat template"):
        mg.Pairs(model, **asked, answer="Mary", chat=True)


def test_what_stands_around_a_prompt_stands_around_that_of_the_lens_and_the_trace(model):
    plain, after = (mg.lens(model, "Mary went to", bos=False, shots=shots) for shots in ((), "Mary went to the store"))
    n = len(after.positions)
    assert n == 8
    assert [each.split()[1] for each in after.positions[-3:]] == [each.split()[1] for each in plain.positions]
    traced = mg.trace(
        model, "Mary went to", "Mary", answer="Tom", shots="Mary went to the store", bos=False, n_samples=1
    )
    assert traced.subject == (n - 3,)  # that of the prompt, not that of the example
    for ask in (lambda: mg.lens(model, CLEAN, chat=True), lambda: mg.trace(model, CLEAN, "Mary", chat=True)):
        with pytest.raises(BadPrompt, match="no chat template"):
            ask()


def test_pairs_are_read_from_a_file_and_their_answers_checked(model, tmp_path):
    file = pairs_file(tmp_path / "pairs.jsonl")
    found = mg.read_pairs(model, file, limit=1)
    assert (len(found), found.answer.tolist()) == (1, [3])
    assert len(mg.read_pairs(model, file, columns={"answer": "wrong", "wrong": "answer"}, skip_misfits=True)) == 2
    checked = mg.check_answers(model, found)
    assert str(checked).splitlines() == [repr(checked), *checked.sentences()]
    assert [figure.name for figure in checked.figures()] == ["answers"]
    assert "clean prompts, median p" in repr(checked)


def test_a_run_is_a_model_by_itself_or_by_its_path(tmp_path):
    run = mg.open_run(save_run(tmp_path / "trained"))
    tokens = torch.tensor([[0, 2, 3]])
    ours, same = (mg.load(each).run(tokens).logits for each in (run, run.path))
    assert torch.equal(ours, same)


def test_the_lens_prints_each_side_by_itself_the_largest_first(model):
    found = mg.lens(model, CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John")
    lines = str(found).splitlines()[3:]
    assert lines
    assert all(line.strip().startswith(f"{row['part']} ") for line, row in zip(lines, found.writers()))


def test_path_patching_takes_names_as_one_text_or_several_and_gives_effects(model, pairs):
    found = mg.path_patch(model, pairs, "L0.z[0], L0.z[1], L0.mlp_out", "L1.q[1]")
    again = mg.path_patch(model, pairs, ["L0.z[0]", "L0.z[1]", "L0.mlp_out"], ["L1.q[1]"])
    assert str(found) == str(again)
    assert repr(found) == "Effects(denoise, exact, 3 places of 2 sites, 1 prompt)"
    assert {str(place) for place, _ in found.top()} == {"L0.z[head=0]", "L0.z[head=1]", "L0.mlp_out"}
    assert found.table()["kind"] == ["z", "z", "mlp_out"]
    assert found.table()["head"].tolist() == [0, 1, -1]
    assert {figure.kind for figure in found.figures()} <= {"heatmap", "bars", "tokens"}


def test_paths_from_patterns_are_those_from_each_and_to_patterns_those_to_all(model, pairs):
    n_heads = model.shape.n_heads
    every = mg.path_patch(model, pairs, "L*.z", "L1.q", by="head")
    each = mg.path_patch(
        model,
        pairs,
        [f"L{i}.z[{head}]" for i in (1, 0) for head in range(n_heads)],
        [f"L1.q[{i}]" for i in range(n_heads)],
    )
    for site in every.scores:
        torch.testing.assert_close(every[site], each[site])
    assert not each.taken
    assert float(every["L0.z"].abs().max()) > 0
    one = mg.path_patch(model, pairs, "L0.z[pos=1, head=1]", "logits")
    assert [str(place) for place, _ in one.top()] == ["L0.z[pos=1, head=1]"]
    assert len(one.table()["pos"]) == 1


MISTAKES = {
    "model": (UserError, "type int", lambda model, pairs: mg.load(3)),
    "no such model": (MicrographiaError, "no such folder", lambda model, pairs: mg.load("/nowhere/at-all")),
    "numbers of texts": (BadPrompt, "2, 1, 1, 1", lambda model, pairs: mg.Pairs(model, [CLEAN] * 2, CORRUPT, "a", "b")),
    "long answer": (BadPrompt, "one token", lambda model, pairs: mg.Pairs(model, CLEAN, CORRUPT, "Mary John")),
    "site": (UnknownSite, "zz", lambda model, pairs: mg.patch(model, pairs, "L*.zz")),
    "metric": (UserError, "logit-diff", lambda model, pairs: mg.patch(model, pairs, "L*.z", metric="logit-dif")),
    "mode": (UserError, "denoise, noise", lambda model, pairs: mg.patch(model, pairs, "L*.z", mode="both")),
    "replace": (UserError, "other, zero", lambda model, pairs: mg.patch(model, pairs, "L*.z", replace="ones")),
    "axis": (BadConfig, "heads", lambda model, pairs: mg.patch(model, pairs, "L*.z", by="heads")),
    "estimator": (UserError, "atp-star", lambda model, pairs: mg.attribute(model, pairs, "L*.z", method="foo")),
    "choice": (
        UserError,
        r"no choice steps. It has checkpoints, positions, edits. Methods with steps: ig, ig-act",
        lambda model, pairs: mg.attribute(model, pairs, "L*.z", steps=3),
    ),
    "exact": (UserError, "attribute", lambda model, pairs: mg.check(model, pairs, mg.patch(model, pairs, "L*.z"))),
    "node": (UnknownSite, "foo", lambda model, pairs: mg.path_patch(model, pairs, "foo", "logits")),
    "receiver": (
        UserError,
        r"L1\.z, which reads nothing.*L1\.q\[0\]",
        lambda m, pairs: mg.path_patch(m, pairs, "L0.z", "L1.z"),
    ),
    "no receiver": (UserError, "no receiver", lambda model, pairs: mg.path_patch(model, pairs, "L0.z", [])),
    "sender twice": (
        UserError,
        "no place twice",
        lambda m, pairs: mg.path_patch(m, pairs, "L0.z[0] L0.z[0]", "logits"),
    ),
    "sender of two": (UserError, "one by one", lambda m, pairs: mg.path_patch(m, pairs, "L0.z[head=(0, 1)]", "logits")),
    "best": (UserError, "1 token at least", lambda model, pairs: mg.lens(model, CLEAN, best=0)),
    "heads": (UserError, "-1 heads", lambda model, pairs: mg.lens(model, CLEAN, n_heads=-1)),
    "subject": (BadPrompt, "Paris", lambda model, pairs: mg.trace(model, CLEAN, "Paris")),
    "state": (UserError, "resid_post", lambda model, pairs: mg.trace(model, CLEAN, "Mary", state="z")),
    "units": (UserError, "nodes, edges", lambda model, pairs: mg.circuit(model, pairs, units="heads")),
    "faithful": (UserError, "share of 1", lambda model, pairs: mg.circuit(model, pairs, faithful=3)),
    "answer": (BadPrompt, "Paris", lambda model, pairs: mg.lens(model, CLEAN, answer="Paris")),
    "name": (BadConfig, "ioi.*patch", lambda model, pairs: mg.run("nope")),
    "preset": (BadConfig, "tiny", lambda model, pairs: mg.run("ioi", preset="nope")),
    "prompt of another type": (BadPrompt, "None", lambda model, pairs: mg.Pairs(model, None, CORRUPT, "Mary")),
    "text of another type": (BadPrompt, "Found 3 as a prompt", lambda model, pairs: mg.lens(model, 3)),
    "part of a layer": (UserError, "layer 0.5", lambda model, pairs: mg.patterns(model, CLEAN, layers=0.5)),
    "layer by name": (UserError, "layer 'L0'", lambda model, pairs: mg.patterns(model, CLEAN, layers=["L0"])),
    "shots": (BadPrompt, "Found 3 as", lambda model, pairs: mg.Pairs(model, CLEAN, CORRUPT, "Mary", shots=[3])),
    "no answer": (BadPrompt, "Found None as an answer", lambda model, pairs: mg.Pairs(model, CLEAN, CORRUPT, None)),
    "answer as a number": (BadPrompt, "Found 3 as an answer", lambda model, pairs: mg.Pairs(model, CLEAN, CORRUPT, 3)),
    "answers in answers": (
        BadPrompt,
        r"Found \['Tom'\] as an answer",
        lambda model, pairs: mg.Pairs(model, CLEAN, CORRUPT, ["Mary", ["Tom"]]),
    ),
    "answer and wrong": (
        BadPrompt,
        "'Mary' is both",
        lambda model, pairs: mg.lens(model, CLEAN, answer="Mary", wrong="John|Mary"),
    ),
    "no steps": (UserError, "0 steps", lambda model, pairs: mg.attribute(model, pairs, "L*.z", method="ig", steps=0)),
    "part of a step": (
        UserError,
        "2.5 steps",
        lambda model, pairs: mg.attribute(model, pairs, "L*.z", method="ig-activation", steps=2.5),
    ),
    "edges by rank": (UserError, "no gradient", lambda model, pairs: mg.circuit(model, pairs, metric="rank")),
    "no sender": (UserError, "no sender", lambda model, pairs: mg.path_patch(model, pairs, "", "logits")),
    "no noise": (UserError, "0.0 was asked", lambda model, pairs: mg.trace(model, CLEAN, "Mary", noise_std=0)),
    "endless noise": (
        UserError,
        "inf was asked",
        lambda model, pairs: mg.trace(model, CLEAN, "Mary", noise_std=float("inf")),
    ),
    "seed": (BadConfig, "seed 'x'", lambda model, pairs: mg.trace(model, CLEAN, "Mary", seed="x")),
    "large seed": (BadConfig, "64 bits", lambda model, pairs: mg.trace(model, CLEAN, "Mary", seed=2**80)),
    "scale of nothing": (
        UserError,
        "L1.attn_norm_scale.*divides",
        lambda model, pairs: mg.patch(model, pairs, "L1.attn_norm_scale", replace="zero"),
    ),
    "part of a place": (
        BadConfig,
        "2.5 places",
        lambda model, pairs: mg.check(model, pairs, mg.attribute(model, pairs, "L*.z"), budget=2.5),
    ),
    "shown": (UserError, "type Tensor", lambda model, pairs: mg.show(torch.zeros(1))),
}


@pytest.mark.usefixtures("unchecked")  # what users meet who run no checker
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_sentence_that_names_it(model, pairs, name):
    kind, named, call = MISTAKES[name]
    with pytest.raises(kind, match=named) as caught:
        call(model, pairs)
    assert str(caught.value).rstrip().endswith(".")
