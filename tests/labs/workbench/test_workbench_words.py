"""What sentences, captions and headings of a question claim: no more than was measured."""

import pytest
import torch

from micrographia.core.config import Target
from micrographia.core.errors import BadConfig, UserError
from micrographia.core.metrics import kl, logit, logit_difference, prob
from micrographia.core.prompts import Baselines
from micrographia.core.sites import Site
from micrographia.core.sweep import Place
from micrographia.core.titles import MODES
from micrographia.labs.workbench import trace, words
from micrographia.labs.workbench.attribute import explain_exactly
from micrographia.labs.workbench.config import Circuit, Lens, Patch, Prompts
from micrographia.labs.workbench.run import run
from micrographia.methods.attribution.agreement import Checked, Estimate, Missed
from micrographia.methods.attribution.calibrate import Calibration
from micrographia.methods.tracing import Traced
from miniature import CLEAN, CORRUPT

INLINE = Prompts(clean=CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John")
ONE = torch.zeros(1, dtype=torch.long)
METRICS = {
    "difference": logit_difference(ONE, ONE + 1),
    "logit": logit(ONE),
    "prob": prob(ONE),
    "kl": kl(torch.zeros(1, 2)),
}


def target(model):
    return Target(model=str(model), device="cpu", threads=1)


def ends_of(metric, clean, corrupt):
    return Baselines(METRICS[metric], torch.tensor([clean]), torch.tensor([corrupt]))


ENDS = ends_of("difference", 2.0, -2.0)


@pytest.mark.parametrize(
    ("metric", "clean", "corrupt", "n"),
    [("difference", 1.0, 2.0, 1), ("difference", -1.0, -2.0, 1), ("difference", -2.0, -1.95, 3),
     ("logit", -3.0, -3.05, 1), ("prob", 0.012, 0.005, 1), ("kl", 0.5, 0.0, 1),
     ("difference", 2.0, -1.0, 0), ("logit", -3.0, -5.0, 0), ("prob", 0.4, 0.1, 0), ("kl", 0.0, 2.0, 0)],
)  # fmt: skip
def test_a_gap_that_means_little_is_doubted_once_for_each_reason(metric, clean, corrupt, n):
    ends = ends_of(metric, clean, corrupt)
    assert len(words.doubts(ends)) == n
    assert len(words.opening(ends, 1)) == (2 if n else 1)


@pytest.mark.parametrize(("replace", "written"), [("zero", "zeros"), ("mean", "a mean"), ("noise", "noise")])
def test_no_gate_is_read_off_a_replacement_and_panels_name_it(gpt2, tmp_path, replace, written):
    done = run(Patch(target=target(gpt2), prompts=INLINE, metrics="log-prob", replace=replace), out=tmp_path / "r")
    assert done.results["explanation"] == words.explanation(("denoise", "noise"), replace)
    pictures = [figure for figure in done.figures if figure.group == "In pictures"]
    assert {name for figure in pictures for name in figure.data["panels"]} == {
        f"{written} into corrupt",
        f"{written} into clean",
    }
    unwritten = [direction.meaning for direction in MODES.values()]
    assert not [figure for figure in pictures if any(meaning in figure.caption for meaning in unwritten)]


def row(share, **more):
    return {
        "place": "L1.z[pos=2, head=0]",
        "part": "L1H0",
        "restored": share,
        "denoise_change": share,
        "denoise_sd": None,
        **more,
    }


@pytest.mark.parametrize(("share", "against"), [(-0.45, True), (-0.0001, False), (0.45, False)])
def test_a_negative_share_works_against_the_answer(share, against):
    (estimate,) = words.strongest_estimates([row(share)])
    assert (words.AGAINST in estimate) is against
    (exact,) = words.strongest_patches([row(share)], "any head")
    assert (words.AGAINST in exact) is against
    assert "-0.0%" not in estimate + exact


def test_a_replacement_does_not_work_against_the_answer():
    (exact,) = words.strongest_patches([row(-0.45, denoise_sd=0.1)], "any head", "zero")
    assert words.REVERSED in exact
    assert words.AGAINST not in exact


@pytest.mark.parametrize("share", [None, 0.45])
@pytest.mark.parametrize("token", [None, "Mary"])
@pytest.mark.parametrize("sd", [None, 0.1])
def test_sentences_are_written_whatever_is_missing(share, token, sd):
    rows = [row(share, token=token, denoise_sd=sd)]
    for sentences in (words.strongest_patches(rows, "any head"), words.strongest_estimates(rows)):
        assert len(sentences) == (share is not None)
        assert not any("None" in sentence or "nan" in sentence for sentence in sentences)


def traced(effect, subject):
    values = torch.as_tensor(effect)
    return Traced("resid_post", (), 1, values, values[..., None], 0.0, 1.0, 3, 0.1, subject)


@pytest.mark.parametrize(
    ("effect", "found"),
    [
        ([[0.1, 0.3, 0.0, 0.2], [0.0, 0.2, 0.4, 0.9]], ((1, 2), (0, 1))),
        ([[0.1, 0.3, 0.0, 0.2], [0.0, 0.5, 0.4, 0.9]], ((1, 1), (1, 1))),
        ([[0.1, 0.9]], ((0, 0), None)),
        ([[0.9]], (None, None)),
    ],
)
def test_the_last_position_is_left_out_of_what_a_trace_restores(effect, found):
    """The state after the last layer at the last position is the clean answer whatever the model does."""
    assert tuple(trace.most_restored(traced(effect, (1,)))) == found


def test_of_sublayer_outputs_the_last_position_is_listed_too():
    names = ["0 a", "1 b*", "2 c", "3 d"]
    found = traced([[0.1, 0.3, 0.0, 0.2], [0.0, 0.2, 0.4, 0.9]], (1,))
    assert {each["token"] for each in trace.restored({"one state": found}, names)} == set(names[:3])
    assert trace.restored({"MLP outputs": found._replace(state="mlp_out")}, names)[0]["token"] == "3 d"


@pytest.mark.parametrize("units", ["nodes", "edges"])
def test_a_circuit_of_nothing_is_refused_with_the_largest_score(trained, tmp_path, units):
    question = Circuit(target=target(trained), prompts=INLINE, units=units, threshold=500.0)
    with pytest.raises(UserError, match=r"at least 500 of the gap, but the largest, that of L?\d?.*, is -?\d"):
        run(question, out=tmp_path / "r")


@pytest.mark.parametrize("text", ["", "  "])
def test_a_lens_on_nothing_is_refused(text):
    for prompts in ({"prompt": text}, {"prompt": "a", "corrupt": text}):
        with pytest.raises(BadConfig, match="empty prompt"):
            Lens(target=Target(model="m"), **prompts)


def test_an_estimate_larger_than_the_exact_loss_is_reported():
    def check(mode, estimate, exact):
        patches = [(Place(Site("z", 0), {"pos": 1, "head": i}),) for i in range(2)]
        sides = [torch.tensor([[x] for x in each], dtype=torch.float64) for each in (estimate, exact)]
        none = Estimate(0.0)
        each = Checked("z", patches, *sides, 2, none, none, 1.0, Missed(0.1, 0, 0, 0, 0.0), 0.0)
        return Calibration({"z": each}, (), "logits", 1, 2, 0, mode)

    denoise = check("denoise", [2.0, 0.4], [2.0, 0.4])
    noise = check("noise", [-2.0, -3.2], [-0.2, -3.2])
    _, *sentences = explain_exactly({"denoise": denoise, "noise": noise}, ENDS)
    assert len(sentences) == 2
    assert ["50%" in sentence for sentence in sentences] == [False, True]
    assert explain_exactly({"noise": noise}, ENDS) == []
    assert explain_exactly({"denoise": denoise, "noise": noise}, ends_of("difference", -1.0, -2.0)) == []
