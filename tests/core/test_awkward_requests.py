"""What is no Site, no ids and no edit is told so, by what was found; texts are read where there is a tokenizer."""

import re

import pytest
import torch

from micrographia.core.edits import apply
from micrographia.core.errors import BadEdit, BadShape, UnknownSite, UserError
from micrographia.core.sites import Site, select
from micrographia.core.small.transformer import Transformer
from micrographia.core.tokens import Vocabulary
from small import A_FEW, small_model
from tiny_families import tiny

pytestmark = pytest.mark.usefixtures("unchecked")  # what users meet who run no checker
ARCH = A_FEW["normed"]
WORDS = Vocabulary(("a", "b", "c", "d", "e", "f", "g"))
MODELS = {"small": lambda: small_model(ARCH), "pretrained": lambda: tiny("grouped heads")}
both = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


@both
@pytest.mark.parametrize("keep", [3, [3], ["L0.z", None], 2.5])
def test_a_site_that_is_no_text_is_refused_with_its_type(make, keep):
    with pytest.raises(UnknownSite, match=r"Asked for the site .* a value of type (int|NoneType|float)"):
        make().run(torch.tensor([[1, 2]]), keep=keep)


@pytest.mark.parametrize(
    ("text", "near"), [("L0.Z", "z"), ("L0.Mlp_Out", "mlp_out"), ("L9.RESID_POST", "resid_post"), ("", "resid_pre, z")]
)
def test_what_cannot_be_read_offers_something_near(text, near):
    with pytest.raises(UnknownSite, match=rf"(Nearest|Nearest kinds): .*{re.escape(near)}"):
        Site.parse(text)
    with pytest.raises(UnknownSite, match=re.escape(near)):
        select(small_model(ARCH).sites, text)


@both
@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        (torch.tensor([[1.0, 2.0]]), UserError, r"whole numbers .* torch\.float32.*ids\.long\(\)"),
        (torch.tensor([[True, False]]), UserError, r"whole numbers .* torch\.bool"),
        (torch.zeros(1, 0, dtype=torch.long), BadShape, r"a token at least\. Found \(1, 0\)"),
    ],
)
def test_ids_that_are_none_are_refused(make, ids, error, words):
    with pytest.raises(error, match=words):
        make().run(ids)


@both
@pytest.mark.parametrize("where", [{}, {"pos": 0}])
@pytest.mark.parametrize(("given", "words"), [(None, "nothing .None.*must return"), (0.0, "a float")])
def test_an_edit_whose_function_gives_nothing_is_told_so(make, given, words, where):
    with pytest.raises(BadEdit, match=rf"apply at L0\.z should give a tensor of shape .* Found {words}"):
        make().run(torch.tensor([[1, 2]]), edits=[apply("L0.z", lambda value: given, **where)])


def test_texts_are_read_where_there_is_a_tokenizer_and_refused_where_there_is_none():
    model = Transformer(ARCH, small_model(ARCH).state, tokenizer=WORDS)
    assert torch.equal(model.run("a b c").logits, model.run(torch.tensor([[0, 1, 2]])).logits)
    assert torch.equal(model.run(["a b", "c d"]).logits, model.run(torch.tensor([[0, 1], [2, 3]])).logits)
    llama = tiny("grouped heads")
    llama.tokenizer = WORDS
    try:
        assert torch.equal(
            llama.generate(["a b c", "d"], max_new_tokens=3, stop_at=())[1, 2:],
            llama.generate(torch.tensor([[3]]), max_new_tokens=3, stop_at=())[0],
        )
        assert torch.equal(llama.run("a b").logits, llama.run(torch.tensor([[0, 1]])).logits)
    finally:
        llama.tokenizer = None
    for bare in (small_model(ARCH), llama):
        with pytest.raises(UserError, match="has no tokenizer"):
            bare.run("a b")
    with pytest.raises(UserError, match="Found a list"):
        llama.run([1, 2])
