"""Activation patching: both directions, what is written, how it is normalised, what is refused."""

import pytest
import torch

from micrographia.core.edits import put
from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.metrics import log_prob, logit, logit_difference, prompts
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.sweep import Place, places
from micrographia.core.titles import MODES
from micrographia.core.tokens import Vocabulary
from micrographia.methods.patching import patch
from small import A_FEW, small_model, some_tokens

ARCH = A_FEW["normed"]
N = 4
MODEL = small_model(ARCH, dtype=torch.float64)
CLEAN, CORRUPT = (some_tokens(ARCH, batch=N, seed=seed) for seed in (1, 2))
RIGHT, WRONG = torch.arange(N), torch.arange(N) + 1
PAIRS = Pairs(CLEAN, CORRUPT, RIGHT, WRONG)
READ = [logit_difference(RIGHT, WRONG), log_prob(RIGHT)]
EVERYTHING = [(Place(Site("resid_pre", 0)),)]


def of(tokens, edits=()):
    logits = MODEL.run(tokens, edits=edits).logits
    return torch.stack([metric.of_vocabulary(logits, prompts(N)) for metric in READ], -1)


def test_denoising_everything_gives_the_clean_run_and_noising_everything_the_corrupt_one():
    denoise, noise = (patch(MODEL, PAIRS, READ, EVERYTHING, mode=mode) for mode in MODES)
    assert torch.allclose(denoise.values[0], of(CLEAN))
    assert torch.allclose(noise.values[0], of(CORRUPT))
    assert torch.allclose(denoise.clean, of(CLEAN))
    assert torch.allclose(denoise.corrupt, of(CORRUPT))
    assert torch.allclose(denoise.recovered(), torch.ones(1, 2).double())
    assert torch.allclose(noise.recovered(), torch.zeros(1, 2).double())
    assert torch.allclose(noise.effects()[0], of(CORRUPT) - of(CLEAN))
    assert (denoise.source, noise.source) == ("the clean run", "the corrupt run")


@pytest.mark.parametrize("mode", ["denoise", "noise"])
@pytest.mark.parametrize("plan", ["fast", "strict"])
def test_each_patch_is_the_plain_loop(mode, plan):
    patches = places(MODEL, "L*.z", ("layer", "pos", "head"), ARCH.n_ctx)
    found = patch(MODEL, PAIRS, READ, patches, mode=mode, plan=plan)
    into, other = (CORRUPT, CLEAN) if mode == "denoise" else (CLEAN, CORRUPT)
    donor = MODEL.run(other, keep="L*.z").cache
    for i, (place,) in enumerate(patches):
        pos, head = place.where["pos"], place.where["head"]
        expected = of(into, [put(place.site, donor[place.site][:, pos, head], pos=pos, head=head)])
        assert torch.equal(found.values[i], expected) if plan == "strict" else torch.allclose(found.values[i], expected)


def test_what_is_written_may_be_zeros_a_mean_a_resample_or_noise():
    patches = places(MODEL, "L*.mlp_out", ("layer",), ARCH.n_ctx)
    zeroed = patch(MODEL, PAIRS, READ, patches, mode="noise", replace="zero")
    assert torch.allclose(zeroed.values[0], of(CLEAN, [put("L0.mlp_out", 0.0)]))
    assert zeroed.source == "zeros"
    both = torch.cat([CLEAN, CORRUPT])
    mean = MODEL.run(both, keep="L1.mlp_out").cache["L1.mlp_out"].mean(0, keepdim=True)
    averaged = patch(MODEL, PAIRS, READ, patches, mode="noise", replace="mean")
    assert torch.allclose(averaged.values[1], of(CLEAN, [put("L1.mlp_out", mean)]))
    assert averaged.source == "the mean over the 8 clean and corrupt prompts of the pairs"
    own = patch(MODEL, PAIRS, READ, patches, mode="noise", replace="mean", reference=CLEAN[:1])
    first = MODEL.run(CLEAN[:1], keep="L1.mlp_out").cache["L1.mlp_out"]
    assert torch.allclose(own.values[1], of(CLEAN, [put("L1.mlp_out", first)]))
    assert "1 reference" in own.source
    for replace in ("resample", "noise"):
        draws = [
            patch(MODEL, PAIRS, READ, patches, replace=replace, generator=torch.Generator().manual_seed(seed)).values
            for seed in (0, 0, 1)
        ]
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])
    with pytest.raises(UserError, match="generator"):
        patch(MODEL, PAIRS, READ, patches, replace="resample")


def test_a_resample_of_one_prompt_is_that_prompt():
    patches = places(MODEL, "L*.mlp_out", ("layer",), ARCH.n_ctx)
    found = patch(
        MODEL, PAIRS, READ, patches, replace="resample", reference=CLEAN[:1], generator=torch.Generator().manual_seed(0)
    )
    first = MODEL.run(CLEAN[:1], keep="L0.mlp_out").cache["L0.mlp_out"]
    assert torch.allclose(found.values[0], of(CORRUPT, [put("L0.mlp_out", first)]))


@pytest.mark.parametrize("replace", ["other", "zero"])
def test_a_reference_that_nothing_reads_is_refused(replace):
    with pytest.raises(UserError, match="with reference prompts"):
        patch(MODEL, PAIRS, READ, EVERYTHING, replace=replace, reference=CLEAN)


def test_a_gap_of_zero_is_refused_with_both_values():
    value = f"{of(CLEAN).mean(0)[0].item():.6g}"
    with pytest.raises(UserError, match="no gap") as error:
        patch(MODEL, Pairs(CLEAN, CLEAN, RIGHT, WRONG), READ, EVERYTHING).recovered()
    assert str(error.value).count(value) == 2
    same = Pairs(CLEAN, torch.cat([CORRUPT[:2], CLEAN[2:]]), RIGHT, WRONG)
    assert patch(MODEL, same, READ, EVERYTHING).recovered().shape == (1, 2)  # the means do differ


def test_a_gap_that_is_no_number_is_refused_too():
    found = patch(MODEL, PAIRS, READ, EVERYTHING)
    with pytest.raises(UserError, match="nan clean"):
        found._replace(clean=found.clean * torch.nan).recovered()


def test_prompts_that_do_not_line_up_are_refused():
    with pytest.raises(BadPrompt, match="4 and 3"):
        patch(MODEL, Pairs(CLEAN, CORRUPT[:, :3], RIGHT), [logit(RIGHT)], EVERYTHING)
    words = Vocabulary(tuple("abcdefg"))
    named = type(MODEL)(ARCH, MODEL.state, words)
    with pytest.raises(BadPrompt, match=r"'[a-g]'"):
        patch(named, Pairs(CLEAN, CORRUPT[:, :3], RIGHT), [logit(RIGHT)], EVERYTHING)
