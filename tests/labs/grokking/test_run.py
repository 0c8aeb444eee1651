"""A run is resumable at any instant, says what went wrong, and never loses what is there."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from micrographia.core.config import flat, with_fields
from micrographia.core.errors import BadConfig, Corrupt, Interrupted, NonFiniteLoss, RunExists
from micrographia.core.events import Note, Progress
from micrographia.core.small.trained import load_trained
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import load_run, read_metrics, read_tensors, snapshots, verify
from micrographia.labs.grokking.config import Config, tiny
from micrographia.labs.grokking.run import TOO_SHORT, opening, run
from micrographia.labs.grokking.task import architecture

SMALL = {"modulus": 11, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 24}
SMALL |= {"epochs": 60, "snapshots": 8, "checkpoint_every": 10}


def smallest(**changes) -> Config:
    """Seconds even on a busy machine: p = 11, a few dozen epochs."""
    return with_fields(tiny(), **{**SMALL, **changes})


def everything(folder: Path) -> dict[str, bytes]:
    """All that must not depend on when a run was stopped: weights, metrics, figures, results, claims.

    How the rows are spread over checkpoints does depend on it (a request to stop makes one more); together they are
    the metrics.
    """
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name != "rows.parquet"]
    kept = [path for path in kept if path.suffix in (".safetensors", ".parquet") or path.name in SAME]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


SAME = ("results.json", "figures.json", "claims.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, unchecked_module):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return run(smallest(), out=out)


def write_config(path: Path, config: Config) -> Path:
    path.write_text(json.dumps(flat(config)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def forks():
    """Processes forked from one that has loaded the lab and nothing else, so that each begins at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "micrographia.labs.grokking.run"])
    return context


def start(config: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-W", "ignore", "-m", "micrographia.labs.grokking", str(config), str(out)]
    source = str(Path(__file__).parents[3] / "src")
    env = {**os.environ, "PYTHONPATH": source}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_finished_run_holds_what_a_reader_needs(whole):
    assert whole.status == "finished"
    assert {"config", "phases", "key_frequencies", "measures", "claims"} <= set(whole.results)
    assert len(read_metrics(whole.path)["epoch"]) == 61
    assert whole.figures
    assert verify(whole.path) == []


def test_the_preset_that_is_too_short_to_grok_says_so_first(whole):
    grokked = {**whole.results, "measures": {**whole.results["measures"], "test_accuracy": 1.0}}
    short, other = opening(whole.results, preset="tiny"), opening(whole.results, preset="quick")
    assert short == [TOO_SHORT + other[0], *other[1:]]
    assert TOO_SHORT not in opening(grokked, preset="tiny")[0]


@pytest.mark.parametrize(
    ("train", "test", "state"),
    [
        (0.01, 0.01, "has not learned the task"),
        (0.6, 0.02, "has learned part of the task"),
        (1.0, 0.02, "has memorised only"),
        (1.0, 0.3, "is partway through grokking"),
        (1.0, 0.933, "is partway through grokking"),
        (1.0, 0.995, "generalises"),
    ],
)
def test_every_state_of_a_network_has_its_sentence(whole, train, test, state):
    measures = {**whole.results["measures"], "n": 113, "train_accuracy": train, "test_accuracy": test}
    first, *_ = opening({**whole.results, "measures": measures})
    assert first.startswith(f"The network {state}: ")
    assert f"{test:.1%}" in first or state == "generalises"


def test_no_caption_says_of_every_network_what_a_grokked_one_shows(whole):
    """The network of this Run learned nothing."""
    assert whole.results["measures"]["test_accuracy"] < 0.5
    told = {figure.name: figure.caption for figure in whole.figures if "grok" in figure.caption.lower()}
    assert {"losses", "progress", "weights", "fve", "neurons", "attention"} <= told.keys()
    for name, caption in told.items():
        assert re.search(r"(In|After|after|in) grokking|grokking is", caption), name


def test_the_same_config_gives_the_same_bytes(whole, tmp_path):
    again = run(smallest(), out=tmp_path / "again")
    assert everything(again.path) == everything(whole.path)


def test_the_comparison_sees_a_changed_bit(whole, tmp_path):
    other = run(smallest(seed=1), out=tmp_path / "other")
    assert everything(other.path) != everything(whole.path)


def test_a_run_killed_at_random_points_and_resumed_is_bit_identical(whole, tmp_path, forks):
    """The last process is a fresh one, begun from a shell."""
    out = tmp_path / "killed"
    config = write_config(tmp_path / "config.json", smallest())
    dice = random.Random(0)
    for kill in range(3):
        process = forks.Process(target=run, args=(smallest(),), kwargs={"out": out, "resume": True})
        process.start()
        wanted = dice.randrange(1, 3) + 2 * kill
        deadline = time.monotonic() + 120
        while process.is_alive() and time.monotonic() < deadline:
            if len(list(out.glob("checkpoints/0*"))) >= wanted:
                break
            time.sleep(0.002)
        time.sleep(dice.random() * 0.05)
        process.kill()
        process.join()
        process.close()
    process = start(config, out)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    assert printed.decode().strip() == str(out)
    assert everything(out) == everything(whole.path)
    assert verify(out) == []


def test_a_request_to_stop_saves_and_resumes_to_the_same_bytes(whole, tmp_path):
    out = tmp_path / "stopped"

    def stop_at_23(event):
        if isinstance(event, Progress) and event.stage == "train" and event.done == 23:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="epoch 23"):
        run(smallest(), out=out, watch=stop_at_23)
    assert load_run(out).status == "interrupted"
    resumed = run(smallest(), out=out, resume=True)
    assert everything(resumed.path) == everything(whole.path)


def test_an_existing_run_is_refused_without_resume_and_kept(whole):
    before = everything(whole.path)
    with pytest.raises(RunExists, match="resume"):
        run(smallest(), out=whole.path)
    assert everything(whole.path) == before


def test_resuming_a_finished_run_gives_its_results_again(whole):
    assert run(smallest(), out=whole.path, resume=True).results == whole.results


def test_resuming_with_another_config_names_the_difference(whole):
    with pytest.raises(BadConfig, match="lr"):
        run(smallest(lr=1e-4), out=whole.path, resume=True)


def test_resume_in_an_absent_folder_begins_afresh(whole, tmp_path):
    assert everything(run(smallest(), out=tmp_path / "new", resume=True).path) == everything(whole.path)


def test_a_loss_that_explodes_stops_the_run_and_names_the_last_good_checkpoint(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"[Ss]tep \d+.*(checkpoint)"):
        run(smallest(lr=1e30, warmup=0, weight_decay=0.0), out=tmp_path / "hot")
    assert load_run(tmp_path / "hot").status == "failed"


def test_a_damaged_checkpoint_is_found_and_the_one_before_is_used_and_named(whole, tmp_path):
    out = tmp_path / "damaged"

    def stop_at_45(event):
        if isinstance(event, Progress) and event.stage == "train" and event.done == 45:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run(smallest(), out=out, watch=stop_at_45)
    state = out / "checkpoints" / "00000045" / "state.safetensors"
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)
    notes = []
    resumed = run(smallest(), out=out, resume=True, watch=notes.append)
    told = " ".join(note.text for note in notes if isinstance(note, Note))
    assert "45" in told
    assert "40" in told
    assert everything(resumed.path) == everything(whole.path)


def test_an_altered_file_is_named_by_verify(tmp_path):
    done = run(smallest(epochs=20), out=tmp_path / "altered")
    victim = sorted(done.path.glob("snapshots/*"))[0]
    victim.write_bytes(victim.read_bytes()[:-4])
    assert victim.name in " ".join(map(str, verify(done.path)))


def test_the_thread_count_is_stored_and_reused(whole):
    assert whole.config["threads"] == 1
    assert whole.provenance["threads"] == 1


def test_a_plain_and_a_fast_run_agree_while_rounding_has_not_spread(tmp_path):
    losses = {}
    for plan in ("plain", "fast"):
        done = run(smallest(plan=plan, dtype="float64", epochs=40), out=tmp_path / plan)
        losses[plan] = read_metrics(done.path)["train_loss"]
    assert losses["plain"] == pytest.approx(losses["fast"], rel=1e-9)


def test_reading_a_run_with_an_unreadable_record_says_so(tmp_path):
    done = run(smallest(epochs=10), out=tmp_path / "broken")
    (done.path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(Corrupt, match=r"run\.json"):
        load_run(done.path)


def test_the_network_of_a_run_is_a_model_for_every_instrument(whole):
    model = load_trained(whole.path)
    weights = read_tensors(max(snapshots(whole.path).items())[1])
    prompt = model.to_tokens("3 5 =")
    assert prompt.tolist() == [[3, 5, 11]]
    same = Transformer(architecture(smallest()), weights).run(prompt)
    assert torch.equal(model.run(prompt).logits, same.logits)
