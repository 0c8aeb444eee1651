"""The module paths of each Hugging Face architecture: one row per family, data only.

A row gives the dotted paths of modules and the few facts that differ: how q, k and v are fused, where the norms are,
what is scaled or capped. `FAMILIES` is keyed by `config.model_type`; `family_of` finds the row of a model and applies
what its configuration changes (`when`). A new family is a new row: copy the nearest, correct the paths, and run it; the
probe of `checks` reports what does not fit.
Read from the modelling files of transformers 5.23.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from micrographia.core.errors import UnknownModel

SHARES: tuple[Literal["q", "k", "v"], ...] = ("q", "k", "v")
Layout = Literal["heads", "heads_first", "flat", "interleaved"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """A value that is the output of the module at `path` (within a layer), and its layout in that output.

    `flat`: (batch, pos, head * d_head), as `share` of a fused output if named; `heads`: (batch, pos, head, d_head);
    `heads_first`: (batch, head, pos, d_head); `interleaved`: (batch, pos, key head, its queries, key and value, d_head)
    flattened, `share` of these.
    `weight` is the path of the projection where a norm follows it.
    """

    path: str
    layout: Layout = "flat"
    share: Literal["", "q", "k", "v", "gate", "up"] = ""
    weight: str = ""

    @property
    def projection(self) -> str:
        return self.weight or self.path


class QKV(NamedTuple):
    """The places of queries, keys and values."""

    q: Location
    k: Location
    v: Location


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm:
    """LayerNorm or RMSNorm; the effective gain is `offset` + weight; `eps` is the module's attribute, or the number."""

    kind: Literal["layernorm", "rmsnorm"]
    eps: str | float = "eps"
    offset: float = 0.0


LAYER_NORM = Norm(kind="layernorm")
RMS_NORM = Norm(kind="rmsnorm", eps="variance_epsilon")
GEMMA_NORM = Norm(kind="rmsnorm", offset=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One architecture. Paths of the first group start at the model, the others at a layer; "" where there is none."""

    name: str
    embed: str
    layers: str
    final_norm: str
    head: str
    pos_embed: str = ""
    embed_projection: str = ""
    """The module after the embedding: a projection where that is narrower than the residual stream; BLOOM's norm."""
    head_projection: str = ""
    unembedding: tuple[str, ...] = ()
    """The modules from the last residual stream to the logits, where there are more than norm and head (BERT)."""

    attn: str
    """The attention module, which is also passed to the attention function."""
    mlp: str = ""
    """The module of the whole MLP, needed where no norm precedes it, or where it has experts."""
    router: str = ""
    """The router, which returns logits, weights and choice of the experts; layers without it have a plain MLP."""
    experts: str = ""
    """The module of all experts, called with the tokens, their choice and their weights."""
    qkv: QKV
    o: str
    act: str
    down: str
    up: Location
    """The input of the neurons; in a gated MLP the linear branch."""
    gate: Location | None = None
    attn_norm: str = ""
    mlp_norm: str = ""
    attn_post_norm: str = ""
    mlp_post_norm: str = ""
    post_ln: bool = False
    """Post-LN: the norms follow the sums, so the residual stream is their output (Vaswani et al. 2017)."""

    norm: Norm = LAYER_NORM
    rotary: bool = False
    sinks: bool = False
    """Attention may go to no key: a pattern's row sums to less than one."""
    parallel: bool = False
    """Attention and MLP read the same residual stream; there is no resid_mid."""
    encoder: bool = False
    stream_only: bool = False
    """Only the residual stream and the logits are Sites: see `stream`."""
    flattened_mlp: bool = False
    """The MLP works on (batch * pos, ...)."""
    sums_in_place: bool = False
    """A layer adds attention's output to the MLP's in place: a value that is kept there must be a copy."""
    tuple_layers: bool = False
    """A layer returns a tuple, as before transformers 5."""
    kv_heads: str | int = "num_key_value_heads"
    """The config's name of the number of key and value heads, or that number."""
    caches_every_head: bool = False
    """The cache has keys and values once for each query head."""
    n_ctx: int = 0
    """The positions of training, where neither a table nor the config says them."""
    transposed: bool = False
    """Weights are (in, out), as in GPT-2's Conv1D."""
    pos_offset: int = 0
    """The row of the position table where positions begin."""
    pos_after: str = ""
    """The config's name of the row before that one, if any. Position ids are then rows of the table."""
    final_softcap: str = ""
    """The config's name of the cap on logits."""
    eager_method: str = ""
    """The attention module's eager method, where no attention function is looked up."""
    inline_attention: bool = False
    """The attention module computes scores and pattern in its own forward: there is nothing to look up or wrap."""
    scaled_by: str = "scaling"
    """The attention module's attribute with the scale of the scores; "d_head" for 1 / sqrt(d_head), "" for none."""
    eager_mask: str = ""
    """The module's buffer of the pairs that may attend, (1, 1, n_ctx, n_ctx), where masks are incomplete."""
    eager_heads_first: bool = False
    """Whether that method returns (batch, head, pos, d_head), not (batch, pos, head, d_head)."""
    when: tuple[tuple[str, Any, Mapping[str, Any]], ...] = field(default=(), compare=False)
    """Fields that differ where the config's attribute has this value."""
    unless: tuple[tuple[str, Any], ...] = field(default=(), compare=False)
    """Values of the config's attributes for which the row holds; another one is refused."""

    @property
    def after_layers(self) -> tuple[str, ...]:
        """The modules from the last residual stream to the logits; "" for one that this family lacks."""
        return self.unembedding or (self.final_norm, self.head_projection, self.head)

    @property
    def first_position(self) -> int:
        """The position id of a prompt's first token."""
        return self.pos_offset if self.pos_after else 0


def _separate(attn: str, q: str = "q_proj", k: str = "k_proj", v: str = "v_proj") -> QKV:
    return QKV(*(Location(path=f"{attn}.{name}") for name in (q, k, v)))


def _normed(layout: Layout) -> QKV:
    """q and k after their own norms."""
    q, k = (Location(path=f"self_attn.{name}_norm", layout=layout, weight=f"self_attn.{name}_proj") for name in "qk")
    return QKV(q, k, Location(path="self_attn.v_proj"))


def _fused(path: str, layout: Layout = "flat") -> QKV:
    return QKV(*(Location(path=path, layout=layout, share=name) for name in SHARES))


GPT2 = Family(
    name="GPT-2",
    embed="transformer.wte",
    pos_embed="transformer.wpe",
    layers="transformer.h",
    final_norm="transformer.ln_f",
    head="lm_head",
    attn="attn",
    qkv=_fused("attn.c_attn"),
    o="attn.c_proj",
    act="mlp.act",
    up=Location(path="mlp.c_fc"),
    down="mlp.c_proj",
    attn_norm="ln_1",
    mlp_norm="ln_2",
    transposed=True,
    when=(
        (
            "reorder_and_upcast_attn",
            True,
            {"eager_method": "_upcast_and_reordered_attn"},
        ),
    ),
)

GPT_NEO = replace(
    GPT2,
    name="GPT-Neo",
    attn="attn.attention",
    qkv=_separate("attn.attention"),
    o="attn.attention.out_proj",
    transposed=False,
    tuple_layers=True,
    eager_method="_attn",
    eager_mask="bias",
    eager_heads_first=True,
    scaled_by="",
    when=(),
)

GPT_J = replace(
    GPT2,
    name="GPT-J",
    pos_embed="",
    qkv=_separate("attn"),
    o="attn.out_proj",
    up=Location(path="mlp.fc_in"),
    down="mlp.fc_out",
    mlp_norm="",
    rotary=True,
    parallel=True,
    transposed=False,
    tuple_layers=True,
    eager_method="_attn",
    eager_heads_first=True,
    scaled_by="d_head",
    when=(),
)

GPT_NEOX = Family(
    name="GPT-NeoX",
    embed="gpt_neox.embed_in",
    layers="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    head="lm_head",
    attn="attention",
    qkv=_fused("attention.query_key_value", "interleaved"),
    o="attention.dense",
    act="mlp.act",
    up=Location(path="mlp.dense_h_to_4h"),
    down="mlp.dense_4h_to_h",
    attn_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    rotary=True,
    when=(("use_parallel_residual", True, {"parallel": True}),),
)

PHI = replace(
    GPT_NEOX,
    name="Phi",
    embed="model.embed_tokens",
    layers="model.layers",
    final_norm="model.final_layernorm",
    attn="self_attn",
    qkv=_separate("self_attn"),
    o="self_attn.dense",
    act="mlp.activation_fn",
    up=Location(path="mlp.fc1"),
    down="mlp.fc2",
    mlp_norm="",
    parallel=True,
    when=(),
    unless=(("qk_layernorm", False),),
)

BLOOM = Family(
    name="BLOOM",
    embed="transformer.word_embeddings",
    embed_projection="transformer.word_embeddings_layernorm",
    layers="transformer.h",
    final_norm="transformer.ln_f",
    head="lm_head",
    attn="self_attention",
    qkv=_fused("self_attention.query_key_value", "interleaved"),
    o="self_attention.dense",
    act="mlp.gelu_impl",
    up=Location(path="mlp.dense_h_to_4h"),
    down="mlp.dense_4h_to_h",
    attn_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    tuple_layers=True,
    inline_attention=True,
    scaled_by="inv_norm_factor",
    n_ctx=2048,  # Scao et al., "BLOOM" (2022), table 3
    unless=(("apply_residual_connection_post_layernorm", False), ("slow_but_exact", False)),
)

FALCON = replace(
    BLOOM,
    name="Falcon",
    embed_projection="",
    act="mlp.act",
    rotary=True,
    sums_in_place=True,
    n_ctx=0,
    kv_heads="num_attention_heads",
    when=(
        ("multi_query", True, {"kv_heads": 1}),
        ("parallel_attn", True, {"parallel": True, "mlp_norm": ""}),
        ("new_decoder_architecture", True, {"parallel": True, "kv_heads": "num_kv_heads", "caches_every_head": True}),
        ("num_ln_in_parallel_attn", 2, {"attn_norm": "ln_attn", "mlp_norm": "ln_mlp"}),
    ),
    unless=(("alibi", False),),
)

LLAMA = Family(
    name="Llama",
    embed="model.embed_tokens",
    layers="model.layers",
    final_norm="model.norm",
    head="lm_head",
    attn="self_attn",
    mlp="mlp",
    qkv=_separate("self_attn"),
    o="self_attn.o_proj",
    act="mlp.act_fn",
    gate=Location(path="mlp.gate_proj"),
    up=Location(path="mlp.up_proj"),
    down="mlp.down_proj",
    attn_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    norm=RMS_NORM,
    rotary=True,
)

GEMMA = replace(LLAMA, name="Gemma", norm=GEMMA_NORM)

OLMO = replace(
    LLAMA,
    name="OLMo",
    norm=Norm(kind="layernorm", eps=1e-5),
    unless=(("clip_qkv", None),),
)  # its LayerNorms have neither gain nor bias

QWEN3 = replace(LLAMA, name="Qwen3", qkv=_normed("heads"))

MIXTRAL = replace(LLAMA, name="Mixtral", router="mlp.gate", experts="mlp.experts")

QWEN3_MOE = replace(QWEN3, name="Qwen3 MoE", router="mlp.gate", experts="mlp.experts")

GPT_OSS = replace(LLAMA, name="gpt-oss", router="mlp.router", experts="mlp.experts", sinks=True)

OLMO2 = replace(
    LLAMA,
    name="OLMo 2",
    qkv=_normed("flat"),
    attn_norm="",
    mlp_norm="",
    attn_post_norm="post_attention_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)

PHI3 = replace(
    LLAMA,
    name="Phi-3",
    qkv=_fused("self_attn.qkv_proj"),
    act="mlp.activation_fn",
    gate=Location(path="mlp.gate_up_proj", share="gate"),
    up=Location(path="mlp.gate_up_proj", share="up"),
)

GEMMA2 = replace(
    LLAMA,
    name="Gemma 2",
    attn_post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
    norm=GEMMA_NORM,
    final_softcap="final_logit_softcapping",
)

GEMMA3 = replace(GEMMA2, name="Gemma 3", qkv=_normed("heads_first"))

GEMMA3_WITH_IMAGES = replace(
    GEMMA3,
    name="Gemma 3 with images",
    embed="model.language_model.embed_tokens",
    layers="model.language_model.layers",
    final_norm="model.language_model.norm",
    final_softcap="",
)  # its language model, on text; `Gemma3ForConditionalGeneration` never caps its logits

OPT = Family(
    name="OPT",
    embed="model.decoder.embed_tokens",
    pos_embed="model.decoder.embed_positions",
    layers="model.decoder.layers",
    final_norm="model.decoder.final_layer_norm",
    head="lm_head",
    embed_projection="model.decoder.project_in",
    head_projection="model.decoder.project_out",
    attn="self_attn",
    qkv=_separate("self_attn"),
    o="self_attn.out_proj",
    act="activation_fn",
    up=Location(path="fc1"),
    down="fc2",
    attn_norm="self_attn_layer_norm",
    mlp_norm="final_layer_norm",
    flattened_mlp=True,
    pos_offset=2,
    when=(
        (
            "do_layer_norm_before",
            False,
            {
                "post_ln": True,
                "attn_norm": "",
                "mlp_norm": "",
                "attn_post_norm": "self_attn_layer_norm",
                "mlp_post_norm": "final_layer_norm",
            },
        ),
    ),
)

BERT = Family(
    name="BERT",
    embed="bert.embeddings.word_embeddings",
    pos_embed="bert.embeddings.position_embeddings",
    layers="bert.encoder.layer",
    final_norm="cls.predictions.transform.LayerNorm",
    head="cls.predictions.decoder",
    unembedding=("cls.predictions",),
    attn="attention.self",
    qkv=_separate("attention.self", "query", "key", "value"),
    o="attention.output.dense",
    act="intermediate.intermediate_act_fn",
    up=Location(path="intermediate.dense"),
    down="output.dense",
    attn_post_norm="attention.output.LayerNorm",
    mlp_post_norm="output.LayerNorm",
    post_ln=True,
    encoder=True,
)

BERT_WITHOUT_HEAD = replace(
    BERT,
    name="BERT without a head",
    embed="embeddings.word_embeddings",
    pos_embed="embeddings.position_embeddings",
    layers="encoder.layer",
    final_norm="",
    head="",
    unembedding=(),
)  # as encoders of sentences are published: activations, and no logits

ROBERTA = replace(
    BERT,
    name="RoBERTa",
    embed="roberta.embeddings.word_embeddings",
    pos_embed="roberta.embeddings.position_embeddings",
    layers="roberta.encoder.layer",
    final_norm="lm_head.layer_norm",
    head="lm_head.decoder",
    unembedding=("lm_head",),
    pos_after="pad_token_id",
)

DISTILBERT = replace(
    BERT,
    name="DistilBERT",
    embed="distilbert.embeddings.word_embeddings",
    pos_embed="distilbert.embeddings.position_embeddings",
    layers="distilbert.transformer.layer",
    final_norm="vocab_layer_norm",
    head="vocab_projector",
    unembedding=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
    attn="attention",
    qkv=_separate("attention", "q_lin", "k_lin", "v_lin"),
    o="attention.out_lin",
    act="ffn.activation",
    up=Location(path="ffn.lin1"),
    down="ffn.lin2",
    attn_post_norm="sa_layer_norm",
    mlp_post_norm="output_layer_norm",
)

FAMILIES: Mapping[str, Family] = {
    "gpt2": GPT2,
    "gpt_neo": GPT_NEO,
    "gptj": GPT_J,
    "gpt_neox": GPT_NEOX,
    "phi": PHI,
    "bloom": BLOOM,
    "falcon": FALCON,
    "llama": LLAMA,
    "mistral": replace(LLAMA, name="Mistral"),
    "mixtral": MIXTRAL,
    "qwen2": replace(LLAMA, name="Qwen2"),
    "qwen2_moe": replace(MIXTRAL, name="Qwen2 MoE"),  # with a shared expert, which is no Site of its own
    "qwen3": QWEN3,
    "qwen3_moe": QWEN3_MOE,
    "gpt_oss": GPT_OSS,
    "olmo": OLMO,
    "olmo2": OLMO2,
    "phi3": PHI3,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "gemma3": GEMMA3_WITH_IMAGES,
    "opt": OPT,
    "bert": BERT,
    "roberta": ROBERTA,
    "distilbert": DISTILBERT,
}

WITHOUT_HEAD: Mapping[str, Family] = {"BertModel": BERT_WITHOUT_HEAD}
"""The rows of modules that predict no words, by the name of their class."""

RECURRENT = ("mamba", "mamba2", "falcon_mamba", "rwkv", "recurrent_gemma", "xlstm", "jamba", "zamba", "zamba2", "bamba")
RECURRENT += (
    "falcon_h1",
    "granitemoehybrid",
    "nemotron_h",
    "qwen3_next",
    "qwen3_5",
    "lfm2",
    "kimi_linear",
    "olmo_hybrid",
)
LATENT = ("deepseek_v2", "deepseek_v3", "minicpm3", "kimi_k25", "longcat_flash")


def refusal(config: Any) -> str:
    """Why a model without a row is refused: what is different about it, and what can be done."""
    kind = getattr(config, "model_type", None)
    if getattr(config, "is_encoder_decoder", False):
        return (
            f"A model of type {kind!r} was given, an encoder and a decoder: it has two residual streams, reads two "
            "texts and attends from one to the other, which Sites of one list of layers cannot address. Give a decoder "
            "or an encoder alone."
        )
    stream = "For its residual stream alone, load it with residual_only=True."
    if kind in RECURRENT:
        return (
            f"A model of type {kind!r} was given, which has recurrent (state-space) layers: there are no attention "
            f"patterns, and no heads whose outputs add up. {stream}"
        )
    if kind in LATENT:
        return (
            f"A model of type {kind!r} was given, whose attention compresses keys and values into latents (MLA): "
            f"queries and keys have parts of two kinds, which no row describes. {stream}"
        )
    return (
        f"A model of type {kind!r} was given; supported are {', '.join(FAMILIES)}. {stream} Or add a row to FAMILIES "
        "in micrographia/core/pretrained/families.py: copy the nearest one, correct the paths of its modules, and run "
        "it; the first run reports what does not fit."
    )


def family_of(config: Any, kind: str = "") -> Family:
    """The row for this configuration, or for a class without head, with the changes of both. Raises UnknownModel."""
    found = WITHOUT_HEAD.get(kind) or FAMILIES.get(getattr(config, "model_type", ""))
    if found is None:
        raise UnknownModel(refusal(config))
    if found.encoder and getattr(config, "is_decoder", False):
        raise UnknownModel(
            f"A {found.name} model was given with is_decoder set; its row describes the encoder, which is "
            "bidirectional. Load it with is_decoder=False, or add a row for the decoder."
        )
    for attribute, value in found.unless:
        if getattr(config, attribute) != value:
            raise UnknownModel(
                f"A {found.name} model was given with {attribute}={getattr(config, attribute)!r}; its row describes "
                f"one with {value!r}. Add a row to FAMILIES in micrographia/core/pretrained/families.py."
            )
    for attribute, value, changes in found.when:
        if getattr(config, attribute) == value:
            found = replace(found, **changes)
    return replace(found, pos_offset=getattr(config, found.pos_after) + 1) if found.pos_after else found
