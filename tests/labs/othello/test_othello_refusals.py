"""Odd files that the lab is given: each is told in words, and none is taken for another."""

import dataclasses
import json
import re

import pytest
import torch
from tiny_board import BOARD, CHOSEN, random_probe, tiny_model

from micrographia.core.config import with_fields
from micrographia.core.errors import BadConfig, BadShape, MicrographiaError, UnreadableWeights, UserError
from micrographia.core.events import silent
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.store import read_tensors, write_bytes, write_tensors
from micrographia.core.store.formats import tensors_bytes
from micrographia.labs.othello.cases import FIELDS, cases_of, read_cases
from micrographia.labs.othello.config import tiny
from micrographia.labs.othello.published import model_of, of_mingpt, read_probes
from micrographia.labs.othello.run import run
from micrographia.labs.othello.studied import probe_bytes, read_probe

NAN = float("nan")


def spoilt(tensor):
    tensor = tensor.clone().float()
    tensor.view(-1)[0] = NAN
    return tensor


class TestTheProbeBesideAModel:
    @pytest.fixture
    def stored(self, tmp_path):
        """Write probes.safetensors with some tensors changed, or left out, and read it."""
        model = tiny_model()
        path = tmp_path / "probes.safetensors"
        write_bytes(path, probe_bytes(random_probe(model), CHOSEN))
        whole = read_tensors(path)

        def read(**changed):
            kept = {name: each for name, each in {**whole, **changed}.items() if each is not None}
            write_bytes(path, tensors_bytes({name: each.contiguous() for name, each in kept.items()}))
            return read_probe(path, model, BOARD)

        return read, whole

    def test_as_it_is_it_is_read(self, stored):
        read, _ = stored
        assert read()[1] == CHOSEN
        assert read(scale=None)[1] is None

    @pytest.mark.parametrize("name", ["weight", "bias"])
    def test_numbers_that_are_none_and_what_is_missing(self, stored, name):
        read, whole = stored
        with pytest.raises(BadShape, match="NaN or infinity"):
            read(**{name: spoilt(whole[name])})
        with pytest.raises(BadShape, match="Wanted"):
            read(**{name: None})
        with pytest.raises(BadShape, match="Wanted"):
            read(**{name: whole[name][..., :2]})

    @pytest.mark.parametrize(
        "changed",
        [
            {"layers": torch.tensor([0.5])},
            {"layers": torch.tensor([], dtype=torch.int64)},
            {"scale": torch.tensor([1.0, 2.0])},
            {"scale": torch.tensor([NAN])},
            {"scale": torch.tensor([float("inf")])},
        ],
    )
    def test_layers_and_a_scale_that_are_none(self, stored, changed):
        with pytest.raises(BadShape, match="whole numbers as layers, and one as scale"):
            stored[0](**changed)

    @pytest.mark.parametrize("layer", [-1, 2])
    def test_layers_that_the_model_has_not(self, stored, layer):
        with pytest.raises(BadShape, match="The model has 2 layers"):
            stored[0](layers=torch.tensor([0, layer]))


class TestPublishedProbes:
    @pytest.mark.parametrize(
        ("tensors", "said"),
        [
            ({"w": spoilt(torch.zeros(1, 8, 4, 4, 3))}, "NaN or infinity"),
            ({"w": torch.zeros(0, 8, 4, 4, 3)}, r"Found \[\(0, 8, 4, 4, 3\)\]"),
            ({"w": torch.zeros(1, 8, 4, 4, 2)}, r"should be \[modes, 8, 4, 4, 3\]"),
            ({"w": torch.zeros(1, 8, 6, 6, 3)}, r"should be \[modes, 8, 4, 4, 3\]"),
            ({"w": torch.zeros(8, 16, 3)}, r"Found \[\(8, 16, 3\)\]"),
            ({"a": torch.zeros(1, 8, 4, 4, 3), "b": torch.zeros(1, 8, 4, 4, 3)}, "should be"),
        ],
    )
    def test_what_is_no_file_of_probes(self, tmp_path, tensors, said):
        write_tensors(tmp_path / "probe.safetensors", tensors)
        with pytest.raises(BadShape, match=said):
            read_probes(tmp_path / "probe.safetensors", tiny(), 8)

    def test_a_run_refuses_them_before_it_trains(self, tmp_path):
        write_tensors(tmp_path / "probe.safetensors", {"w": torch.zeros(1, 8, 4, 4, 3)})
        config = with_fields(tiny(), probes=str(tmp_path / "probe.safetensors"))
        with pytest.raises(BadShape, match="modes, 32, 4, 4, 3"):
            run(config, out=tmp_path / "run")
        assert not (tmp_path / "run" / "model").exists()


class TestBenchmarkRows:
    ROW = {"history": [1, 0], "pos_int": 1, "ori_color": 2}  # noqa: RUF012 (never changed)

    @pytest.mark.parametrize(
        "changed",
        [
            {"history": "b1"},
            {"history": []},
            {"history": [1, 16]},
            {"history": [1, -1]},
            {"history": [1, 2.5]},
            {"history": [1, True]},
            {"history": [1, None]},
            {"history": [1] * 12},
        ],
    )
    def test_a_history_that_is_none(self, changed):
        with pytest.raises(UserError, match="history of case 0 should be a list of 1 to 11 squares"):
            cases_of(BOARD, [{**self.ROW, **changed}])

    @pytest.mark.parametrize(
        "changed",
        [
            {"pos_int": 16},
            {"pos_int": -1},
            {"pos_int": "b1"},
            {"pos_int": 1.5},
            {"ori_color": 3},
            {"ori_color": "black"},
        ],
    )
    def test_a_square_or_a_colour_that_is_none(self, changed):
        with pytest.raises(UserError, match="Case 0 should have a square from 0 to 15"):
            cases_of(BOARD, [{**self.ROW, **changed}])

    def test_no_rows_rows_without_a_field_and_files_that_hold_none(self, tmp_path):
        with pytest.raises(UserError, match="no case in it"):
            cases_of(BOARD, [])
        for text in ('[{"history": [1]}]', "[1]", "{}", "null"):
            (tmp_path / "cases.json").write_text(text)
            with pytest.raises(UserError, match=re.escape(", ".join(sorted(FIELDS)))):
                read_cases(tmp_path / "cases.json", BOARD)
        for path in ("cases.json", "none.json"):
            (tmp_path / "cases.json").write_text("[")
            with pytest.raises(UserError, match="cannot be read"):
                read_cases(tmp_path / path, BOARD)

    def test_a_run_refuses_them_before_it_trains(self, tmp_path):
        (tmp_path / "cases.json").write_text(json.dumps([{**self.ROW, "pos_int": 99}]))
        config = with_fields(tiny(), benchmark=str(tmp_path / "cases.json"))
        with pytest.raises(UserError, match="from 0 to 15"):
            run(config, out=tmp_path / "run")
        assert not (tmp_path / "run" / "model").exists()


class TestWeights:
    @pytest.mark.parametrize("name", ["embed.W_E", "blocks.1.mlp.W_in", "unembed.W_U"])
    def test_weights_that_are_not_finite(self, tmp_path, name):
        state = dict(tiny_model().state)
        write_tensors(tmp_path / "lens.safetensors", {**state, name: spoilt(state[name])})
        with pytest.raises(MicrographiaError, match="NaN or infinit"):
            model_of(with_fields(tiny(), model=str(tmp_path / "lens.safetensors")), silent)

    def test_mingpt_weights_that_are_not_finite_or_not_whole(self):
        tensors = {"tok_emb.weight": torch.zeros(13, 16), "head.weight": torch.zeros(13, 16)}
        with pytest.raises(UnreadableWeights, match=r"head.weight|unembed.W_U"):
            of_mingpt({**tensors, "head.weight": spoilt(tensors["head.weight"])}, 2)
        with pytest.raises(UnreadableWeights, match="missing or of another shape"):
            of_mingpt(tensors, 2)

    def test_a_model_that_reads_too_few_moves(self, tmp_path):
        arch = dataclasses.replace(tiny_model().arch, n_ctx=6)
        short = Transformer(arch, init_weights(arch, torch.Generator().manual_seed(0)), None)
        write_tensors(tmp_path / "short.safetensors", dict(short.state))
        with pytest.raises(BadConfig, match="have 11 moves to read"):
            model_of(with_fields(tiny(), model=str(tmp_path / "short.safetensors")), silent)
