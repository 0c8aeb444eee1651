"""Padding in float64, where transformers' eager attention makes NaN of a row that may attend to nothing."""

import pytest
import torch
import zoo

from micrographia.core.edits import leaf, may_attend, scale
from micrographia.core.pretrained import Pretrained
from micrographia.core.tokens import Batch

pytestmark = pytest.mark.usefixtures("unchecked")
WIDE = [pair for pair in zoo.EVERY if pair[0] not in zoo.NARROW]
ROW = zoo.tokens(1, 5)
BOTH = Batch(
    torch.cat([torch.cat([torch.tensor([[9, 9]]), ROW], 1), zoo.tokens(1, 7, seed=2)]),
    torch.tensor([[False] * 2 + [True] * 5, [True] * 7]),
)


@pytest.mark.parametrize(("name", "how"), WIDE)
def test_a_padded_row_is_the_row_alone_whatever_its_attention_is_asked(name, how):
    model = zoo.model(name, how, torch.float64)
    for edits in ([], [scale("L0.pattern", 1.0)], [scale("L1.scores", 1.0)]):
        run, alone = (model.run(inputs, keep="L1.resid_post", edits=edits) for inputs in (BOTH, ROW))
        assert bool(run.cache["L1.resid_post"].isfinite().all())
        torch.testing.assert_close(run.logits[:1, 2:], alone.logits, rtol=1e-5, atol=1e-6)  # softmax in float32
    for keep in ((), "L1.pattern"):  # the model's own attention, and eager
        begun = []
        model.run(BOTH, edits=[leaf("embed", begun.append)], keep=keep, grad=True).logits[:, -1].sum().backward()
        assert bool(begun[0].grad.isfinite().all())
        assert not begun[0].grad[0, :2].any()


@pytest.mark.parametrize("name", [name for name in zoo.DECODERS if name not in zoo.NARROW])
def test_a_row_without_padding_keeps_the_bits_of_the_bare_module(name):
    wanted = zoo.bare(name, "eager", torch.float64)(
        input_ids=BOTH.ids, attention_mask=BOTH.mask.long(), position_ids=BOTH.mask.long().cumsum(-1).sub(1).clamp(0)
    ).logits
    for keep in ((), "L*.pattern"):
        assert torch.equal(zoo.model(name, "eager", torch.float64).run(BOTH, keep=keep).logits[1], wanted[1])


def test_text_goes_on_from_a_padded_prompt():
    model = Pretrained(zoo.bare("gemma2", "eager", torch.float64))
    assert torch.equal(
        model.generate(BOTH, max_new_tokens=4, stop_at=())[:1, 2:], model.generate(ROW, max_new_tokens=4, stop_at=())
    )


@pytest.mark.parametrize("name", ["bloom", "falcon", "falcon-new", "llama", "mistral"])
def test_what_may_attend_is_told_by_the_scores_in_every_dtype(name):
    wide, narrow = (
        may_attend(zoo.model(name, "eager", dtype).run(BOTH, keep="L1.scores").cache["L1.scores"])
        for dtype in (torch.float64, torch.float32)
    )
    assert torch.equal(wide, narrow)
    assert not wide[0, :, 2:, :2].any()
    assert not wide[..., 2, 3:].any()
