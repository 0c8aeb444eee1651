"""Modules with adapters that are not merged: runs include them, what reads their weights is refused by name."""

import pytest
import torch
import zoo
from torch import nn

from micrographia.core.errors import UserError
from micrographia.core.pretrained import Pretrained


class LowRank(nn.Module):
    """A projection with an update of rank 1 beside it, as in peft: `weight` is that of the layer inside."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.base_layer = inner
        self.in_features = inner.in_features
        self.lora_A = nn.Linear(inner.in_features, 1, bias=False)
        self.lora_B = nn.Linear(1, inner.out_features, bias=False)

    @property
    def weight(self):
        return self.base_layer.weight

    def forward(self, x):
        return self.base_layer(x) + self.lora_B(self.lora_A(x))

    def merged(self) -> nn.Linear:
        with torch.no_grad():
            self.base_layer.weight += self.lora_B.weight @ self.lora_A.weight
        return self.base_layer


class Bare(nn.Module):
    """A wrapper that says nothing of what is inside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.base_layer = inner

    def forward(self, x):
        return self.base_layer(x)


PLACES = {"q_proj": "W_Q", "o_proj": "W_O", "up_proj": "W_in", "gate_proj": "W_gate"}


def adapted(kind: type[nn.Module] = LowRank, places=("q_proj", "o_proj", "up_proj", "gate_proj")) -> nn.Module:
    torch.manual_seed(2)
    module = zoo.fresh("llama")
    for layer in module.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name in places:
                if hasattr(part, name):
                    setattr(part, name, kind(getattr(part, name)))
    return module.eval()


def test_runs_include_unmerged_adapters_and_say_so():
    module, ids, told = adapted(), zoo.tokens(), []
    model = Pretrained(module, watch=told.append)
    kept = model.run(ids, keep=[site for site in model.sites if site.kind != "result"])
    assert torch.equal(kept.logits, zoo.logits_of(module, ids))
    assert not torch.allclose(kept.logits, zoo.logits_of(zoo.bare("llama"), ids), atol=0.1)
    assert "12 modules hold unmerged adapters, such as model.layers.0.self_attn.q_proj" in told[0].text


def test_weights_under_an_adapter_are_refused_by_name_until_it_is_merged():
    module, ids = adapted(), zoo.tokens()
    model = Pretrained(module)
    for place, weight in PLACES.items():
        with pytest.raises(UserError, match=rf"layers\.1\.\w+\.{place}.*merge_and_unload"):
            getattr(model.weights, weight)[1]
    for read in (lambda: model.weights.b_Q[0], lambda: model.run(ids, keep="L0.result")):
        with pytest.raises(UserError, match="Merge first"):
            read()
    assert model.weights.W_K[0].shape == (2, 32, 8)
    wanted = zoo.logits_of(module, ids)
    for layer in module.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, inner in list(part.named_children()):
                if isinstance(inner, LowRank):
                    setattr(part, name, inner.merged())
    merged = Pretrained(module).run(ids, keep="L*.result")
    torch.testing.assert_close(merged.logits, wanted, rtol=1e-4, atol=1e-4)


def test_a_wrapped_norm_is_kept_and_its_scale_refused():
    module, ids = adapted(Bare, ("input_layernorm",)), zoo.tokens()
    module.model.layers[1].input_layernorm = Bare(module.model.layers[1].input_layernorm)
    model = Pretrained(module)
    plain = zoo.model("llama").run(ids, keep="L1.attn_norm").cache["L1.attn_norm"]
    assert torch.equal(model.run(ids, keep="L1.attn_out").logits, zoo.logits_of(module, ids))
    with pytest.raises(UserError, match=r"layers\.1\.input_layernorm.*Merge first"):
        model.run(ids, keep="L1.attn_norm_scale")
    assert plain.shape == (2, zoo.LENGTH, 32)


def test_a_wrapper_that_hides_its_sizes_is_refused():
    with pytest.raises(UserError, match="Bare stands where a projection is expected"):
        _ = Pretrained(adapted(Bare, ("down_proj",))).shape


def test_what_peft_wraps_around_a_model_is_refused():
    whole = type("PeftModel", (Bare,), {"__module__": "peft.peft_model"})(zoo.bare("gpt2"))
    with pytest.raises(UserError, match="merge_and_unload"):
        Pretrained(whole)


def test_a_parametrised_projection_is_read_as_it_computes():
    module = zoo.fresh("llama")

    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

    torch.nn.utils.parametrize.register_parametrization(module.model.layers[0].self_attn.o_proj, "weight", Doubled())
    wanted = 2 * zoo.model("llama").weights.W_O[0]
    assert torch.equal(Pretrained(module).weights.W_O[0], wanted)
    assert torch.equal(
        Pretrained(module).run(zoo.tokens(), keep="L0.result").logits, zoo.logits_of(module, zoo.tokens())
    )
