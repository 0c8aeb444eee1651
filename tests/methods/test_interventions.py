"""Ablation, steering and head scores against what they are defined as, on a miniature GPT-2."""

import pytest
import torch

import micrographia as mg
from micrographia.core.edit_words import read_edits
from micrographia.core.edits import add, put, scale, zero
from micrographia.core.errors import BadConfig, BadEdit, BadPrompt, UserError
from micrographia.core.metrics import logit
from micrographia.core.sites import Site
from micrographia.core.store.formats import write_tensors
from micrographia.core.tokens import ids_of, mask_of
from micrographia.methods.ablation import ablate
from micrographia.methods.heads import repeat_scores, repeated_spans, score_heads
from micrographia.methods.steering import contrast, random_directions
from miniature import CLEAN, WORDS, save_gpt2

SHORT = "When Anna and Tom went to the park"
Z, MLP = Site("z", 0), Site("mlp_out", 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mg.load(save_gpt2(tmp_path_factory.mktemp("gpt2")))


@pytest.fixture(scope="module")
def texts(model):
    return model.to_tokens([CLEAN, SHORT])  # the second padded


def losses_of(model, inputs, edits=()):
    """The loss of each token by torch's own function; NaN where nothing predicts it."""
    ids, mask = ids_of(inputs), mask_of(inputs)
    logits = model.run(inputs, edits=edits).logits
    found = torch.full(ids.shape, torch.nan)
    found[:, 1:] = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    if mask is not None:
        found[:, 1:][~mask[:, :-1]] = torch.nan
    return found


def means(model, inputs, site):
    value, mask = model.run(inputs, keep=[site]).cache[site], mask_of(inputs)
    return value.flatten(0, 1).mean(0) if mask is None else value[mask].mean(0)


@pytest.mark.parametrize("replace", ["zero", "mean"])
def test_an_ablation_changes_the_loss_as_the_edit_does(model, texts, replace):
    found = ablate(model, texts, [Z, MLP], replace=replace)
    before = losses_of(model, texts)
    torch.testing.assert_close(found.losses, before, equal_nan=True, atol=1e-5, rtol=1e-5)
    for site, where, scores in ((Z, {"head": 2}, found.tokens[Z][:, 2]), (MLP, {}, found.tokens[MLP])):
        mean = means(model, texts, site)
        written = 0.0 if replace == "zero" else mean[where["head"]] if where else mean
        change = losses_of(model, texts, [put(site, written, **where)]) - before
        torch.testing.assert_close(scores, change, equal_nan=True, atol=2e-5, rtol=1e-4)
        own = found.effects[0][site][:, 2] if where else found.effects[0][site]
        torch.testing.assert_close(own, change.nanmean(1), atol=2e-5, rtol=1e-4)
    assert (found.effects[0][Z].shape, found.effects[0][MLP].shape) == ((2, 3), (2,))
    assert found.effects[0][Z].abs().max() > 1e-3


def test_the_logit_of_an_answer_is_measured_beside_the_loss(model, texts):
    metric = logit(torch.tensor([3, 4]))
    _, effects = ablate(model, texts, "L1.z", replace="zero", metrics=[metric]).effects
    torch.testing.assert_close(effects.clean, metric.of(model, texts), atol=1e-5, rtol=1e-5)
    edited = metric.of_vocabulary(model.run(texts, edits=[zero("L1.z", head=1)]).logits, torch.arange(2))
    torch.testing.assert_close(effects["L1.z"][:, 1], edited - effects.clean, atol=2e-5, rtol=1e-4)


def test_a_resample_draws_values_of_the_reference(model):
    """Of a reference of one token a single value can be drawn, which is its mean too; of several it is the draw's."""
    texts, one = model.to_tokens(CLEAN), torch.tensor([[5]])
    value = model.run(one, keep=[Z]).cache[Z][0, 0]
    change = losses_of(model, texts, [put(Z, value[1], head=1)]) - losses_of(model, texts)

    def scores(replace, seed, reference=None):
        draw = torch.Generator().manual_seed(seed)
        return ablate(model, texts, [Z], replace=replace, reference=reference, generator=draw).effects[0][Z]

    for replace in ("mean", "resample"):
        torch.testing.assert_close(scores(replace, 0, one)[:, 1], change.nanmean(1), atol=2e-5, rtol=1e-4)
    assert torch.equal(scores("resample", 0), scores("resample", 0))
    assert not torch.equal(scores("resample", 0), scores("resample", 1))


def test_what_cannot_be_ablated_is_refused(model, texts):
    for error, says, asked in (
        (BadPrompt, "single token", {"inputs": torch.tensor([[3]])}),
        (BadConfig, "these Sites have", {"by": ["query"]}),
        (UserError, "only mean and resample", {"replace": "zero", "reference": texts}),
        (UserError, "no value at each token", {"sites": "L0.pattern"}),
        (UserError, "no generator", {"replace": "resample"}),
    ):
        with pytest.raises(error, match=says):
            ablate(model, **{"inputs": texts, "sites": [Z], **asked})
    assert ablate(model, texts, "L0.pattern", replace="zero").effects[0]["L0.pattern"].shape == (2, 3)


def test_edits_are_read_as_they_are_typed(model, tmp_path):
    vector, file = torch.randn(24), tmp_path / "own vector.safetensors"
    write_tensors(file, {"vector": vector})
    ids = model.to_tokens(CLEAN)
    typed = f"zero L0.z[1]; scale 2 L1.resid_pre;add 4 '{file}' L1.resid_pre ; put 0.5 L0.neurons[pos=3, unit=7]"
    meant = [zero("L0.z", head=1), scale("L1.resid_pre", 2), add("L1.resid_pre", 4 * vector)]
    meant.append(put("L0.neurons", 0.5, pos=3, unit=7))
    assert torch.equal(model.run(ids, edits=read_edits(typed, model)).logits, model.run(ids, edits=meant).logits)
    assert [str(edit.site) for edit in read_edits("zero L*.mlp_out", model)] == ["L0.mlp_out", "L1.mlp_out"]
    assert read_edits(" ; ", model) == []


@pytest.mark.parametrize(
    "typed", ["zero", "zero 2 L0.z", "scale L0.z", "scale two L0.z", "explode L0.z",
              "add none.safetensors L0.resid_pre",
              "scale v.safetensors L0.z", "add 2 3 4 L0.resid_pre"],
)  # fmt: skip
def test_an_edit_that_cannot_be_read_says_how_to_write_it(model, typed):
    with pytest.raises(BadEdit, match=r"Write for instance|no such file"):
        read_edits(typed, model)


def test_a_direction_is_the_difference_of_means(model):
    positive, negative, site = model.to_tokens([CLEAN, SHORT]), model.to_tokens("John gave a book"), "L1.resid_pre"
    rows = [model.run(model.to_tokens(each), keep=[site]).cache[site][0] for each in (CLEAN, SHORT, "John gave a book")]
    last = (rows[0][-1] + rows[1][-1]) / 2 - rows[2][-1]
    torch.testing.assert_close(contrast(model, positive, negative, site), last, atol=1e-4, rtol=1e-4)
    mean = (rows[0][1:].mean(0) + rows[1][1:].mean(0)) / 2 - rows[2][1:].mean(0)
    torch.testing.assert_close(contrast(model, positive, negative, site, at="mean"), mean, atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="alike"):
        contrast(model, positive, positive, site)
    with pytest.raises(UserError, match="resid_pre"):
        contrast(model, positive, negative, "L0.z")


def test_steering_adds_its_direction_at_every_token(model):
    found = mg.steer(model, "Mary went to the store", "John gave a book", "L1.resid_pre", strength=3)
    plain = mg.generate(model, CLEAN, tokens=4)
    assert found.at(0).generate(CLEAN, tokens=4) == plain
    assert found.generate(CLEAN, tokens=4) == mg.generate(
        model, CLEAN, edits=[add("L1.resid_pre", 3 * found.vector)], tokens=4
    )
    odds = found.odds(CLEAN, [("Mary", 3), ("John", 4)], [0.0, 3.0], 5, torch.Generator().manual_seed(0))
    logits = model.run(CLEAN, edits=[found.edit], logits="last").logits[0, -1]
    torch.testing.assert_close(odds.steered[1], logits.softmax(-1)[[3, 4]])
    torch.testing.assert_close(odds.random[0], odds.steered[0].expand(5, 2))  # nothing is added
    assert odds.random[1].std(0).min() > 0
    drawn = random_directions(found.vector, 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.norm(dim=1), found.vector.norm().expand(5))


def test_heads_are_scored_on_repeated_tokens_that_are_no_special_ones(model):
    found = score_heads(model, n=3, span=6, generator=torch.Generator().manual_seed(0), bos=0)
    words = torch.arange(2, len(WORDS))
    tokens = repeated_spans(3, 6, words, torch.Generator().manual_seed(0), bos=0)
    torch.testing.assert_close(found.scores.prefix_matching, repeat_scores(model, tokens, 6).prefix_matching)
    assert found.losses[1] == pytest.approx(float(losses_of(model, tokens)[:, -6:].mean()), abs=1e-5)
    assert found.chance == pytest.approx(sum(1 / (q + 1) for q in range(7, 13)) / 6)
    best = found.rows("duplicate")[0]
    assert best["duplicate"] == pytest.approx(float(found.scores.duplicate.max()))


def test_a_model_of_ours_goes_on_with_its_likeliest_tokens(tmp_path):
    from miniature import save_run

    model = mg.load(save_run(tmp_path / "trained"))
    ids = model.to_tokens(CLEAN)
    n, expected = ids.shape[1], ids
    vector = 3 * torch.randn(model.shape.d_model, generator=torch.Generator().manual_seed(0))
    edit = mg.add("L0.resid_post", vector, pos=-1)  # of the prompt, not of what follows
    for _ in range(3):
        there = mg.add("L0.resid_post", vector, pos=n - 1)
        token = model.run(expected, edits=[there], logits="last").logits[:, -1].argmax(-1)
        expected = torch.cat([expected, token[:, None]], 1)
    assert mg.generate(model, CLEAN, edits=[edit], tokens=3) == model.tokenizer.decode(expected[0, n:].tolist())
    with pytest.raises(UserError, match=f"this model reads {model.shape.n_ctx}"):
        mg.generate(model, CLEAN, tokens=model.shape.n_ctx)
