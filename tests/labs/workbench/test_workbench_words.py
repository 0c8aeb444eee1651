"""What the sentences, captions and headings of a question claim: no more than was measured."""

import pytest
import torch

import micrographia as mg
from micrographia.core.errors import BadConfig, UserError
from micrographia.core.metrics import logit_difference
from micrographia.core.sites import Site
from micrographia.core.small.trained import load_trained
from micrographia.core.sweep import Place
from micrographia.labs.workbench import circuit, trace, words
from micrographia.labs.workbench.attribute import exact_words
from micrographia.labs.workbench.config import Attribute, Circuit, Lens, Patch, Prompts, Target
from micrographia.labs.workbench.prompts import Ends
from micrographia.labs.workbench.run import run
from micrographia.labs.workbench.shown import figures_of
from micrographia.methods.attribution.agreement import Checked, Estimate, Missed
from micrographia.methods.attribution.calibrate import Calibration
from micrographia.methods.circuits.judge import areas
from micrographia.methods.circuits.members import head
from micrographia.methods.tracing import Traced
from miniature import CLEAN, CORRUPT

INLINE = Prompts(clean=CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John")
SWAPPED = Prompts(clean=CORRUPT, corrupt=CLEAN, answer="Mary", wrong="John")
OF_THE_OTHER_RUN = (
    "clean value",
    "corrupt value",
    "clean into",
    "corrupt into",
    "is sufficient for it",
    "look like an",
)


def target(model):
    return Target(model=str(model), device="cpu", threads=1)


def everything(done):
    headings = [str(name) for figure in done.figures for name in (*figure.data.get("panels", ()),)]
    captions = [figure.caption for figure in done.figures]
    return " ".join([*done.results["summary"], *done.results["explanation"], *captions, *headings])


@pytest.mark.parametrize(("replace", "written"), [("zero", "zeros"), ("mean", "a mean"), ("noise", "noise")])
def test_what_was_written_is_said_and_no_gate_is_read_off_it(gpt2, tmp_path, replace, written):
    for i, prompts in enumerate((INLINE, SWAPPED)):  # one at least has a gap that would be explained
        done = run(
            Patch(target=target(gpt2), prompts=prompts, metrics="log-prob", replace=replace), out=tmp_path / str(i)
        )
        told = everything(done)
        assert not [said for said in OF_THE_OTHER_RUN if said in told]
        assert f"{written} into clean" in told
        assert f"In the corrupt run {written} stood in" in told
        assert "neither what is sufficient" in told


def test_a_picture_in_a_notebook_says_what_was_written(trained):
    model = load_trained(trained)
    pairs = mg.from_texts(model, [mg.PairText(CLEAN, CORRUPT, "Mary", "John")])
    metrics = mg.metrics_of(["logit-diff"], pairs, model)
    done = mg.patch(model, pairs, metrics, mg.places(model, "L*.mlp_out", ["layer", "pos"], 15), replace="zero")
    (figure,) = figures_of(done)
    assert figure.data["panels"] == ["zeros into corrupt"]
    assert "clean value" not in figure.caption
    for names in (["a"] * 14, ["a"] * 16):
        with pytest.raises(UserError, match="names were given for the 15 positions"):
            figures_of(done, names)


def row(share, **more):
    return {"place": "L1.z[pos=2, head=0]", "restored": share, "denoise_change": share, "denoise_sd": None, **more}


ENDS = Ends(logit_difference(torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long)),
            torch.tensor([2.0]), torch.tensor([-2.0]))  # fmt: skip


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (-0.45, "works against the answer: it would have restored -45.0%"),
        (-0.0001, "would have restored 0.0% of the gap"),
        (0.45, "would have restored 45.0%"),
    ],
)
def test_a_negative_share_works_against_the_answer(share, says):
    asked = Attribute(target=Target(model="m"), prompts=INLINE)
    told = " ".join(words.of_attribution(asked, "a method", ENDS, [row(share)], 4, 1, {}))
    assert says in told
    assert ("works against" in told) is (share < -0.01)
    assert says in " ".join(words.of_edges(ENDS, [row(share)], "a method", 4, 1, {}))


@pytest.mark.parametrize(
    ("replace", "against"), [("other", "works against the answer"), ("zero", "works the other way")]
)
def test_a_patch_that_goes_the_other_way_says_so(replace, against):
    asked = Patch(target=Target(model="m"), prompts=INLINE, replace=replace)
    told = words.of_patch(asked, ENDS, [row(-0.45)], "zeros", 4, 1)
    assert any(f"{against}: it restored -45.0% of the gap" in sentence for sentence in told)
    small = words.of_patch(asked, ENDS, [row(-0.0001)], "zeros", 4, 1)
    assert not any("-0.0%" in sentence for sentence in small)


def traced(effect, subject):
    values = torch.as_tensor(effect)
    return Traced("resid_post", (), 1, values, values[..., None], 0.0, 1.0, 3, 0.1, subject)


def test_the_last_position_is_left_out_of_what_a_trace_tells():
    """The state after the last layer at the last position is the clean answer whatever the model does."""
    names = ["0 a", "1 b*", "2 c", "3 d"]
    found = traced([[0.1, 0.3, 0.0, 0.2], [0.0, 0.2, 0.4, 0.9]], (1,))
    (told,) = trace.most_restored(found, names)
    assert (
        "at most 0.4, after layer 1 at '2 c'; of the subject's own tokens at most 0.3, after layer 0 at '1 b*'" in told
    )
    assert "last position are left out" in told
    (told,) = trace.most_restored(traced([[0.1, 0.3, 0.0, 0.2], [0.0, 0.5, 0.4, 0.9]], (1,)), names)
    assert "at most 0.5, after layer 1 at '1 b*', one of the subject's own tokens" in told
    (told,) = trace.most_restored(traced([[0.1, 0.9]], (1,)), names[:2])
    assert "own tokens" not in told
    rows = trace.strongest([trace.Picture("one state", found)], names)
    assert {each["token"] for each in rows} == set(names[:3])
    outputs = trace.strongest([trace.Picture("MLP outputs", found._replace(state="mlp_out"))], names)
    assert outputs[0]["token"] == "3 d"


def test_a_circuit_that_carries_too_much_is_not_faithful():
    order = [head(0, i) for i in range(5)]
    worth = dict(zip(order, (1.8, -0.8, 0.0, 0.0, 0.0)))

    def alone(circuits):
        return torch.tensor([[sum(worth[each] for each in chosen)] for chosen in circuits])

    asked = Circuit(target=Target(model="m"), prompts=INLINE)
    assert circuit.choose(asked, alone, worth, order, areas(alone, order)) == order[:2]


@pytest.mark.parametrize("units", ["nodes", "edges"])
def test_a_circuit_of_nothing_is_refused_with_the_largest_score(trained, tmp_path, units):
    asked = Circuit(target=target(trained), prompts=INLINE, units=units, threshold=500.0)
    with pytest.raises(UserError, match=r"at least 500 of the gap, but the largest, that of L?\d?.*, is -?\d"):
        run(asked, out=tmp_path / "r")


@pytest.mark.parametrize("text", ["", "  "])
def test_a_lens_on_nothing_is_refused(text):
    for prompts in ({"prompt": text}, {"prompt": "a", "corrupt": text}):
        with pytest.raises(BadConfig, match="empty prompt"):
            Lens(target=Target(model="m"), **prompts)


def test_edges_are_drawn_in_both_directions(trained, tmp_path):
    asked = Attribute(target=target(trained), prompts=INLINE, method="edges", verify=0)
    graphs = [figure for figure in run(asked, out=tmp_path / "r").figures if figure.kind == "graph"]
    assert [figure.name for figure in graphs] == ["edges-denoise", "edges-noise"]
    assert ["denoise" in graphs[0].title, "noise: corrupt into clean" in graphs[1].title] == [True, True]


def test_what_was_patched_both_ways_is_put_into_words_beside_its_estimate(gpt2, tmp_path):
    told = []
    for i, prompts in enumerate((INLINE, SWAPPED)):
        asked = Attribute(target=target(gpt2), prompts=prompts, sites="L*.resid_pre", metric="log-prob", verify=100)
        done = run(asked, out=tmp_path / str(i))
        says = [said for said in done.results["explanation"] if said.startswith("Denoising L")]
        doubtful = any(said.startswith("Warning") for said in done.results["summary"])
        assert bool(says) is not doubtful
        told += says
        calibration = {each["mode"]: each for each in done.results["calibration"]}
        assert calibration["denoise"]["missed"]["of"] + calibration["denoise"]["n_top"] == 2 * 5  # before: all the same
        assert any("18 places cannot have an effect" in said for said in done.results["flags"])
    assert told


def test_an_estimate_that_says_more_than_is_lost_is_told():
    def check(estimate, exact):
        patches = [(Place(Site("z", 0), {"pos": 1, "head": i}),) for i in range(2)]
        sides = [torch.tensor([[x] for x in each], dtype=torch.float64) for each in (estimate, exact)]
        none = Estimate(0.0)
        each = Checked("z", patches, *sides, 2, none, none, 1.0, Missed(0.1, 0, 0, 0, 0.0), 0.0)
        return Calibration({"z": each}, (), "logits", 1, 2, 0)

    checks = {"denoise": check([2.0, 0.4], [2.0, 0.4]), "noise": check([-2.0, -3.2], [-0.2, -3.2])}
    first, *said = exact_words(checks, ENDS)
    assert "2 largest" in first
    assert ["estimate of the loss is 50%" in sentence for sentence in said] == [False, True]
    assert exact_words({"noise": checks["noise"]}, ENDS) == []
