"""Results of methods as Figures, without a Run."""

import numpy as np
import pytest
import torch

import micrographia as mg
from micrographia.core.config import Target
from micrographia.core.errors import UserError
from micrographia.core.metrics import logit_difference
from micrographia.core.prompts import PairText, from_texts, position_names
from micrographia.core.small.trained import load_trained
from micrographia.labs.workbench.config import Circuit, Lens, Prompts
from micrographia.labs.workbench.run import run
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.calibrate import calibrate
from micrographia.methods.attribution.edges import edge_attribution
from micrographia.methods.lens import read_stream
from micrographia.methods.patching import patch_sites
from micrographia.methods.tracing import Traced, trace
from miniature import CLEAN, CORRUPT


@pytest.fixture(scope="module")
def model(trained):
    return load_trained(trained)


@pytest.fixture(scope="module")
def pairs(model):
    return from_texts(model, [PairText(CLEAN, CORRUPT, "Mary", "John")])


@pytest.fixture(scope="module")
def metric(pairs):
    return logit_difference(pairs.answer, pairs.wrong)


def test_a_heat_map_holds_the_shares_of_its_effects(model, pairs, metric):
    (found,) = patch_sites(model, pairs, "L*.z", [metric], by=("pos", "head"))
    (figure,) = found.figures()
    z = np.asarray(figure.data["z"])
    assert z.shape == (1, 4, 5)
    assert z[0, 3, 4] == pytest.approx(float(found.share()[list(found.scores)[1]][14, 1]), rel=1e-6)
    assert figure.data["x_names"][0] == position_names(pairs, model.tokenizer)[10] == "10 John / Mary"


def test_a_replacement_is_named_in_its_panel(model, pairs, metric):
    (found,) = patch_sites(model, pairs, "L*.mlp_out", [metric], replace="zero")
    (figure,) = found.figures()
    assert figure.data["panels"] == ["zeros into corrupt"]
    with pytest.raises(UserError, match="names were given for the 15 positions"):
        found.named(["a"] * 14).figures()


def test_edges_draw_themselves_and_list_every_edge(model, pairs, metric):
    found = edge_attribution(model, pairs, metric, mode="noise")
    (figure,) = found.figures()
    assert (figure.name, figure.kind) == ("edges-noise", "graph")
    table = found.table()
    assert len(table["writer"]) == len(found.graph.edges)
    assert table["noise_share"] == pytest.approx(-table["noise_change"] / found.gap)


def test_a_check_shows_its_correlations_and_every_point(model, pairs, metric):
    found = attribute(model, pairs, metric, ["L*.z", "L*.mlp_out"])
    check = calibrate(model, pairs, metric, found, budget=8, top=4, generator=torch.Generator().manual_seed(0))
    figures = {figure.name: figure for figure in check.figures()}
    assert [row[0] for row in figures["calibration"].data["rows"]] == ["z", "mlp_out"]
    assert len(figures["calibration-denoise"].data["x"]) == sum(row["checked"] for row in check.table()) == 8
    assert figures["calibration-denoise"].data["y_label"] == "estimated change of logit difference"
    assert {row["kind"] for row in check.wholes()} == {"z", "mlp_out"}


def test_a_stream_reading_without_names_numbers_its_positions(model, pairs):
    read = read_stream(model, pairs.clean, [int(pairs.answer)], n_heads=2, best=3)
    assert read.positions == [str(i) for i in range(15)]
    assert {len(row["clean"]["says"]) for row in read.predictions()} == {3}
    assert {figure.name for figure in read.figures()} >= {"writers", "components", "heads", "sources", "lens"}


def test_the_effects_of_a_trace_are_its_indirect_effects(model, pairs):
    found = trace(model, pairs.clean, [2], torch.Generator().manual_seed(0), n_samples=3)
    effects = found.effects
    assert (effects.mode, effects.exact, len(effects.clean)) == ("denoise", True, 3)
    table = torch.stack([score.mean(0) for score in effects.scores.values()])
    torch.testing.assert_close(table, found.indirect_effect())
    (place, value), *_ = effects.top(1)
    assert value == pytest.approx(float(found.indirect_effect()[place.site.layer, place.where["pos"]]), abs=1e-6)


def test_a_trace_is_drawn_with_tokens_downward():
    values = torch.arange(6.0).reshape(2, 3)
    found = Traced("resid_post", (), 1, values, values[..., None], 0.0, 1.0, 3, 0.1, (1,))
    (figure,) = found.figures(["a", "b", "c"])
    assert np.asarray(figure.data["z"])[0].tolist() == [[2, 5], [1, 4], [0, 3]]
    assert figure.data["y_names"] == ["c", "b", "a"]
    assert found.figures()[0].data["y_names"] == ["2", "1*", "0"]
    with pytest.raises(UserError, match="2 names were given for the 3 positions"):
        found.figures(["a", "b"])


def test_the_facade_finds_the_circuit_and_the_reading_of_the_command(trained, model, pairs, tmp_path):
    target = Target(model=str(trained), device="cpu", threads=1)
    prompts = Prompts(clean=CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John")
    done = run(Circuit(target=target, prompts=prompts), out=tmp_path / "circuit").results
    found = mg.circuit(model, pairs)
    assert sorted(map(str, found.members)) == sorted(row["member"] for row in done["members"])
    for name in ("faithfulness", "score_alone", "null_p_value", "incompleteness_worst_set", "cpr", "cmd"):
        assert done["circuit"][name] == pytest.approx(found.table()[name], rel=1e-4, abs=1e-5), name
    read = mg.lens(model, CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John")
    asked = Lens(target=target, prompt=CLEAN, corrupt=CORRUPT, answer="Mary", wrong="John")
    writers = run(asked, out=tmp_path / "lens").results["writers"]
    assert [row["part"] for row in read.writers()] == [row["part"] for row in writers]
    assert str(read).startswith("logit of 'Mary' less 'John'")
