"""Positions that were stretched after training (YaRN, LongRoPE): probed, kept, gone beyond, and never mixed."""

import math
from functools import cache

import pytest
import torch
import transformers
import zoo

from micrographia.core.edits import apply, scale, zero
from micrographia.core.errors import UnknownModel, UserError
from micrographia.core.pretrained import Pretrained, checks
from micrographia.core.tokens import Batch

pytestmark = pytest.mark.usefixtures("unchecked")
WINDOW = 8
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": WINDOW}
LONG = {
    "rope_type": "longrope",
    "factor": 3.0,
    "rope_theta": 1e4,
    "original_max_position_embeddings": WINDOW,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
}
PARTLY = {"partial_rotary_factor": 0.5}
CONFIGS = {
    "llama yarn": lambda: transformers.LlamaConfig(**zoo.GROUPED, rope_parameters=YARN),
    "qwen2 yarn": lambda: transformers.Qwen2Config(**zoo.GROUPED, rope_parameters=YARN),
    "gpt_neox yarn": lambda: transformers.GPTNeoXConfig(**zoo.SIZES, rope_parameters={**YARN, **PARTLY}),
    "gemma3 yarn": lambda: transformers.Gemma3TextConfig(
        **zoo.GEMMA,
        layer_types=zoo.LAYERS,
        rope_parameters={"full_attention": YARN, "sliding_attention": {"rope_type": "default", "rope_theta": 1e3}},
    ),
    "phi3 long": lambda: transformers.Phi3Config(
        **zoo.GROUPED, original_max_position_embeddings=WINDOW, rope_parameters=LONG
    ),
    "llama long": lambda: transformers.LlamaConfig(**zoo.GROUPED, rope_parameters=LONG),
}


@cache
def model(name: str) -> Pretrained:
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return Pretrained(module)


@pytest.mark.parametrize("name", CONFIGS)
def test_rotated_queries_and_keys_are_stretched_as_the_model_says_and_pass_the_probe(name):
    cache = model(name).run(zoo.tokens(2, 5), keep=["L2.q", "L2.rot_q", "L2.k", "L2.rot_k"]).cache
    ratio = (cache["L2.rot_q"] / cache["L2.q"])[:, 0]
    stretch = {"yarn": 1 + 0.1 * math.log(4), "long": math.sqrt(1 + math.log(3) / math.log(WINDOW))}
    wanted = torch.full_like(ratio, stretch[name.split()[1]])
    if name.startswith("gpt_neox"):
        wanted[..., 4:] = 1.0
    torch.testing.assert_close(ratio, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrong", [1.2, -1.0])
def test_another_scale_than_the_models_is_still_found(wrong):
    yarn = model("llama yarn")
    kept = yarn.run(zoo.tokens(1, 1), keep=["L0.q", "L0.rot_q"]).cache
    at = {"q": kept["L0.q"], "rot_q": wrong * kept["L0.rot_q"]}
    with pytest.raises(UnknownModel, match="rot_q"):
        checks._check_attention(yarn.body, 0, at)


@pytest.mark.parametrize("name", CONFIGS)
def test_text_that_grows_beyond_the_first_window_is_that_of_runs_over_the_whole_text(name):
    edits = [zero("L0.mlp_out", pos=-1), zero("L1.pattern", key=2), scale("L0.z", 2.0, head=1)]
    whole = [
        zero("L0.mlp_out", pos=4),
        apply("L1.pattern", torch.zeros_like, key=2, query=[0, 1, 2, 3, 4]),
        scale("L0.z", 2.0, head=1),
    ]
    for own, theirs in (([], []), (edits, whole)):
        wanted = zoo.tokens(2, 5)
        found = model(name).generate(wanted, max_new_tokens=7, edits=own, stop_at=())
        for _ in range(7):
            wanted = torch.cat([wanted, model(name).run(wanted, edits=theirs).logits[:, -1:].argmax(-1)], 1)
        assert torch.equal(found, wanted)


def test_phi3_goes_on_as_transformers_lets_it_go_on():
    phi3, ids = model("phi3 long"), zoo.tokens(1, 5)
    wanted = phi3.module.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, eos_token_id=None
    )
    assert torch.equal(phi3.generate(ids, max_new_tokens=8, stop_at=()), wanted)


def test_rows_on_both_sides_of_the_window_are_refused_together_and_right_apart():
    phi3, long = model("phi3 long"), zoo.tokens(1, 10)
    mask = torch.tensor([[False] * 3 + [True] * 7, [True] * 10])
    with pytest.raises(UserError, match=r"Rows of 7 to 10 tokens .* beyond 8 tokens.* batches of their own"):
        phi3.run(Batch(long.expand(2, -1), mask))
    short = Batch(long[:, :8].expand(2, -1), mask[:, 2:])
    torch.testing.assert_close(phi3.run(short).logits[:1, 1:], phi3.run(long[:, 1:8]).logits)
    with pytest.raises(UserError, match="to grow by 1"):
        phi3.generate(short, max_new_tokens=2)
