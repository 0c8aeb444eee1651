"""Training the last layers alone is training the model with the others frozen, to the last digit, and nothing else."""

import copy

import pytest
import torch
import zoo

from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.pretrained import Pretrained
from micrographia.core.pretrained.upper_layers import Learned, UpperLayers, learned_texts
from micrographia.core.training import AdamW, fresh_state, train
from tiny_words import word_model

FAMILIES = ("gpt2", "llama", "gemma2", "gpt_neox")


def texts() -> Learned:
    """Two rows of different lengths, the last two tokens learned."""
    ids = zoo.tokens(2, 6)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, :2] = False
    return Learned(ids, mask, torch.arange(6).expand(2, -1) >= 4)


def by_hand(module, first: int):
    """Loss and gradients of the whole module, the embeddings and lower layers frozen."""
    module = copy.deepcopy(module)
    model = Pretrained(module)
    for weight in module.parameters():
        weight.requires_grad_(False)
    above = [weight for layer in model.body.layers[first:] for weight in layer.parameters()]
    for weight in above:
        weight.requires_grad_(True)
    own = texts()
    logits = module(
        input_ids=own.ids, attention_mask=own.mask.long(), position_ids=(own.mask.cumsum(1) - 1).clamp(min=0)
    ).logits
    row, pos = own.learned.nonzero().unbind(1)
    loss = -logits[row, pos - 1].log_softmax(-1).gather(-1, own.ids[row, pos][:, None]).mean()
    return loss, torch.autograd.grad(loss, above)


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradient_are_those_of_the_whole_model(name):
    upper = UpperLayers.of(zoo.model(name), 1)
    own = texts()
    objective = upper.objective(own, upper.entering(own), lambda step: torch.arange(2))
    found = objective(upper.weights(), 0)
    loss, gradients = by_hand(zoo.bare(name), 1)
    torch.testing.assert_close(found.loss[0], loss.detach(), atol=1e-5, rtol=1e-5)
    wanted = torch.cat([each.reshape(-1) for each in gradients])
    torch.testing.assert_close(found.gradient[0], wanted, atol=1e-5, rtol=1e-4)


def test_steps_lower_the_loss_and_leave_the_given_model_and_lower_layers_alone():
    given = zoo.model("llama")
    before = {name: weight.clone() for name, weight in given.module.named_parameters()}
    upper, own = UpperLayers.of(given, 2), texts()
    objective = upper.objective(own, upper.entering(own), lambda step: torch.arange(2))
    losses = [
        float(loss)
        for _, loss in train(fresh_state(upper.weights()), objective, AdamW(lr=1e-2, weight_decay=0.0), steps=15)
    ]
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(weight, before[name]) for name, weight in given.module.named_parameters())
    moved = {name for name, weight in upper.model.module.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == set(upper.weight_shapes())
    assert all(".2." in name for name in moved)


def test_rows_are_cut_to_the_longest_of_a_step_and_nothing_changes():
    upper, own = UpperLayers.of(zoo.model("llama"), 1), texts()
    entering = upper.entering(own)
    both = upper.log_probs(own, entering)
    alone = upper.log_probs(own.rows(torch.tensor([1])), entering[1:])
    torch.testing.assert_close(alone[0], both[0][both[2] == 1], atol=1e-5, rtol=1e-5)
    assert own.rows(torch.tensor([1])).ids.shape == (1, 4)


def test_texts_are_padded_on_the_left_and_only_completions_are_learned(tmp_path):
    model = word_model(tmp_path)
    found = learned_texts(model, [("one two", " three"), ("one", " two three")])
    assert found.mask.sum(1).tolist() == [3, 3]
    assert found.learned.tolist() == [[False, False, True], [False, True, True]]
    with pytest.raises(BadPrompt, match="no token"):
        learned_texts(model, [("one", " ")])


def test_a_layer_that_is_not_there_and_a_model_without_tokenizer_are_refused():
    with pytest.raises(UserError, match="1 to 2"):
        UpperLayers.of(zoo.model("llama"), 3)
    with pytest.raises(UserError, match="no tokenizer"):
        learned_texts(zoo.model("llama"), [("a", "b")])


def test_a_model_that_reads_both_ways_and_a_text_beyond_the_context_are_refused(tmp_path):
    with pytest.raises(UserError, match="both directions"):
        UpperLayers.of(zoo.model("bert"), 1)
    words = word_model(tmp_path, ["a", "b"])
    with pytest.raises(BadPrompt, match="more tokens than"):
        learned_texts(words, [("a " * (words.shape.n_ctx + 1), " b")])
