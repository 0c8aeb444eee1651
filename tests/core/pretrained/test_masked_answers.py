"""A model that is bidirectional is read at the token that it has to fill."""

import pytest
import torch
import zoo

from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.pretrained import Pretrained
from micrographia.core.pretrained.tokenizer import HubTokenizer
from micrographia.core.prompts import PairText, from_texts, metric_of
from micrographia.core.sites import Site
from micrographia.core.sweep import Place, sweep
from micrographia.core.tokens import single_token
from micrographia.methods.tracing import trace

WORDS = ["<pad>", "[CLS]", "[SEP]", "[MASK]", "Mary", "John", "saw", "her", "him", "then"]


@pytest.fixture(scope="module")
def model() -> Pretrained:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    special = {
        "unk_token": "<pad>",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "pad_token": "<pad>",
    }
    return Pretrained(zoo.bare("bert"), HubTokenizer(PreTrainedTokenizerFast(tokenizer_object=inner, **special)))


def pair(clean: str, corrupt: str) -> PairText:
    return PairText(clean, corrupt, "her", "him")


def test_answers_are_read_where_the_mask_stands(model):
    pairs = from_texts(model, [pair("Mary saw [MASK] then", "John saw [MASK] then")])
    assert pairs.pos == -3
    assert pairs.rows(slice(0, 1)).pos == -3
    logits = model.run(pairs.clean).logits[:, -3]
    wanted = {"logit-diff": logits[:, 7] - logits[:, 8], "log-prob": logits.log_softmax(-1)[:, 7]}
    for name, value in wanted.items():
        metric = metric_of(name, pairs, model)
        run = model.run(pairs.clean, logits=metric.readout(torch.arange(1)))
        torch.testing.assert_close(metric(run.logits, torch.arange(1)), value, rtol=1e-4, atol=1e-5)
    divergence = metric_of("kl", pairs, model)
    assert divergence(model.run(pairs.clean, logits=[-3]).logits, torch.arange(1)).abs().item() < 1e-6


@pytest.mark.usefixtures("unchecked")
def test_patching_everything_brings_back_the_answer_at_the_mask(model):
    pairs = from_texts(model, [pair("Mary saw [MASK] then", "John saw [MASK] then")])
    metric = metric_of("logit-diff", pairs, model)
    donor = model.run(pairs.clean, keep="L1.resid_post").cache
    for plan in ("fast", "strict"):
        found = sweep(model, pairs.corrupt, [(Place(Site("resid_post", 1)),)], donor, [metric], plan=plan)
        whole = metric.of_vocabulary(model.run(pairs.clean).logits, torch.arange(1))
        torch.testing.assert_close(found[0, :, 0], whole, rtol=1e-4, atol=1e-5)


def test_there_must_be_one_place_to_fill(model):
    good = pair("Mary saw [MASK] then", "John saw [MASK] then")
    for bad in (
        pair("Mary saw her then", "John saw him then"),
        pair("Mary [MASK] [MASK] then", "John saw [MASK] then"),
        pair("Mary saw then [MASK]", "John saw [MASK] then"),
    ):
        with pytest.raises(BadPrompt, match=r"Write \[MASK\] once in every prompt"):
            from_texts(model, [good, bad])
    longer = from_texts(model, [good, pair("then Mary saw [MASK] then", "then John saw [MASK] then")])
    assert longer.pos == -3, "padding on the left leaves the place where it is"
    unnamed = Pretrained(model.module, HubTokenizer(type("", (), {"mask_token_id": None, **_methods(model)})()))
    with pytest.raises(BadPrompt, match="names its mask"):
        from_texts(unnamed, [good])


def test_an_answer_that_the_vocabulary_lacks_is_refused(model):
    with pytest.raises(BadPrompt, match="'zebra' is not in this tokenizer's vocabulary"):
        single_token(model.tokenizer, "zebra")
    assert single_token(model.tokenizer, "her") == 7


def test_tracing_reads_what_comes_next_and_is_refused(model):
    with pytest.raises(UserError, match="bidirectional"):
        trace(model, torch.tensor([[1, 4, 6, 2]]), [1], torch.Generator())


def _methods(model: Pretrained) -> dict:
    """The rest of the tokenizer, as it is."""
    inner = model.tokenizer.inner
    names = ("bos_token_id", "cls_token_id", "pad_token_id", "unk_token_id")
    calls = {name: staticmethod(getattr(inner, name)) for name in ("encode", "decode")}
    return {**{name: getattr(inner, name) for name in names}, **calls}
