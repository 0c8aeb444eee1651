"""Causal tracing: against a plain loop over layers and positions, and its baselines, windows and severed kinds."""

import pytest
import torch

from micrographia.core.edits import add, put
from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.small.architecture import Architecture
from micrographia.methods.tracing import (
    ALL_NOISE,
    NO_NOISE,
    Traced,
    subject_noise,
    subject_token,
    trace,
    window_of,
)
from small import small_model, some_tokens

ARCH = Architecture(
    d_vocab=7, d_vocab_out=6, n_ctx=5, n_layers=4, d_model=10, n_heads=3, d_head=4, d_mlp=12, norm="layernorm"
)
MODEL = small_model(ARCH, dtype=torch.float64)
PROMPT = some_tokens(ARCH, batch=1)
SUBJECT = [1, 2]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def plain(layers_of, kind="resid_post", severed=(), n_samples=10):
    """One run a cell, as published: noise on the subject's embeddings, then clean states put back."""
    logits, clean = MODEL.run(PROMPT, keep=MODEL.sites)
    answer = int(logits[0, -1].argmax())
    std = 3 * clean["embed"][0, SUBJECT].std()
    noise = add("embed", std * torch.randn(n_samples, 2, ARCH.d_model, generator=seeded()).double(), pos=SUBJECT)
    rows = PROMPT.expand(n_samples, -1)
    low, noised = MODEL.run(rows, edits=[noise], keep=MODEL.sites)
    table = torch.zeros(ARCH.n_layers, ARCH.n_ctx).double()
    for layer in range(ARCH.n_layers):
        for pos in range(ARCH.n_ctx):
            back = [put(f"L{i}.{kind}", clean[f"L{i}.{kind}"][:, pos], pos=pos) for i in layers_of(layer)]
            held = [
                put(f"L{i}.{cut}", noised[f"L{i}.{cut}"][:, pos], pos=pos)
                for cut in severed
                for i in range(ARCH.n_layers)
            ]
            logits_here = MODEL.run(rows, edits=[noise, *held, *back]).logits
            table[layer, pos] = logits_here[:, -1].softmax(-1)[:, answer].mean()
    return table, low[:, -1].softmax(-1)[:, answer].mean().item(), logits[0, -1].softmax(-1)[answer].item()


def test_single_states_are_the_plain_loop_with_both_baselines():
    found = trace(MODEL, PROMPT, SUBJECT, seeded())
    table, low, high = plain(lambda layer: [layer])
    assert torch.allclose(found.values, table)
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)
    assert found.samples.shape == (ARCH.n_layers, ARCH.n_ctx, 10)
    assert found.window == 1
    assert torch.allclose(found.indirect_effect(), table - low)
    assert torch.allclose(found.values[-1, -1], torch.tensor(high).double())  # the last state is the answer
    assert torch.allclose(found.values[:, 0], torch.tensor(low).double())  # what is before the subject is clean anyway


@pytest.mark.parametrize(("state", "window"), [("mlp_out", None), ("attn_out", 2), ("mlp_out", 3)])
def test_windows_of_layers_are_restored_together(state, window):
    found = trace(MODEL, PROMPT, SUBJECT, seeded(), state=state, window=window)
    width = window or 1
    table, _, _ = plain(lambda l: range(max(0, l - width // 2), min(4, l - (-width // 2))), state)
    assert found.window == width
    assert torch.allclose(found.values, table)


def test_a_window_of_every_layer_is_left_out():
    found = trace(MODEL, PROMPT, SUBJECT, seeded(), state="attn_out", window=6)
    assert found.values.isnan().all(1).tolist() == [False, True, True, True]
    assert not {layer for stay in found.ranges() for layer in range(stay.first, stay.last + 1)} & {1, 2, 3}
    assert window_of(4) == window_of(1) == 1


def test_a_trace_prints_what_could_have_been_otherwise():
    """The last state of the last position is the answer itself, whatever the model does."""
    effect = torch.zeros(3, 4, 2)
    effect[0:2, 1], effect[:, 3] = 0.5, torch.tensor([0.1, 0.4, 0.9])[:, None]
    found = Traced("resid_post", (), 1, effect.mean(-1), effect, 0.0, 0.9, 3, 0.1, (1,))
    _, _, *rows = str(found).splitlines()
    assert [row.split() for row in rows] == [["position", "1*", "layers", "0", "to", "1", "+0.5", "restored"]]
    assert "position 3" in str(found._replace(state="mlp_out"))


def test_the_curve_is_of_the_token_that_restores_most_on_the_scale_of_the_pictures():
    effect = torch.zeros(3, 4, 2)
    effect[1, 0], effect[:, 2] = 0.3, 0.01
    found = Traced("resid_post", (), 1, effect.mean(-1), effect, 0.0, 0.9, 3, 0.1, (0, 2))
    figure = subject_token({"one state": found}, ["0 Ei", "1 x", "2 Tower", "3 y"])
    assert figure.title.endswith("'Ei' (0)")
    curves = dict(zip(figure.data["names"], figure.data["y"]))
    assert curves["one state"].tolist() == pytest.approx([0.0, 0.3, 0.0])
    assert {curves[NO_NOISE][0], curves[ALL_NOISE][0]} == {0.9, 0.0}


@pytest.mark.parametrize("severed", [("mlp_out",), ("attn_out",), ("mlp_out", "attn_out")])
def test_a_severed_kind_stays_as_it_was_under_noise(severed):
    found = trace(MODEL, PROMPT, SUBJECT, seeded(), severed=severed)
    table, low, _ = plain(lambda layer: [layer], severed=severed)
    assert torch.allclose(found.values, table)
    assert found.severed == severed
    assert found.low == pytest.approx(low)
    assert not torch.allclose(table, plain(lambda layer: [layer])[0])


def test_the_plans_agree_and_other_draws_differ():
    fast, strict = (trace(MODEL, PROMPT, SUBJECT, seeded(), plan=plan) for plan in ("fast", "strict"))
    assert torch.allclose(fast.values, strict.values, atol=1e-12)
    other = trace(MODEL, PROMPT, SUBJECT, torch.Generator().manual_seed(1), n_samples=3, answer=0)
    assert other.answer == 0
    assert other.samples.shape[-1] == 3


def test_the_noise_of_the_paper_is_taken_over_all_subjects():
    subjects = [PROMPT[:, :2], PROMPT[:, 3:4]]
    embedded = MODEL.state["embed.W_E"][torch.cat(subjects, 1)[0]]
    assert subject_noise(MODEL, subjects) == pytest.approx(3 * embedded.std().item())
    given = trace(MODEL, PROMPT, SUBJECT, seeded(), noise_std=1e-12)
    assert torch.allclose(given.values, torch.full_like(given.values, given.high), rtol=0, atol=1e-10)
    assert given.low == pytest.approx(given.high, abs=1e-10)
    assert trace(MODEL, PROMPT, SUBJECT, seeded()).low < given.high - 1e-6


def test_what_cannot_be_traced_is_refused():
    with pytest.raises(BadPrompt, match="one at a time"):
        trace(MODEL, PROMPT.expand(2, -1), SUBJECT, seeded())
    with pytest.raises(BadPrompt, match="5 positions"):
        trace(MODEL, PROMPT, [7], seeded())
    with pytest.raises(UserError, match="at least 1"):
        trace(MODEL, PROMPT, SUBJECT, seeded(), n_samples=0)
    with pytest.raises(UserError, match="Windows of 8 layers were asked for; each covers all 4"):
        trace(MODEL, PROMPT, SUBJECT, seeded(), state="mlp_out", window=8)
    with pytest.raises(UserError, match="no subject"):
        subject_noise(MODEL, [])
