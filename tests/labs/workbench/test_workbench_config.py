"""Questions as Configs: what is refused, and that they survive the way through JSON."""

import inspect
import json

import pytest

from micrographia.core.config import Target
from micrographia.core.errors import BadConfig
from micrographia.labs.workbench.config import (
    AXES,
    QUESTIONS,
    Ablate,
    Attribute,
    Circuit,
    Generate,
    Heads,
    Lens,
    Patch,
    Probing,
    Prompts,
    Steer,
    Trace,
    kind_of,
    modes_of,
    names,
    read_question,
    stored,
)

TARGET = Target(model="gpt2")
PROMPTS = Prompts(clean="a b", corrupt="a c", answer="d", wrong="e")
EVERY = (
    Patch(target=TARGET, prompts=PROMPTS, metrics="prob, kl", by="pos,head"),
    Attribute(target=TARGET, prompts=Prompts(prompts="pairs.csv"), method="ig", steps=3),
    Trace(target=TARGET, prompt="The Space Needle is in", subject="Space Needle"),
    Circuit(target=TARGET, prompts=PROMPTS),
    Lens(target=TARGET, prompt="a b", corrupt="a c", wrong="d"),
    Ablate(target=TARGET, texts="texts.txt", replace="zero", answer="d"),
    Probing(target=TARGET, text_labels="labels.jsonl", at="1, -1", hidden=8),
    Heads(target=TARGET, rows=2, span=5),
    Steer(target=TARGET, positive="good.txt", negative="bad.txt", prompt="a b"),
    Generate(target=TARGET, prompt="a b", edits="zero L0.z[0]"),
)


@pytest.mark.parametrize(
    "question",
    [
        *EVERY,
        Patch(target=TARGET, prompts=PROMPTS, replace="noise", reference="texts.txt"),
        Attribute(target=TARGET, prompts=PROMPTS, method="edges-ig", steps=3),
        Attribute(target=TARGET, prompts=PROMPTS, method="ig-activation", steps=3),
    ],
    ids=kind_of,
)
def test_a_question_survives_the_way_through_json(question):
    assert read_question(json.loads(json.dumps(stored(question)))) == question
    assert hash(question) == hash(read_question(stored(question)))


def test_there_is_one_class_a_question():
    assert {type(question) for question in EVERY} == set(QUESTIONS.values())


def test_the_choice_of_places_names_every_axis_that_is_known():
    told = inspect.getsource(Patch).split("by: str")[1].split('"""')[1]
    assert ", ".join(AXES) in told


def test_names_are_parted_by_commas():
    assert names(" L*.z ,L5.mlp_out,, ") == ("L*.z", "L5.mlp_out")


@pytest.mark.parametrize(("mode", "modes"), [("noise", ("noise",)), ("both", ("denoise", "noise"))])
def test_both_stands_for_two_directions(mode, modes):
    assert modes_of(Patch(target=TARGET, prompts=PROMPTS, mode=mode)) == modes


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Prompts(clean="a", corrupt="b"), "answer"),
        (lambda: Prompts(), "clean"),
        (lambda: Prompts(clean="a", corrupt="b", answer="c", prompts="file.csv"), "twice"),
        (lambda: Patch(target=TARGET, prompts=PROMPTS, sites=" , "), "sites is empty"),
        (lambda: Patch(target=TARGET, prompts=PROMPTS, by="token"), "'token'"),
        (lambda: Patch(target=TARGET, prompts=PROMPTS, metrics="loss"), "'loss'"),
        (lambda: Attribute(target=TARGET, prompts=PROMPTS, verify=-1), "verify"),
        (lambda: Trace(target=TARGET, prompt="a b", subject="c"), "are not in the prompt"),
        (lambda: Patch(target=TARGET, prompts=PROMPTS, reference="texts.txt"), "reference was set .* other reads none"),
        (
            lambda: Attribute(target=TARGET, prompts=PROMPTS, steps=9),
            "steps was set to 9, but method atp",
        ),
        (lambda: Attribute(target=TARGET, prompts=PROMPTS, method="edges", sites="L*.z"), "sites was set"),
        (lambda: Attribute(target=TARGET, prompts=PROMPTS, method="edges-ig", positions="sum"), "positions was set"),
        (lambda: Trace(target=TARGET, prompt="a b", subject="a", first_token=True), "first-token was set"),
        (lambda: Lens(target=TARGET, prompt="a b", first_token=True), "first-token was set"),
        (lambda: Circuit(target=TARGET, prompts=PROMPTS, n=5, faithful=0.5), "faithful was set to 0.5"),
        (lambda: read_question({**stored(EVERY[1]), "verify": "64"}), "verify takes a whole number"),
        (lambda: read_question({**stored(EVERY[0]), "mode": "up"}), 'mode takes "denoise" or "noise" or "both"'),
        (lambda: Trace(target=TARGET, prompt="a b", subject="a", noise=0.0), "noise"),
        (lambda: Circuit(target=TARGET, prompts=PROMPTS, n=0), "n must be at least 1"),
        (lambda: Lens(target=TARGET, prompt="a b", heads=0), "heads must be at least 1"),
        (lambda: Attribute(target=TARGET, prompts=PROMPTS, strongest=-1), "strongest"),
        (lambda: Probing(target=TARGET, text_labels="x.csv", at="first"), "'first'"),
        (lambda: Probing(target=TARGET, text_labels="x.csv", test_share=1.0), "test-share"),
        (lambda: Target(model="gpt2", threads=0), "threads"),
        (lambda: read_question({"question": "guess"}), "'guess'"),
        (lambda: read_question({"question": "patch", "model": "gpt2", "site": "x"}), "site"),
        (lambda: read_question({"question": "trace", "model": "gpt2"}), "trace lacks prompt"),
    ],
)
def test_what_cannot_be_asked_is_refused(make, says):
    with pytest.raises(BadConfig, match=says):
        make()
