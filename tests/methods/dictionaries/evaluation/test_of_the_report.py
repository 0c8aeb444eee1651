"""The evaluations of Gemma Scope's report: by group of tokens, in fewer bits, and how evenly latents matter."""

from dataclasses import replace

import pytest
import torch
from made import dictionary, perfect

from micrographia.core.dictionaries.folding import in_decoder_units
from micrographia.core.edits import put
from micrographia.core.errors import BadConfig, BadShape
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.stream.rows import TokenSources
from micrographia.methods.dictionaries.evaluation import in_depth as in_depth_module
from micrographia.methods.dictionaries.evaluation.by_group import MOST_SOURCES, ByGroup, by_position
from micrographia.methods.dictionaries.evaluation.by_group import by_source as of_sources
from micrographia.methods.dictionaries.evaluation.effects_on_logits import logit_effects
from micrographia.methods.dictionaries.evaluation.evaluate import OURS
from micrographia.methods.dictionaries.evaluation.importance import uniformity
from micrographia.methods.dictionaries.evaluation.in_depth import in_depth
from micrographia.methods.dictionaries.evaluation.precision import PRECISIONS, in_precision, int8_weights
from micrographia.methods.dictionaries.evaluation.reading import Counted, ReadWrite, outputs_of
from micrographia.methods.dictionaries.evaluation.spliced import MEAN, splice_losses
from small import A_FEW, small_model

SPECIAL = 2
COUNTED = Counted(special=(SPECIAL,))
SITE = Site.parse("L0.resid_post")
PLACE = ReadWrite(SITE, SITE)


def tokens(n: int = 6):
    return torch.randint(0, 6, (n, 4), generator=generator(4))


def model():
    return small_model(A_FEW["plain-2"], dtype=torch.float64)


def by_source(sources, n_ctx: int) -> ByGroup:
    names = list(dict.fromkeys(sources))
    return ByGroup(torch.tensor([[names.index(each)] * n_ctx for each in sources]), names)


def spliced(groups: ByGroup, tokens_at_once: int = 8):
    one, mean = dictionary(d=10), torch.randn(10, generator=generator(9), dtype=torch.float64)
    replacements = {OURS: lambda x, y: outputs_of(one, x).to(y)}
    return splice_losses(
        model(), PLACE, tokens(), replacements, mean, COUNTED, see=groups.see, tokens_at_once=tokens_at_once
    )


def test_groups_together_are_the_whole():
    for groups in (by_position(6, 4), by_source(["a", "b", "a", "b", "b", "c"], 4)):
        found = spliced(groups)
        n = groups.n_tokens().double()
        rise = (groups.delta_loss(OURS).nan_to_num() * n).sum() / n.sum()
        torch.testing.assert_close(float(rise), found.of(OURS).delta_loss)
        assert int(n.sum()) == found.n_tokens
        assert groups.fvu(MEAN).nan_to_num(1).tolist() == [1.0] * len(groups.names)


def test_each_group_is_its_rows_alone():
    """Rows of one source, spliced by themselves, give what the group says, whatever the blocks."""
    sources = ["a", "b", "a", "b", "b", "a"]
    groups = by_source(sources, 4)
    spliced(groups, tokens_at_once=12)
    one = dictionary(d=10)
    for i, name in enumerate(groups.names):
        rows = tokens()[[j for j, source in enumerate(sources) if source == name]]
        alone = splice_losses(
            model(), PLACE, rows, {OURS: lambda x, y: outputs_of(one, x).to(y)}, torch.zeros(10), COUNTED
        )
        torch.testing.assert_close(float(groups.delta_loss(OURS)[i]), alone.of(OURS).delta_loss)


def test_positions_are_grouped_by_powers_of_two():
    groups = by_position(1, 9)
    assert list(groups.names) == ["0", "1", "2 to 3", "4 to 7", "8 to 8"]
    assert groups.groups[0].tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 4]
    spliced(told := by_position(6, 4))
    assert [row["name"] for row in told.rows(OURS)] == ["1", "2 to 3"]  # the first position does not count
    assert told.figure("by-position", "By position", {OURS: "ours"}).data["y"].shape == (1, 2)


def test_sources_are_told_largest_first_and_the_smallest_together():
    names, n = [f"s{i}" for i in range(MOST_SOURCES + 3)], 40
    of = torch.full((n, 4), 1)
    of[0], of[1, 0] = torch.tensor([0, 0, 3, -1]), 0
    for i in range(4, MOST_SOURCES + 2):  # all but the last
        of[i, 0] = i
    groups = of_sources(TokenSources(names, of), n)
    assert groups.names[:2] == ["s1", "s0"]
    assert groups.names[-1] == "1 other"
    assert len(groups.names) == MOST_SOURCES + 1
    assert groups.groups[1].tolist() == [1, 0, 0, 0]
    assert int(groups.groups[0, 3]) == MOST_SOURCES  # what is not known
    assert of_sources(TokenSources(["a", "b"], torch.tensor([[0, 1, -1, 1]])), 1).names == ["b", "a", "not told"]


def test_the_loss_by_source_is_that_of_the_rows_of_a_source():
    rows, one = tokens(6), dictionary(d=10)
    of = torch.tensor([[0], [0], [1], [0], [1], [1]]).expand(6, 4)
    deep = in_depth(one, model(), PLACE, rows, COUNTED, sources=of_sources(TokenSources(["code", "prose"], of), 6))
    told = {row["name"]: row["delta_loss"] for row in deep.as_json()["by_source"]}
    for name, which in {"code": [0, 1, 3], "prose": [2, 4, 5]}.items():
        alone = in_depth(one, model(), PLACE, rows[which], COUNTED)
        assert told[name] == pytest.approx(alone.by_text()[0]["delta_loss"])
    assert {each.name: each for each in deep.figures()}["by-source"].data["names"][0].startswith("code (")
    assert "Of the text's sources" not in deep.sentence()  # too few tokens to speak of


def test_the_sentence_names_sources_of_enough_tokens(monkeypatch):
    monkeypatch.setattr(in_depth_module, "FEWEST", 1)
    of = torch.tensor([[0], [0], [1], [0], [1], [1]]).expand(6, 4)
    sources = of_sources(TokenSources(["code", "prose"], of), 6)
    said = in_depth(dictionary(d=10), model(), PLACE, tokens(6), COUNTED, sources=sources).sentence()
    assert "Of the text's sources it costs most on" in said


def test_groups_of_other_tokens_are_refused():
    with pytest.raises(BadShape, match="below 1"):
        ByGroup(torch.tensor([[0, 1]]), ["only"])
    with pytest.raises(BadShape, match="more are read"):
        spliced(by_source(["a"], 4))


def test_int8_is_within_half_a_step_and_bfloat16_near():
    one, x = dictionary(d=10), torch.randn(40, 10, generator=generator(2), dtype=torch.float64)
    rounded = int8_weights(one)
    step = one.weights.W_dec.abs().amax(1, keepdim=True) / 127
    off = (rounded.weights.W_dec - one.weights.W_dec).abs()
    assert bool((off <= step / 2 * (1 + 1e-9)).all())
    assert float(off.max()) > 0
    written = {name: in_precision(one, name)(x, x) for name in PRECISIONS}
    torch.testing.assert_close(written["float32"], one.reconstruct(x), atol=1e-4, rtol=1e-4)
    for name in ("bfloat16", "int8"):
        error = (written[name] - one.reconstruct(x)).norm() / one.reconstruct(x).norm()
        assert 1e-4 < float(error) < 0.2
    with pytest.raises(BadConfig, match="float32, bfloat16, int8"):
        in_precision(one, "int4")


def test_importance_is_that_of_gradients_one_token_at_a_time():
    of, rows, one = model(), tokens(3), dictionary(d=10)
    expected = []
    for row in rows:
        x = of.run(row[None], keep=SITE).cache[SITE].detach().requires_grad_()
        logits = of.run(row[None], edits=[put(SITE, x)], grad=True).logits.log_softmax(-1)[0]
        ok = [p for p in (1, 2) if SPECIAL not in (int(row[p]), int(row[p + 1]))]
        loss = -sum((logits[p, row[p + 1]] for p in ok), torch.zeros((), dtype=torch.float64))
        (slope,) = torch.autograd.grad(loss, [x], allow_unused=True) if ok else (torch.zeros_like(x),)
        for pos in (1, 2, 3):
            if int(row[pos]) == SPECIAL:
                continue
            f = one.encode(x[0, pos].detach())
            y = (f * (one.weights.W_dec @ slope[0, pos])).abs()
            if float(y.sum()) > 0 and int((f != 0).sum()) > 1:
                p = (y / y.sum())[y > 0]
                expected.append(float((-(p * p.log()).sum()).exp()) / int((f != 0).sum()))
    found = uniformity(one, of, PLACE, rows, COUNTED)
    torch.testing.assert_close(found.ratio, torch.tensor(expected, dtype=torch.float64))
    assert bool((found.ratio <= 1).all())
    assert len(expected) > 2


def test_one_latent_a_token_has_no_evenness():
    found = uniformity(perfect(torch.eye(10).double()[:1], 1e9), model(), PLACE, tokens(), COUNTED)
    assert len(found.ratio) == 0
    assert found.mean != found.mean
    one = perfect(torch.eye(10).double()[:1], 1e9)
    deep = in_depth(one, model(), PLACE, tokens(), COUNTED)
    assert "No token has two active latents" in deep.sentence()
    assert "nan" not in deep.sentence()
    assert "evenness" not in {each.name for each in deep.figures()}


def test_latents_in_the_decoders_norms_matter_and_write_as_those_folded():
    """Equal latents, equal outputs: whether the norms are in the form or in the weights."""
    plain = dictionary(d=10)
    normed = replace(plain, form=replace(plain.form, decoder_norms=True))
    folded = in_decoder_units(normed)
    of, x = model(), torch.randn(9, 10, generator=generator(3), dtype=torch.float64)
    torch.testing.assert_close(normed.encode(x), folded.encode(x))
    torch.testing.assert_close(normed.decoder, folded.decoder)
    found = [uniformity(each, of, PLACE, tokens(), COUNTED).ratio for each in (normed, folded)]
    torch.testing.assert_close(*found)
    effects = [logit_effects(each, of, SITE, torch.arange(20), 3) for each in (normed, folded)]
    torch.testing.assert_close(effects[0].raised_by, effects[1].raised_by)
