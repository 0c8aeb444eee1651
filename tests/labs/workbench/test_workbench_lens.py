"""A lens as a question: parts that sum to the logits, sources that sum to heads, and layers that end in the model."""

import re

import numpy as np
import pytest
import torch

from micrographia.core.config import Target
from micrographia.core.errors import BadPrompt
from micrographia.core.sites import Site
from micrographia.core.small.trained import load_trained
from micrographia.core.spoken import component_name
from micrographia.core.store import read_metrics
from micrographia.labs.workbench.config import Lens
from micrographia.labs.workbench.lens import _difference
from micrographia.labs.workbench.run import run
from micrographia.methods.lens import read_stream
from miniature import CLEAN, CORRUPT, WORDS

SIDES = ("clean", "corrupt")


def target(model):
    return Target(model=str(model), device="cpu", threads=1)


@pytest.fixture(scope="module", params=["trained", "gpt2"])
def read(request, tmp_path_factory):
    model = target(request.getfixturevalue(request.param))
    asked = Lens(target=model, prompt=CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John", heads=3)
    return run(asked, out=tmp_path_factory.mktemp("lens") / "r")


def pictures(done):
    drawn = [figure for figure in done.figures if figure.group == "In pictures"]
    return {figure.name: np.asarray(figure.data.get("z", figure.data.get("y"))) for figure in drawn}


def test_the_parts_sum_to_what_the_model_says(read, trained):
    ends = {row["prompt"]: row for row in read.results["ends"]}
    for side in SIDES:
        parts = sum(row[side] for row in read.results["writers"])
        assert parts == pytest.approx(ends[side]["parts"], abs=1e-4)
        assert parts == pytest.approx(ends[side]["logit"], abs=1e-3)
    if read.config["model"] == str(trained):
        model = load_trained(trained)
        last = model.run(model.to_tokens(CLEAN)).logits[0, -1]
        assert ends["clean"]["logit"] == pytest.approx(
            float(last[WORDS.index("Mary")] - last[WORDS.index("John")]), abs=1e-4
        )


def test_sources_sum_to_their_heads_and_components_to_the_whole(read):
    drawn = pictures(read)
    ends = [row["parts"] for row in read.results["ends"]]
    np.testing.assert_allclose(drawn["components"].sum(1), ends, atol=1e-4)
    (figure,) = [figure for figure in read.figures if figure.name == "sources"]
    rows = dict(zip(figure.data["y_names"], drawn["sources"][0].sum(-1)))
    heads = {row["part"]: row["clean"] for row in read.results["writers"]}
    assert len(rows) == 3
    for name, whole in rows.items():
        assert whole == pytest.approx(heads[name], abs=1e-4)
    assert drawn["heads"].shape[0] == 2


def test_the_summary_names_the_largest_parts_of_the_clean_prompt(read):
    """Tables are ordered by the larger of both sides, sentences by the clean one."""
    summary = " ".join(read.results["summary"])
    largest = max(read.results["writers"], key=lambda row: abs(row["clean"]))
    assert f"{largest['part']} ({largest['clean']:+.3g})" in summary
    cell = max(read.results["sources"], key=lambda row: abs(row["clean"]))
    assert f"{cell['head']} carries {cell['clean']:+.3g}" in summary


def test_the_tables_hold_the_records_of_the_results(read):
    tables = {figure.name: figure for figure in read.figures if figure.kind == "table"}
    assert {"answer", "writers", "head-sources", "lens-clean", "lens-corrupt"} <= tables.keys()
    writers = [[row[name] for name in ("part", *SIDES, "difference")] for row in read.results["writers"]]
    assert tables["writers"].data["rows"] == writers[:14]
    assert ("all-writers" in tables) is (len(writers) > 14)
    points = [component_name(Site.parse(row["site"]), {}) for row in read.results["lens"]]
    assert [row[0] for row in tables["lens-corrupt"].data["rows"]] == points
    assert [row[3] for row in tables["lens-clean"].data["rows"]] == [
        row["clean"]["rank"] for row in read.results["lens"]
    ]


def test_the_last_layer_says_what_the_model_says(read):
    last, ends = read.results["lens"][-1], {row["prompt"]: row for row in read.results["ends"]}
    for side in SIDES:
        assert last[side]["logit"] == pytest.approx(ends[side]["logit"], abs=1e-3)
        assert last[side]["prob"] == pytest.approx(ends[side]["prob"], abs=1e-4)
        assert len(last[side]["says"]) == 5
    (figure,) = [figure for figure in read.figures if figure.name == "lens"]
    z, texts = np.asarray(figure.data["z"]), figure.data["texts"]
    assert z.shape == (2, len(read.results["lens"]), 15 if read.config["model"].endswith("trained") else 14)
    assert texts[0][-1][-1] == last["clean"]["says"][0]
    assert read_metrics(read.path).keys() == {"part", "clean", "corrupt"}


@pytest.mark.parametrize(
    ("clean", "corrupt", "sentence"),
    [
        ([0, 0, 0], [5, 5, 5], "from the embeddings on 'Mary' is the top token on the clean prompt and not on the"),
        ([0, 0, 0], [0, 0, 5], "but before layer 1 on both prompts: a bias, not a prediction"),
        ([7, 0, 0], [0, 0, 0], "on the corrupt prompt too: a bias towards it, and no prediction"),
        ([5, 5, 0], [5, 5, 5], "Logit lens: only after the last layer 'Mary' is the top token on the clean prompt and"),
        ([5, 5, 0], [5, 5, 0], "is the top token only after the last layer, but at the end on the corrupt prompt too"),
        ([0, 0, 3], [5, 5, 5], "The model's own first choice there is"),
    ],
)
def test_a_token_that_is_first_on_both_prompts_is_a_bias_and_no_prediction(trained, clean, corrupt, sentence):
    model = load_trained(trained)
    ids = torch.cat([model.to_tokens(text) for text in (CLEAN, CORRUPT)])
    read = read_stream(model, ids, [WORDS.index("Mary"), WORDS.index("John")])
    rank = read.layers.rank.clone()
    rank[:, :, -1, 0] = torch.tensor([clean, corrupt]).T
    (found,) = _difference(read._replace(layers=read.layers._replace(rank=rank)))
    assert sentence in found


def test_the_one_table_that_is_printed_is_of_the_direct_effects(read):
    assert [figure.name for figure in read.figures if figure.headline] == ["writers"]


def test_heads_have_one_name(read):
    heads = {row["head"] for row in read.results["sources"]}
    assert heads
    assert all(re.fullmatch(r"L\d+H\d+", head) for head in heads)
    assert heads <= {row["part"] for row in read.results["writers"]}


def test_one_prompt_is_read_for_the_models_own_choice(trained, tmp_path):
    done = run(Lens(target=target(trained), prompt=CLEAN), out=tmp_path / "r")
    model = load_trained(trained)
    own = int(torch.as_tensor(model.run(model.to_tokens(CLEAN)).logits)[0, -1].argmax())
    assert done.results["reading"] == {"answer": WORDS[own], "wrong": None}
    assert done.results["lens"][-1]["clean"]["rank"] == 0
    assert "corrupt" not in done.results["writers"][0]


def test_prompts_that_do_not_line_up_and_an_answer_against_itself_are_refused(trained, tmp_path):
    with pytest.raises(BadPrompt, match="as many tokens"):
        run(Lens(target=target(trained), prompt=CLEAN, corrupt=f"{CORRUPT} the"), out=tmp_path / "a")
    with pytest.raises(BadPrompt, match="both a right and a wrong"):
        run(Lens(target=target(trained), prompt=CLEAN, answer="Mary", wrong="Mary"), out=tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_each_prompt_stands_as_text_coloured_by_what_its_tokens_bring(read):
    drawn = {figure.name: figure for figure in read.figures}
    text = drawn["source-text"].data
    np.testing.assert_allclose(np.asarray(text["values"]), np.asarray(drawn["sources"].data["z"]).sum(1))
    clean, corrupt = (read.results["prompts"][0][f"{side}_tokens"] for side in ("clean", "corrupt"))
    assert [list(row) for row in text["tokens"]] == [[token.strip() for token in row] for row in (clean, corrupt)]
    patterns = [drawn[f"patterns-{side}"].data for side in ("clean", "corrupt")]
    assert [len(each["tokens"]) for each in patterns] == [len(clean), len(corrupt)]
