"""Examples, offline explanations and judged ones, on a model whose latents are known: they read tokens."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from made import dictionary
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.errors import UserError
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.methods.dictionaries.evaluation import contexts as contexts_module
from micrographia.methods.dictionaries.evaluation import offline
from micrographia.methods.dictionaries.evaluation.autointerp import (
    detection_prompts,
    explanation_prompts,
    explanations_of,
    interpret,
    judged,
    key_lines,
    prompt_lines,
    read_answers,
    read_detection,
    read_key,
)
from micrographia.methods.dictionaries.evaluation.contexts import Contexts, gather_contexts
from micrographia.methods.dictionaries.evaluation.cues import CUES, best_prefixes, tokens_of
from micrographia.methods.dictionaries.evaluation.effects_on_logits import promoted_tokens
from micrographia.methods.dictionaries.evaluation.offline import explain_offline
from micrographia.methods.dictionaries.evaluation.reading import Counted

pytestmark = pytest.mark.usefixtures("unchecked")
V, D, CONTEXT = 12, 16, 10
ALL = Counted(skip_first=1)


def reader() -> Transformer:
    """A model whose stream at layer 0 holds each token on an axis of its own, and positions on none."""
    arch = Architecture(
        d_vocab=V, d_vocab_out=V, n_ctx=CONTEXT, n_layers=1, d_model=D, n_heads=2, d_head=4, d_mlp=8
    )  # fmt: skip
    weights = init_weights(arch, generator(0))
    weights["embed.W_E"] = torch.eye(V, D)
    weights["pos_embed.W_pos"] = torch.zeros(CONTEXT, D)
    return Transformer(arch, weights)


def tokens(n: int = 300, seed: int = 1) -> Tensor:
    return torch.randint(0, V, (n, CONTEXT), generator=generator(seed))


def reading(*sets: Sequence[int]) -> Dictionary:
    """A latent for each set of tokens; sizes grow with the token's number."""
    W = torch.zeros(D, len(sets))
    for i, each in enumerate(sets):
        for token in each:
            W[token, i] = 1 + token / 10
    b = torch.zeros(len(sets))
    weights = DictionaryWeights(W_enc=W, W_dec=W.T.contiguous(), b_enc=b, b_dec=torch.zeros(D))
    return Dictionary(weights, Form(activation="relu", subtract_b_dec=False))


def gathered(ids: Tensor, one: Dictionary, **choices: object) -> Contexts:
    return gather_contexts(one, reader(), ids, "embed", generator=generator(2), counted=ALL, **choices)  # pyright: ignore[reportArgumentType]


def test_the_top_examples_are_the_largest_of_each_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contexts_module, "BLOCK_BYTES", 4 * 3 * 40)  # four rows at once
    ids, one = tokens(37), dictionary(D, n=3, k=1)
    one = one.to(dtype=torch.float32)
    latents = one.encode(reader().run(ids, keep=["embed"]).cache["embed"]).abs()
    latents[:, 0] = 0
    found = gathered(ids, one, top=5)
    for latent in range(3):
        largest = latents[..., latent].amax(1)
        order = largest.argsort(descending=True)[: min(5, int((largest > 0).sum()))]
        passages = found.passages(latent)
        assert [each.values[each.at] for each in passages] == pytest.approx(largest[order].tolist())
        for each in passages:
            assert each.tokens[each.at] == int(ids[each.row, each.pos])
            window = range(each.pos - each.at, each.pos - each.at + len(each.tokens))
            assert each.tokens == tuple(ids[each.row, list(window)].tolist())
            for pos, value in zip(window, each.values):
                assert value == pytest.approx(float(latents[each.row, pos, latent])) or (pos == 0 and value != value)
    assert found.counts.tolist() == (latents > 0).sum((0, 1)).tolist()
    assert found.n_tokens == 37 * 9


def test_samples_are_firing_tokens_and_silent_rows_have_none():
    ids = tokens(200)
    found = gathered(ids, reading([3], [4, 5], list(range(V))), sample=30, silent_ones=8)
    for latent, tokens_of_it in ((0, {3}), (1, {4, 5})):
        sample, quiet = found.passages(latent, "sample"), found.passages(latent, "silent")
        assert len(sample) == 30
        assert len(quiet) == 8
        assert len({each.row for each in sample}) == 30
        assert all(each.tokens[each.at] in tokens_of_it for each in sample)
        assert not any(tokens_of_it & set(ids[each.row, 1:].tolist()) for each in quiet)
    assert found.passages(2, "silent") == []
    quantiles = found.quantiles(1, 3)
    assert [len(each) for each in quantiles] == [10, 10, 10]
    assert min(q.values[q.at] for q in quantiles[0]) >= max(q.values[q.at] for q in quantiles[2])


def test_a_sample_is_uniform_over_tokens():
    """A row with eight firings is drawn about eight times as often as one with a single firing."""
    ids = torch.zeros(40, CONTEXT, dtype=torch.long)
    ids[:20, 1:9] = 3
    ids[20:, 1] = 3
    drawn = torch.zeros(40)
    for seed in range(60):
        found = gather_contexts(
            reading([3]), reader(), ids, "embed", generator=generator(seed), sample=2, counted=ALL
        )  # fmt: skip
        drawn[found.sample.row[:, 0]] += 1
    assert 0.8 < float(drawn[:20].sum() / drawn.sum()) < 0.96  # 8 / 9 of the tokens


def test_examples_of_chosen_latents_and_what_is_not_gathered():
    found = gathered(tokens(20), reading([3], [4], [5]), latents=torch.tensor([2]))
    assert found.passages(2)[0].tokens[found.passages(2)[0].at] == 5
    with pytest.raises(UserError, match="gathered of others"):
        found.passages(0)


@pytest.mark.parametrize("kind", CUES)
def test_cues_are_what_they_say(kind: str):
    ids = tokens(3)
    found = CUES[kind](ids, V)
    for row in range(3):
        for pos in range(CONTEXT):
            at = {
                "token": [pos], "token before": [pos - 1], "token and the one before": [pos - 1, pos],
                "two tokens before": [pos - 2, pos - 1], "token that follows": [pos + 1],
            }[kind]  # fmt: skip
            key = int(found[row, pos])
            if min(at) < 0 or max(at) >= CONTEXT:
                assert key == -1
            else:
                assert tokens_of(kind, key, V) == ids[row, at].tolist()


def test_the_best_prefix_of_each_latent_is_that_of_loops():
    both = torch.tensor([[4, 6, 3, 1], [0, 2, 0, 0], [0, 0, 0, 0]])
    seen = torch.tensor([[4, 7, 6, 9], [1, 2, 0, 0], [3, 2, 0, 0]])
    fires = torch.tensor([15, 4, 7])
    by_hand = [
        [2 * sum(b[: i + 1]) / (sum(s[: i + 1]) + n) for i in range(4)]
        for b, s, n in zip(both.tolist(), seen.tolist(), fires.tolist())
    ]
    lengths, f1 = best_prefixes(both, seen, fires)
    assert f1.tolist() == pytest.approx([max(each) for each in by_hand])
    assert lengths.tolist() == [by_hand[0].index(max(by_hand[0])) + 1, 2, 0]
    assert best_prefixes(both[:, :1], seen[:, :1], fires)[0].tolist() == [1, 0, 0]
    assert best_prefixes(both[:, :0], seen[:, :0], fires)[1].tolist() == [0, 0, 0]


def shifted(model: Transformer) -> Transformer:
    """The same model, whose stream holds the token before: tokens are moved by one on the way in."""

    class Moved(Transformer):
        def run(self, inputs: Tensor, **choices: object):  # type: ignore[override]
            moved = torch.cat([torch.zeros_like(inputs[:, :1]), inputs[:, :-1]], 1)
            return super().run(moved, **choices)  # pyright: ignore[reportArgumentType]

    return Moved(model.arch, model.state)


def test_latents_that_read_tokens_are_explained_by_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offline, "BLOCK_BYTES", 4 * 4 * 70)
    found = explain_offline(
        reading([3], [4, 7], [], [8, 9, 10]), reader(), tokens(), "embed", generator=generator(5), counted=ALL
    )
    assert found.n_tokens == (1350, 1350)
    by_latent = {each.latent: each for each in found.explained}
    for latent, said in ((0, {"3"}), (1, {"4", "7"}), (3, {"8", "9", "10"})):
        one = by_latent[latent]
        assert one.kind == "token"
        assert set(one.text.split(", ")) == said
        assert one.detected[:3] == (1, 1, 1)
        assert one.detected.accuracy == 1
        assert one.is_recognisable
        assert one.null.f1 < 0.3
    dead = by_latent[2]
    assert dead.text == "nothing found"
    assert not dead.is_recognisable
    assert len(found.recognisable) == 3
    assert found.mean() == 1
    assert found.mean(null=True) < 0.7
    assert "3 of 3 latents" in str(found)
    assert found.figures()[0].kind == "table"


def test_latents_that_read_the_token_before_are_explained_by_it():
    found = explain_offline(
        reading([3], [4, 7]),
        shifted(reader()),
        tokens(),
        "embed",
        generator=generator(5),
        counted=Counted(skip_first=2),
    )
    assert [each.kind for each in found.explained] == ["token before"] * 2
    assert [each.detected.f1 for each in found.explained] == [1, 1]
    assert found.explained[0].by_kind["token"].f1 < 0.3
    assert found.explained[0].by_kind["token and the one before"].f1 > 0.9  # as good, and not as simple


def test_scores_are_those_of_loops():
    """A latent that fires at a token in half of its places: precision 1/2, recall 1."""
    ids = tokens(200)
    one = reading([3], [4])
    halves = explain_offline(
        one, reader(), ids, "embed", generator=generator(5), counted=ALL, levels=torch.tensor([0.0, 1.3])
    )
    second = ids[100:, 1:]
    n, fires = second.numel(), int((second == 3).sum())
    first = next(each for each in halves.explained if each.latent == 0)
    assert first.n_fires == fires
    other = next(each for each in halves.explained if each.latent == 1)
    assert other.n_fires == int((second == 4).sum())  # 1.4 exceeds its level
    null = first.null  # the explanation "4" for the latent that reads 3
    said = int((second == 4).sum())
    assert null.f1 == 0
    assert null.accuracy == pytest.approx((0 + 1 - said / (n - fires)) / 2)


def test_explanations_do_not_fit_by_chance():
    """Latents that fire at random: the best of many cues on one half is worth little on the other."""
    one, of = dictionary(D, n=30, k=2).to(dtype=torch.float32), reader()
    state = {**of.state, "embed.W_E": 0 * of.state["embed.W_E"]}
    state["pos_embed.W_pos"] = 3 * torch.randn(CONTEXT, D, generator=generator(4))  # they fire by position alone
    blind = Transformer(of.arch, state)
    found = explain_offline(one, blind, tokens(100), "L0.resid_pre", generator=generator(5), counted=ALL)
    live = [each for each in found.explained if each.n_fires > 10]
    assert len(live) > 3
    assert found.mean() == pytest.approx(0.5, abs=0.05)
    assert found.mean(null=True) == pytest.approx(0.5, abs=0.05)
    assert not found.recognisable


def test_tokens_whose_logits_are_raised():
    of = reader()
    W_U = of.weights.W_U
    weights = DictionaryWeights(
        W_enc=torch.randn(D, 3, generator=generator(0)), W_dec=W_U.T[[5, 2, 9]].contiguous(), b_enc=torch.zeros(3),
        b_dec=torch.zeros(D),
    )  # fmt: skip
    found = promoted_tokens(Dictionary(weights, Form()), of, Site("resid_post", 0), torch.arange(3), 4)
    assert found is not None
    expected = (weights.W_dec @ W_U).topk(4).indices
    assert torch.equal(found, expected)
    assert found[:, 0].tolist() == [5, 2, 9]
    through = promoted_tokens(dictionary(8, n=3).to(dtype=torch.float32), of, Site("neurons", 0), torch.arange(3), 2)
    assert through is not None
    rows = dictionary(8, n=3).weights.W_dec.float() @ of.weights.W_out[0] @ W_U
    assert torch.equal(through, rows.topk(2).indices)
    heads = promoted_tokens(dictionary(8, n=3).to(dtype=torch.float32), of, Site("z", 0), torch.arange(3), 2)
    assert heads is not None
    rows = dictionary(8, n=3).weights.W_dec.float() @ of.weights.W_O[0].flatten(0, 1) @ W_U
    assert torch.equal(heads, rows.topk(2).indices)
    assert promoted_tokens(dictionary(8, n=3), of, Site("mlp_pre", 0), torch.arange(3), 2) is None


def words(ids: Sequence[int]) -> list[str]:
    return [f" w{i}" for i in ids]


def oracle(prompts: Sequence[str]) -> list[str]:
    """A judge that says what is marked, and finds the passages that hold it."""
    answers = []
    for prompt in prompts:
        lines = prompt.splitlines()
        if "<<" in prompt:
            marked = [part.partition(">>")[0].strip() for part in prompt.split("<<")[2:]]
            answers.append(max(set(marked), key=marked.count))
        else:
            said = lines[0].rpartition(": ")[2]
            found = [line.partition(".")[0] for line in lines if said in line.split()[1:] and line[0].isdigit()]
            answers.append(", ".join(found) or "none")
    return answers


def both_halves() -> tuple[Contexts, Contexts]:
    one = reading([3], [4], [5], [6])
    return gathered(tokens(60, 1), one), gathered(tokens(60, 2), one)


def test_a_good_judge_scores_one_and_another_latents_explanation_does_not():
    found = interpret(*both_halves(), words, oracle, generator=generator(0))
    assert [each.explanation for each in sorted(found.judged)] == ["w3", "w4", "w5", "w6"]
    assert found.accuracy == 1
    assert 0.2 < found.null_accuracy < 0.8
    assert found.unreadable == ()
    assert "Detection accuracy 1.00" in found.figures()[0].caption


def test_a_judge_at_chance_scores_a_half():
    answers = iter(["all"] * 4 + ["1, 2, 3, 4, 5, 6, 7, 8, 9, 10"] * 8)
    found = interpret(*both_halves(), words, lambda prompts: [next(answers) for _ in prompts], generator=generator(0))
    assert found.accuracy == 0.5
    assert {(each.precision, each.recall) for each in found.judged} == {(0.5, 1.0)}


def test_prompts_go_out_and_answers_come_back_as_files(tmp_path: Path):
    explaining, detecting = both_halves()
    prompts = explanation_prompts(explaining, words)
    (tmp_path / "prompts.jsonl").write_bytes(prompt_lines(prompts))
    records = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert {record["task"] for record in records} == {"explain"}
    said = [{"id": r["id"], "answer": a} for r, a in zip(records, oracle([r["prompt"] for r in records]))]
    (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, said)) + "\n\n")
    explanations = explanations_of(read_answers(tmp_path / "said.jsonl"))
    assert explanations == {0: "w3", 1: "w4", 2: "w5", 3: "w6"}
    detections = detection_prompts(explanations, detecting, words, generator=generator(0))
    (tmp_path / "key.jsonl").write_bytes(key_lines(detections))
    again = read_key(tmp_path / "key.jsonl")
    assert again == detections
    assert not any("True" in each.prompt.prompt for each in again)
    answers = {each.prompt.id: oracle([each.prompt.prompt])[0] for each in again}
    assert judged(again, answers, explanations).accuracy == 1
    with pytest.raises(UserError, match=r"1 are missing: detect/0"):
        judged(again, {name: text for name, text in answers.items() if name != "detect/0"}, explanations)
    (tmp_path / "bad.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(UserError, match=r"Line 1 of .* lacks answer"):
        read_answers(tmp_path / "bad.jsonl")
    (tmp_path / "bad.jsonl").write_text("not json\n")
    with pytest.raises(UserError, match="is no JSON"):
        read_answers(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("2", (False, True)), ("None", (False, False)), ("1,2.", (True, True)), ("3", None), ("?", None)],
)
def test_answers_are_read(answer: str, expected: tuple[bool, ...] | None):
    assert read_detection(answer, 2) == expected


def test_answers_that_cannot_be_read_count_for_nothing():
    answers = iter(["x"] * 4 + ["?"] * 8)
    found = interpret(*both_halves(), words, lambda prompts: [next(answers) for _ in prompts], generator=generator(0))
    assert found.judged == ()
    assert len(found.unreadable) == 8


def test_what_cannot_be_interpreted_is_refused():
    with pytest.raises(UserError, match="Give two or more of each"):
        explain_offline(reading([3], [4]), reader(), tokens(1), "embed", generator=generator(0))
    with pytest.raises(UserError, match="It gave 0 texts"):
        interpret(*both_halves(), words, lambda prompts: [], generator=generator(0))
