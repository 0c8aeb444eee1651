"""The commands that ask a model: one object with --json, words and a report, and a sentence for every mistake."""

import json

import pytest

from micrographia.core.store import load_run
from micrographia.faces.cli.main import main
from miniature import ASKED, CLEAN, CORRUPT, WORDS, pairs_file, save_gpt2, save_run


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return save_gpt2(tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "trained")


def asked(*words, model, out=None, **replaced):
    """The exit code of `patch` on the standing pair, some of its words replaced."""
    pair = list(ASKED)
    for name, value in replaced.items():
        pair[pair.index(f"--{name}") + 1] = value
    place = [] if out is None else ["--out", str(out)]
    return main(["patch", "--model", str(model), "--threads", "1", *pair, *words, *place])


def test_patch_prints_one_object(trained, tmp_path, capsys):
    assert asked("--sites", "L*.z", "--by", "head,pos", "--json", model=trained, out=tmp_path / "r") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_prompts"] == 1
    assert found["baselines"][0]["metric"] == "logit difference"
    assert {"restored", "destroyed", "denoise_change", "noise_change"} <= found["places"][0].keys()
    assert found["prompts"][0]["clean_tokens"][:2] == ["<bos>", "When"]
    assert found["config"]["by"] == "head,pos"
    assert (tmp_path / "r" / "report.html").exists()
    assert main(["verify", str(tmp_path / "r")]) == 0


def test_in_words_it_fits_80_columns_and_ends_with_the_report(gpt2, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert asked("--sites", "L*.z", "--by", "head,pos", model=gpt2, out=tmp_path / "r") == 0
    told = capsys.readouterr().out
    for each in load_run(tmp_path / "r").results["summary"]:
        assert " ".join(each.split()) in " ".join(told.split())
    assert "report.html" in told
    assert max(len(line) for line in told.splitlines() if str(tmp_path) not in line) <= 80


def test_a_lens_in_words_fits_80_columns(gpt2, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = [
        "lens",
        "--model",
        str(gpt2),
        "--prompt",
        CLEAN,
        "--corrupt",
        CORRUPT,
        "--answer",
        "Mary",
        "--wrong",
        "John",
    ]
    assert main([*words, "--threads", "1", "--device", "cpu", "--out", str(tmp_path / "r")]) == 0
    told = capsys.readouterr().out
    assert max(len(line) for line in told.splitlines() if str(tmp_path) not in line) <= 80


def test_what_whole_sites_do_at_once_is_in_words_and_json(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = ["attribute", "--model", str(trained), "--threads", "1", *ASKED, "--sites", "L*.z", "--out"]
    assert main([*words, str(tmp_path / "r"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["wholes"]
    assert {row["what"] for row in found} == {"L0.z", "L1.z", "all z"}
    assert main([*words, str(tmp_path / "s"), "--verbose"]) == 0
    assert found[0]["so"] in capsys.readouterr().out


def test_a_finished_question_needs_only_its_folder_to_be_printed_again(trained, tmp_path, capsys):
    words = ["--prompts", str(pairs_file(tmp_path / "pairs.jsonl")), "--device", "cpu", "--threads", "1"]
    assert main(["patch", "--model", str(trained), *words, "--out", str(tmp_path / "r"), "--json"]) == 0
    first = capsys.readouterr().out
    assert main(["patch", "--resume", "--out", str(tmp_path / "r"), "--json"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("words", [
    ["attribute", *ASKED, "--sites", "L*.z", "--verify", "8"],
    ["attribute", *ASKED, "--strongest", "5", "--verify", "3"],
    ["attribute", *ASKED, "--method", "edges", "--verify", "4"],
    ["trace", "--prompt", CLEAN, "--subject", "Mary and", "--answer", "book", "--samples", "2", "--device", "cpu"],
    ["circuit", *ASKED, "--n", "3", "--null", "4", "--device", "cpu"],
    ["lens", "--prompt", CLEAN, "--corrupt", CORRUPT, "--answer", "Mary", "--wrong", "John", "--device", "cpu"],
    ["lens", "--prompt", CLEAN, "--device", "cpu"],
    ["ablate", "--texts", CLEAN, "--answer", "Mary", "--wrong", "John", "--device", "cpu"],
    ["heads", "--span", "6", "--device", "cpu"],
])  # fmt: skip
def test_every_question_can_be_asked_of_a_run_of_ours(trained, tmp_path, capsys, words):
    command, *rest = words
    assert (
        main([command, "--model", str(trained), "--threads", "1", *rest, "--out", str(tmp_path / "r"), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["question"] == command
    assert main(["report", str(tmp_path / "r"), "--terminal"]) == 0
    assert ", finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", ["patch", "attribute", "trace", "circuit", "lens", "ablate", "probe", "heads", "steer", "generate"]
)
def test_the_help_of_a_question_imports_no_torch(command, helped):
    assert helped[command].code == 0
    assert "--model" in helped[command].told
    assert not {"torch", "numpy", "transformers"} & helped[command].modules


def refused(capsys, code, says, *, expected=1):
    said = capsys.readouterr()
    assert code == expected, said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    for part in says:
        assert part in said.err
    return said.err


def test_an_unknown_site_gets_the_nearest_names(trained, capsys):
    refused(capsys, asked("--sites", "L0.mlp_outt", "--json", model=trained), ["L0.mlp_outt", "mlp_out"])
    refused(capsys, asked("--sites", "L7.z", "--json", model=trained), ["L7.z", "L1.z"])


def test_prompts_of_different_length_are_shown_token_by_token(trained, capsys):
    told = refused(capsys, asked("--json", model=trained, corrupt=f"{CORRUPT} the"), ["15", "16", "Reword"])
    assert "'Mary'" in told
    assert "  -" in told or "-  '" in told


def test_an_answer_of_several_tokens_is_refused_unless_its_first_may_stand_for_it(trained, gpt2, tmp_path, capsys):
    for model in (trained, gpt2):
        refused(capsys, asked("--json", model=model, answer="Mary and"), ["one token", "Mary | and"])
    assert asked("--first-token", "--json", model=trained, answer="Mary and", out=tmp_path / "r") == 0


def test_empty_selections_and_wrong_choices_are_wrong_usage(trained, capsys):
    refused(capsys, asked("--sites", ",", model=trained), ["sites is empty"], expected=2)
    refused(capsys, asked("--by", "token", model=trained), ["'token'"], expected=2)
    refused(capsys, main(["patch", "--model", str(trained), "--clean", CLEAN]), ["answer"], expected=2)


def test_a_site_without_an_axis_says_which_it_has(trained, capsys):
    refused(capsys, asked("--sites", "L*.mlp_out", "--by", "head", model=trained), ["head", "pos"])


def test_a_model_without_a_tokenizer_is_told_so(tmp_path, capsys):
    bare = save_gpt2(tmp_path / "bare", tokenizer=False)
    refused(capsys, asked(model=bare), ["no tokenizer"])


def test_a_prompt_longer_than_the_context_says_both_lengths(trained, gpt2, capsys):
    long = " ".join(WORDS[2:] * 2)
    for model in (trained, gpt2):
        refused(capsys, asked(model=model, clean=long, corrupt=long), ["at most 24"])


def test_a_word_that_is_not_in_the_vocabulary_gets_its_nearest(trained, capsys):
    refused(capsys, asked(model=trained, clean=CLEAN.replace("drink", "drinks")), ["'drinks'", "drink"])


def test_an_unknown_model_offline_is_a_sentence(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(capsys, asked(model="no-such-model-anywhere"), ["no-such-model-anywhere"])


def test_a_metric_that_needs_a_wrong_answer_says_so(trained, tmp_path, capsys):
    pair = ["--clean", CLEAN, "--corrupt", CORRUPT, "--answer", "Mary", "--device", "cpu"]
    refused(capsys, main(["patch", "--model", str(trained), *pair]), ["wrong"])
    assert (
        main(["patch", "--model", str(trained), *pair, "--metrics", "prob", "--out", str(tmp_path / "r"), "--json"])
        == 0
    )
