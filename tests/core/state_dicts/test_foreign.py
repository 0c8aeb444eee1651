"""State dicts of others become networks of ours with the same logits, in every layout; what fits none is refused."""

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from micrographia.core.errors import BadConfig, UnreadableWeights
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.state_dicts.foreign import candidates, variants
from micrographia.core.state_dicts.layouts import LAYOUTS, LENS, LISTED, PAPER, our_name
from small import architectures, roughened, some_tokens

SIZES = {"V": 8, "U": 8, "D": 12, "H": 3, "E": 4, "M": 20, "C": 3}
SQUARE = {"V": 12, "U": 12, "D": 12, "H": 1, "E": 12, "M": 12, "C": 3}


def draw(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def paper_state(n_layers: int = 1, **changes: int) -> dict[str, Tensor]:
    """Names and shapes as the code published with Nanda et al. (2023) saves them, mask buffers too."""
    V, U, D, H, E, M, C = ({**SIZES, **changes}[name] for name in "VUDHEMC")
    shapes: dict[str, tuple[int, ...]] = {"embed.W_E": (D, V), "pos_embed.W_pos": (C, D)}
    for i in range(n_layers):
        block = f"blocks.{i}."
        shapes |= {f"{block}attn.W_{x}": (H, E, D) for x in "KQV"} | {f"{block}attn.W_O": (D, H * E)}
        shapes |= {f"{block}mlp.W_in": (M, D), f"{block}mlp.b_in": (M,)}
        shapes |= {f"{block}mlp.W_out": (D, M), f"{block}mlp.b_out": (D,)}
    state = draw({**shapes, "unembed.W_U": (D, U)})
    return state | {f"blocks.{i}.attn.mask": torch.ones(C, C).tril() for i in range(n_layers)}


def paper_forward(w: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """That code's forward, position by position of its formulas, written anew here."""
    x = w["embed.W_E"][:, tokens].permute(1, 2, 0) + w["pos_embed.W_pos"][: tokens.shape[1]]
    for i in range(sum("W_in" in name for name in w)):
        q, k, v = (torch.einsum("ihd,bpd->biph", w[f"blocks.{i}.attn.W_{x_}"], x) for x_ in "QKV")
        scores = torch.einsum("biph,biqh->biqp", k, q) / math.sqrt(q.shape[-1])
        ahead = torch.ones(scores.shape[-2:]).triu(1).bool()
        pattern = scores.masked_fill(ahead, -1e10).softmax(-1)
        z = torch.einsum("biph,biqp->biqh", v, pattern)
        flat = z.permute(0, 2, 1, 3).flatten(2)  # "b i q h -> b q (i h)"
        x = x + torch.einsum("df,bqf->bqd", w[f"blocks.{i}.attn.W_O"], flat)
        h = (x @ w[f"blocks.{i}.mlp.W_in"].T + w[f"blocks.{i}.mlp.b_in"]).relu()
        x = x + h @ w[f"blocks.{i}.mlp.W_out"].T + w[f"blocks.{i}.mlp.b_out"]
    return x @ w["unembed.W_U"]


def lens_state(n_layers: int = 1, *, norm: str = "", gated: bool = False, **changes: int) -> dict[str, Tensor]:
    """Names and shapes as TransformerLens 3 saves them, buffers too. `norm`: "", "LN" or "RMS"."""
    V, U, D, H, E, M, C = ({**SIZES, **changes}[name] for name in "VUDHEMC")
    shapes: dict[str, tuple[int, ...]] = {"embed.W_E": (V, D), "pos_embed.W_pos": (C, D)}
    parts = {"": (), "LN": ("w", "b"), "RMS": ("w",)}[norm]
    for i in range(n_layers):
        block = f"blocks.{i}."
        shapes |= {f"{block}{ln}.{part}": (D,) for ln in ("ln1", "ln2") for part in parts}
        shapes |= {f"{block}attn.W_{x}": (H, D, E) for x in "QKV"} | {f"{block}attn.b_{x}": (H, E) for x in "QKV"}
        shapes |= {f"{block}attn.W_O": (H, E, D), f"{block}attn.b_O": (D,)}
        shapes |= {f"{block}mlp.W_in": (D, M), f"{block}mlp.b_in": (M,)} | (
            {f"{block}mlp.W_gate": (D, M)} if gated else {}
        )
        shapes |= {f"{block}mlp.W_out": (M, D), f"{block}mlp.b_out": (D,)}
    shapes |= {f"ln_final.{part}": (D,) for part in parts} | {"unembed.W_U": (D, U), "unembed.b_U": (U,)}
    buffers = {"mask": torch.zeros(0, 0, dtype=torch.bool), "IGNORE": torch.tensor(-torch.inf)}
    return draw(shapes) | {f"blocks.{i}.attn.{name}": x for i in range(n_layers) for name, x in buffers.items()}


def lens_forward(w: dict[str, Tensor], tokens: Tensor, *, norm: str = "", act=torch.relu) -> Tensor:
    """TransformerLens' forward written anew; norm "LNPre" and "RMSPre" have no weights."""

    def normed(name: str, x: Tensor) -> Tensor:
        if not norm:
            return x
        x = x - x.mean(-1, keepdim=True) if norm.startswith("LN") else x
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * w.get(f"{name}.w", torch.ones(())) + w.get(f"{name}.b", torch.zeros(()))

    x = w["embed.W_E"][tokens] + w["pos_embed.W_pos"][: tokens.shape[1]]
    for i in range(sum("W_in" in name for name in w)):
        attn, mlp = f"blocks.{i}.attn.", f"blocks.{i}.mlp."
        y = normed(f"blocks.{i}.ln1", x)
        q, k, v = (torch.einsum("bpd,hde->bphe", y, w[f"{attn}W_{n}"]) + w[f"{attn}b_{n}"] for n in "QKV")
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(q.shape[-1])
        pattern = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf).softmax(-1)
        x = x + torch.einsum("bhqk,bkhe,hed->bqd", pattern, v, w[f"{attn}W_O"]) + w[f"{attn}b_O"]
        y = normed(f"blocks.{i}.ln2", x)
        if f"{mlp}W_gate" in w:
            h = act(y @ w[f"{mlp}W_gate"]) * (y @ w[f"{mlp}W_in"]) + w[f"{mlp}b_in"]
        else:
            h = act(y @ w[f"{mlp}W_in"] + w[f"{mlp}b_in"])
        x = x + h @ w[f"{mlp}W_out"] + w[f"{mlp}b_out"]
    return normed("ln_final", x) @ w["unembed.W_U"] + w["unembed.b_U"]


def tokens(vocab: int = SIZES["V"], rows: int = 30) -> Tensor:
    return torch.randint(0, vocab, (rows, 3), generator=torch.Generator().manual_seed(1))


def logits(candidate, rows: Tensor) -> Tensor:
    found = Transformer(candidate.arch, candidate.weights).run(rows).logits
    assert found is not None
    return found


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("answers", [7, 8])
def test_the_papers_layout_gives_the_papers_logits(n_layers, answers):
    state = paper_state(n_layers, U=answers)
    [found] = candidates(state)
    assert found.choices["layout"] == PAPER
    assert_same(logits(found, tokens()), paper_forward(state, tokens()))


@pytest.mark.parametrize("norm", ["", "LN", "RMS"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_layout_of_transformerlens_gives_its_logits(norm, n_layers):
    state = lens_state(n_layers, norm=norm)
    [found] = candidates(state)
    assert found.choices["layout"] == LENS
    assert found.arch.norm == {"": "none", "LN": "layernorm", "RMS": "rmsnorm"}[norm]
    assert_same(logits(found, tokens()), lens_forward(state, tokens(), norm=norm))


def test_the_comparison_of_logits_can_fail():
    state = lens_state()
    with pytest.raises(AssertionError):
        assert_same(logits(candidates(state)[0], tokens()), lens_forward(state, tokens(), act=torch.nn.functional.gelu))


@pytest.mark.parametrize(
    ("state", "forward", "layout"), [(paper_state, paper_forward, PAPER), (lens_state, lens_forward, LENS)]
)
def test_square_shapes_are_told_apart_by_all_weights_together(state, forward, layout):
    square = state(**SQUARE)
    [found] = candidates(square)
    assert found.choices["layout"] == layout
    assert_same(logits(found, tokens(12)), forward(square, tokens(12)))


def test_weights_that_fit_two_layouts_give_two_networks():
    state = draw({"W_E": (6, 6), "W_in": (6, 6), "W_out": (6, 6), "W_U": (6, 6)})  # an MLP over one operand
    paper, lens = candidates(state)
    assert [each.choices["layout"] for each in (paper, lens)] == [PAPER, LENS]
    for name in ("embed.W_E", "blocks.0.mlp.W_in", "blocks.0.mlp.W_out"):
        assert torch.equal(paper.weights[name], lens.weights[name].T)


@pytest.mark.parametrize("norm", ["LNPre", "RMSPre"])
def test_a_norm_without_weights_is_among_the_variants(norm):
    state = lens_state()
    expected = lens_forward(state, tokens(), norm=norm)
    [found] = [
        each for each in variants(candidates(state)[0]) if torch.allclose(logits(each, tokens()), expected, atol=1e-5)
    ]
    assert found.choices["norm"] == {"LNPre": "layernorm, folded", "RMSPre": "rmsnorm, folded"}[norm]
    assert found.choices["act"] == "relu"


@pytest.mark.parametrize("act", ["relu", "gelu", "silu"])
def test_every_guessed_activation_is_among_the_variants(act):
    state = lens_state()
    expected = lens_forward(state, tokens(), act=getattr(torch.nn.functional, act))
    right = [each for each in variants(candidates(state)[0]) if each.choices["act"] == act]
    assert any(torch.allclose(logits(each, tokens()), expected, atol=1e-6) for each in right)


def test_an_activation_that_is_given_is_the_only_one():
    found = variants(candidates(paper_state())[0], act="gelu_new")
    assert {each.arch.act for each in found} == {"gelu_new"}
    assert len(found) == 1


def test_an_activation_that_the_weights_do_not_allow_is_refused():
    with pytest.raises(BadConfig, match="swiglu"):
        variants(candidates(paper_state())[0], act="swiglu")


def test_a_bias_behind_the_gate_is_among_the_variants():
    state = lens_state(gated=True)
    expected = lens_forward(state, tokens(), act=torch.nn.functional.silu)
    found = [each for each in variants(candidates(state)[0]) if each.choices["norm"] == "none"]
    assert {each.choices["b_in"] for each in found} == {"before the gate", "behind the gate"}
    right = [each for each in found if torch.allclose(logits(each, tokens()), expected, atol=1e-5)]
    assert [each.choices["b_in"] for each in right] == ["behind the gate"]


def test_norms_of_the_published_code_may_be_used_or_not():
    norms = {f"{name}.{part}": torch.rand(12) + 0.5 for name in NORMED for part in ("w_ln", "b_ln")}
    state = paper_state() | norms
    unused, used = candidates(state)
    assert_same(logits(unused, tokens()), paper_forward(state, tokens()))

    def published(name: str, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x / (x.std(-1, keepdim=True) + 1e-4) * norms[f"{name}.w_ln"] + norms[f"{name}.b_ln"]

    final = logits(used, tokens())
    plain = Transformer(used.arch, used.weights).run(tokens(), keep="L0.resid_post").cache["L0.resid_post"]
    expected = published("ln", plain) @ state["unembed.W_U"]
    torch.testing.assert_close(final, expected, rtol=1e-3, atol=1e-3)


NORMED = ("blocks.0.ln1", "blocks.0.ln2", "ln")


@given(architectures(positions="learned").filter(lambda arch: arch.joined == "concatenated"))
def test_what_we_write_is_read_back_as_it_was(arch):
    weights = roughened(init_weights(arch, torch.Generator().manual_seed(0)), 0)
    act = arch.act if arch.mlp else None
    ways = [each for way in candidates(weights) for each in variants(way, act=act)]
    rows = some_tokens(arch)
    expected = Transformer(arch, weights).run(rows, logits="last").logits
    assert expected is not None
    found = [Transformer(way.arch, way.weights).run(rows, logits="last").logits for way in ways if same(way.arch, arch)]
    assert any(torch.allclose(each[..., : arch.d_vocab_out], expected, atol=1e-5) for each in found if each is not None)


def same(found: Architecture, arch: Architecture) -> bool:
    """Whether they can read the same rows."""
    return (found.n_ctx, found.d_vocab, found.attention) == (arch.n_ctx, arch.d_vocab, arch.attention)


@pytest.mark.parametrize("prefix", ["model.", "module.net.", "_orig_mod."])
def test_a_prefix_does_not_matter(prefix):
    state = lens_state(2)
    [plain], [found] = candidates(state), candidates({prefix + name: x for name, x in state.items()})
    assert found.arch == plain.arch
    assert all(torch.equal(found.weights[name], plain.weights[name]) for name in plain.weights)


def test_bare_names_are_read_for_one_layer():
    state = paper_state()
    [found] = candidates({name.rpartition(".")[2]: x for name, x in state.items()})
    assert_same(logits(found, tokens()), paper_forward(state, tokens()))


def test_names_of_weights_are_told_by_their_last_words():
    assert our_name("a.b/blocks/2/mlp/W_in") == "blocks.2.mlp.W_in"
    assert our_name("transformer.ln_final.b") == "ln_final.b"
    assert our_name("blocks.1.ln2.w_ln") == "blocks.1.ln2.w"
    assert our_name("blocks.0.mlp.ln.w") is None


@pytest.mark.parametrize(("dtype", "read"), [(torch.float16, torch.float32), (torch.bfloat16, torch.float32)])
def test_half_precision_is_widened_and_said(dtype, read):
    state = {name: x.to(dtype) for name, x in paper_state().items()}
    [found] = candidates(state)
    assert {x.dtype for x in found.weights.values()} == {read}
    assert torch.equal(found.weights["unembed.W_U"], state["unembed.W_U"].float())
    assert any(str(dtype).removeprefix("torch.") in note for note in found.notes)


def test_double_precision_stays():
    [found] = candidates({name: x.double() for name, x in paper_state().items()})
    assert {x.dtype for x in found.weights.values()} == {torch.float64}
    assert found.notes


def test_empty_biases_are_left_out_and_said():
    state = {name: x.zero_() if name.rpartition(".")[2] in EMPTY else x for name, x in lens_state().items()}
    [found] = candidates(state)
    assert not found.arch.attn_bias
    assert not found.arch.unembed_bias
    assert len(found.notes) == 2


EMPTY = ("b_Q", "b_K", "b_V", "b_O", "b_U")


def test_a_bias_that_lacks_its_fellows_is_kept():
    state = {name: x for name, x in lens_state().items() if name.rpartition(".")[2] not in ("b_Q", "b_V", "b_out")}
    [found] = candidates(state)
    full = (
        lens_state()
        | {f"blocks.0.attn.b_{x}": torch.zeros(3, 4) for x in "QV"}
        | {"blocks.0.mlp.b_out": torch.zeros(12)}
    )
    assert_same(logits(found, tokens()), lens_forward(full, tokens()))


def test_the_unembeddings_bias_is_part_of_the_logits():
    arch = Architecture(d_vocab=5, d_vocab_out=4, n_ctx=3, d_model=6, n_heads=2, d_head=3, d_mlp=8, unembed_bias=True)
    weights = init_weights(arch, torch.Generator().manual_seed(0))
    before = Transformer(arch, weights).run(tokens(5)).logits
    after = Transformer(arch, {**weights, "unembed.b_U": torch.arange(4.0)}).run(tokens(5)).logits
    torch.testing.assert_close(after - before, torch.arange(4.0).expand(30, 3, 4))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"blocks.0.attn.W_O": torch.zeros(5, 5)}, "W_O"),
        ({"blocks.0.attn.q_norm.scale": torch.zeros(4)}, "q_norm.scale"),
        ({"second.embed.W_E": torch.zeros(12, 8)}, "second.embed.W_E"),
        ({"unembed.W_U": torch.full((12, 8), torch.nan)}, "unembed.W_U hold NaN"),
        ({"blocks.2.mlp.W_in": torch.zeros(20, 12)}, "blocks.1"),
    ],
)
def test_what_fits_no_layout_is_refused_by_name(change, named):
    with pytest.raises(UnreadableWeights, match=named):
        candidates(paper_state() | change)


def test_an_unreadable_file_is_told_what_was_found_and_what_was_expected():
    state = {f"layer{i}.weight": torch.zeros(3, 4) for i in range(30)}
    with pytest.raises(UnreadableWeights) as caught:
        candidates(state)
    text = str(caught.value)
    assert "layer0.weight [3, 4]" in text
    assert text.count("weight [3, 4]") == LISTED
    assert "and 10 more" in text


def test_the_expected_layouts_are_spelt_out():
    with pytest.raises(UnreadableWeights) as caught:
        candidates({"embed.W_E": torch.zeros(3, 4)})
    text = str(caught.value)
    for layout in LAYOUTS:
        assert layout in text
    assert "attn.W_V [head, d_head, d_model]" in text
    assert "attn.W_V [head, d_model, d_head]" in text
    assert "attn.W_O [d_model, head*d_head]" in text
    assert "blocks.0.mlp.W_in is missing" in text


def test_what_scripts_write_beside_the_weights_is_left_aside():
    state = paper_state()
    [plain], [found] = candidates(state), candidates(state | {"train_losses": torch.rand(7), "epoch": torch.tensor(3)})
    assert found.weights.keys() == plain.weights.keys()
