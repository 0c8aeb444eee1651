"""Small models as TransformerLens trained and published them: `config.json` beside a `.pth` of named weights.

The names and shapes are those of `Architecture`. The `.pth` is a pickle, read only when allowed. On the Hub:
NeelNanda/GELU_1L512W_C4_Code (gelu-1l), and others of the same author as far as our architecture goes.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from micrographia.core.errors import UnknownModel, UnreadableWeights
from micrographia.core.events import Watch, silent
from micrographia.core.pretrained.tokenizer import as_tokenizer
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.state_dicts.read import read_state_dict
from micrographia.core.store import read_json

CONFIG, SUFFIX = "config.json", ".pth"
REPOSITORIES = MappingProxyType({"gelu-1l": "NeelNanda/GELU_1L512W_C4_Code"})
"""TransformerLens' names of models -> where they are on the Hub."""
NORMS = {"LN": "layernorm", "LNPre": "layernorm", "RMS": "rmsnorm", None: "none"}
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_new", "relu": "relu", "silu": "silu"}


def is_lens_model(name: str) -> bool:
    """Whether this is a name known here, or a folder of the layout."""
    folder = Path(name)
    return name in REPOSITORIES or ((folder / CONFIG).is_file() and any(folder.glob(f"*{SUFFIX}")))


def load_lens_model(
    name: str, *, allow_pickle: bool = False, device: str = "cpu", tokenizer: Any = None, watch: Watch = silent
) -> Transformer:
    """The model of this name or folder, in float32. `tokenizer`: None for the one that its config names, of the Hub.

    Raises PickleRefused unless allowed, UnknownModel, UnreadableWeights, and UnknownDictionary without a network.
    """
    folder = _from_hub(REPOSITORIES[name], watch) if name in REPOSITORIES else Path(name)
    file = min(folder.glob(f"*{SUFFIX}"))
    about = read_json(folder / CONFIG)
    stored = read_state_dict(file, allow_pickle=allow_pickle).tensors
    arch = _architecture(folder, about, stored)
    shapes = arch.weight_shapes()
    if missing := [each for each in shapes if each not in stored]:
        raise UnreadableWeights(f"Asked for the model in {file}. It lacks {', '.join(missing[:5])}. Restore the file.")
    weights = {each: stored[each].float().to(device) for each in shapes}
    return Transformer(arch, weights, as_tokenizer(about.get("tokenizer_name") if tokenizer is None else tokenizer))


def _from_hub(repository: str, watch: Watch) -> Path:
    from micrographia.core.pretrained.hub import fetched, listing  # a folder does without it

    names = [each for each in listing(repository, watch=watch) if each.endswith(SUFFIX) and "/" not in each]
    if not names:
        raise UnknownModel(f"Asked for the model {repository} on the Hub. Found no {SUFFIX} there. Give a folder.")
    last = next((each for each in names if each.endswith(f"final{SUFFIX}")), names[-1])
    return fetched(repository, [CONFIG, last], watch=watch)


def _architecture(folder: Path, about: Mapping[str, Any], stored: Mapping[str, Tensor]) -> Architecture:
    """As its config says; whether there are biases is seen from the weights."""
    names = ("n_ctx", "n_layers", "d_model", "n_heads", "d_head", "d_mlp")
    try:
        return Architecture(
            **{name: about[name] for name in names},
            d_vocab=about["d_vocab"],
            d_vocab_out=about.get("d_vocab_out") or about["d_vocab"],
            act=ACTIVATIONS[about["act_fn"]],  # type: ignore[arg-type]  # from a table of what there is
            norm=NORMS[about.get("normalization_type", about.get("normalization"))],  # type: ignore[arg-type]  # as above
            attn_bias="blocks.0.attn.b_Q" in stored,
            unembed_bias="unembed.b_U" in stored,
        )
    except KeyError as error:
        raise UnknownModel(
            f"Asked for the model in {folder}. Its {CONFIG} has nothing that is known as {error}. Known are the norms "
            f"{', '.join(map(str, NORMS))} and the activations {', '.join(ACTIVATIONS)}."
        ) from error
