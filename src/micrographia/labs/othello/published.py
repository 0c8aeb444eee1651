"""Weights and probes that there are already: the shipped model, a Run, published files.

Published weights are those of Li et al. 2023 in the naming of minGPT and of TransformerLens; published linear probes
are [modes, d_model, rows, columns, 3]. A `.pth` is a pickle and read only when allowed. What a file does not say, such
as heads and norms without weights, is tried: the reading that predicts legal moves best is taken.
"""

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from micrographia.core.errors import BadConfig, BadShape, UnreadableWeights
from micrographia.core.events import Note, Watch
from micrographia.core.model_packages import about_shipped
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.trained import load_shipped, load_trained
from micrographia.core.small.transformer import Transformer
from micrographia.core.state_dicts.foreign import candidates, variants
from micrographia.core.state_dicts.pickles import SUFFIXES as PICKLES
from micrographia.core.state_dicts.pickles import load_pickle
from micrographia.core.state_dicts.read import read_state_dict
from micrographia.core.store import find_run, load_run
from micrographia.labs.othello.config import SHIPPED, Config
from micrographia.labs.othello.engine.board import SIZES, Board
from micrographia.labs.othello.network import legal_scores, unseen_games
from micrographia.labs.othello.task import predicted, vocabulary

LAB = "othello"
FILES = (".safetensors", ".npz", ".pt", ".pth", ".ckpt", ".bin", ".pkl")
MINGPT = {
    "tok_emb.weight": "embed.W_E", "pos_emb": "pos_embed.W_pos", "ln_f.weight": "ln_final.w", "ln_f.bias": "ln_final.b",
    "head.weight": "unembed.W_U",
}  # fmt: skip
MINGPT_BLOCK = {
    "ln1.weight": "ln1.w", "ln1.bias": "ln1.b", "ln2.weight": "ln2.w", "ln2.bias": "ln2.b",
    **{f"attn.{name}.{part}": f"attn.{kind}_{x}" for name, x in zip(("query", "key", "value", "proj"), "QKVO")
       for part, kind in (("weight", "W"), ("bias", "b"))},
    "mlp.0.weight": "mlp.W_in", "mlp.0.bias": "mlp.b_in", "mlp.2.weight": "mlp.W_out", "mlp.2.bias": "mlp.b_out",
}  # fmt: skip


def shipped(device: str = "cpu") -> Transformer:
    """The model that comes with the package: a 6x6 board, from a recorded run of this lab."""
    return load_shipped(LAB, device=device)


def games_seen(config: Config) -> int:
    """Games that the model was trained on; of somebody else's as many as the config would train on."""
    if config.model != SHIPPED:
        return config.games * config.steps
    return int(about_shipped(LAB)["games"])


def model_of(config: Config, watch: Watch) -> Transformer:
    """The model that the config names. Raises BadConfig where it is of another board, UserError, PickleRefused."""
    name, device = config.model, config.machine.device
    if name == SHIPPED:
        found = shipped(device)
    elif Path(name).suffix.lower() in FILES:
        found = foreign(config, Path(name), watch)
    else:
        run = find_run(name)
        if rules_of(run) != config.flanked:
            raise BadConfig(
                f"The model {name!r} was asked for with flanked discs {config.flanked!r}. It has learned from games in "
                f"which they are {rules_of(run)!r}. Give --flanked {rules_of(run)}."
            )
        inner = run / "model"
        found = load_trained(inner if inner.is_dir() else run, device=device)
    _fits(found, config)
    return found


def rules_of(run: Path) -> str:
    """What becomes of flanked discs in the games of a Run."""
    return str(load_run(run).config.get("flanked", "flipped"))


def _fits(model: Transformer, config: Config) -> None:
    if config.flanked == "removed" and model.shape.d_vocab == len(config.board.playable) + 1:
        return
    size = board_of(model, config.model).size
    if size != config.size:
        raise BadConfig(
            f"The model {config.model!r} was asked for on a board of {config.size}x{config.size}. It has "
            f"{model.shape.d_vocab} tokens: a board of {size}x{size}. Give --size {size}."
        )


def board_of(model: Transformer, name: str) -> Board:
    """The board whose squares a model's tokens are. Raises BadConfig."""
    sizes = {Board(size).most_moves + 1: size for size in SIZES}
    size = sizes.get(model.shape.d_vocab)
    if size is None:
        known = ", ".join(f"{n} ({size}x{size})" for n, size in sizes.items())
        raise BadConfig(
            f"Asked for the board of the model {name!r}. It has {model.shape.d_vocab} tokens, those of no known board. "
            f"A model of Othello has {known}."
        )
    board = Board(size)
    if model.shape.n_ctx < board.most_moves - 1:
        raise BadConfig(
            f"Asked for games of {size}x{size} squares in the model {name!r}. They have {board.most_moves - 1} moves "
            f"to read, and it reads {model.shape.n_ctx}. Give a model that reads whole games."
        )
    return board


def foreign(config: Config, path: Path, watch: Watch) -> Transformer:
    """The weights of a file in the naming of minGPT or TransformerLens."""
    content = read_state_dict(path, allow_pickle=config.allow_pickle)
    tensors = {name.removeprefix("module."): each for name, each in content.tensors.items()}
    if "tok_emb.weight" in tensors:
        every = [of_mingpt(tensors, n) for n in _heads(tensors["tok_emb.weight"].shape[-1])]
    else:
        every = [(v.arch, v.weights) for each in candidates(tensors) for v in variants(each, act="gelu")]
    judged = predicted(unseen_games(config, 50))
    fitting = [each for each in every if each[0].d_vocab == judged.legal.shape[-1] and each[0].n_ctx >= config.n_ctx]
    if not fitting and any(arch.d_vocab == judged.legal.shape[-1] for arch, _ in every):
        raise BadConfig(f"Games of this board have {config.n_ctx} moves to read. The model in {path} reads fewer.")
    if not fitting:
        sizes = sorted({arch.d_vocab for arch, _ in every})
        raise BadConfig(
            f"Asked for the model in {path} on a board of {config.size}x{config.size}, which has "
            f"{judged.legal.shape[-1]} tokens. Found {', '.join(map(str, sizes))}. Give the --size of its board."
        )
    scores = [legal_scores(arch, weights, judged) for arch, weights in fitting]
    best = min(range(len(fitting)), key=lambda i: scores[i].excess_nats)
    arch, weights = fitting[best]
    watch(
        Note(
            f"{path.name}: {arch.n_layers} layers of {arch.d_model}; {scores[best].legal_rate:.1%} of its moves legal."
        )
    )
    on = {name: w.float().to(config.machine.device) for name, w in weights.items()}
    return Transformer(arch, on, vocabulary(config.board))


def _heads(d_model: int) -> list[int]:
    """Numbers of heads that the width allows, of 8 numbers or more each."""
    return [n for n in range(1, d_model // 8 + 1) if d_model % n == 0]


def of_mingpt(tensors: Mapping[str, Tensor], n_heads: int) -> tuple[Architecture, dict[str, Tensor]]:
    """minGPT's names and axes (linear layers are (out, in)) as ours. The number of heads is not in the file."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        *path, first, second = ["", "", *name.split(".", 2)] if name.startswith("blocks.") else ["", "", ""]
        ours = f"blocks.{first}.{MINGPT_BLOCK.get(second)}" if path and first else MINGPT.get(name)
        if second in MINGPT_BLOCK or name in MINGPT:
            renamed[str(ours)] = tensor.float()
    if broken := [name for name, tensor in renamed.items() if not tensor.isfinite().all()]:
        raise UnreadableWeights(
            f"Asked for weights in minGPT's naming. {broken[0]} holds NaN or infinity. Get them again."
        )
    try:
        d_vocab, d = renamed["embed.W_E"].shape
        n_layers = 1 + max(int(name.split(".")[1]) for name in renamed if name.startswith("blocks."))
        arch = Architecture(
            d_vocab=d_vocab, d_vocab_out=len(renamed["unembed.W_U"]), n_ctx=renamed["pos_embed.W_pos"].shape[-2],
            n_layers=n_layers, d_model=d, n_heads=n_heads, d_head=d // n_heads, d_mlp=len(renamed["blocks.0.mlp.W_in"]),
            act="gelu", norm="layernorm", attn_bias=True,
        )  # fmt: skip
        return arch, {name: _turned(name, renamed[name], arch) for name in arch.weight_shapes()}
    except (KeyError, ValueError, RuntimeError) as error:
        raise UnreadableWeights(
            f"Asked for weights in minGPT's naming. Something is missing or of another shape: {error}. With --n-heads "
            f"{n_heads}: is that right?"
        ) from error


def _turned(name: str, tensor: Tensor, arch: Architecture) -> Tensor:
    leaf, H, E = name.rpartition(".")[2], arch.n_heads, arch.d_head
    if leaf in ("W_Q", "W_K", "W_V"):
        return tensor.view(H, E, arch.d_model).transpose(1, 2).contiguous()
    if leaf in ("b_Q", "b_K", "b_V"):
        return tensor.view(H, E)
    if leaf == "W_O":
        return tensor.T.reshape(H, E, arch.d_model)
    if leaf == "W_pos":
        return tensor.view(tensor.shape[-2:])
    return tensor.T.contiguous() if leaf in ("W_in", "W_out", "W_U") else tensor


def read_probes(path: Path, config: Config, d_model: int) -> Float[Tensor, "mode d_model square class"]:
    """A file of published linear probes: one tensor [modes, d_model, rows, columns, 3].

    Raises BadShape for another width, board or number of classes; PickleRefused for a `.pth` that was not allowed.
    """
    found = _tensors(path, config.allow_pickle)
    tensors = [each for each in found.values() if each.ndim == 5]
    wanted = (d_model, config.size, config.size, 3)
    if len(tensors) == 1 and not tensors[0].isfinite().all():
        raise BadShape(f"Asked for probes in {path}. They hold NaN or infinity. Get the file again.")
    if len(tensors) != 1 or tuple(tensors[0].shape[1:]) != wanted or not len(tensors[0]):
        shapes = [tuple(each.shape) for each in found.values()]
        raise BadShape(
            f"Asked for probes in {path}. They should be [modes, {', '.join(map(str, wanted))}]. Found {shapes}."
        )
    return tensors[0].float().flatten(2, 3)


def _tensors(path: Path, allow_pickle: bool) -> Mapping[str, Tensor]:
    """Those of a file; a published probe is a pickle of the tensor alone."""
    if path.suffix.lower() in PICKLES and path.is_file():
        content = load_pickle(path, allowed=allow_pickle)
        if isinstance(content, Tensor):
            return {path.name: content.detach()}
    return read_state_dict(path, allow_pickle=allow_pickle).tensors
