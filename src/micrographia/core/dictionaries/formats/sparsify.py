"""EleutherAI's sparsify: `cfg.json` and `sae.safetensors`, a folder for each hookpoint.

Measured with eai-sparsify 1.3.3. Both weights are (latent, d_in). b_dec is subtracted unless `transcode`; ReLU comes
before top-k; the skip reads x itself. A width of 0 in the config means d_in * expansion_factor.
"""

import re
from types import MappingProxyType

import torch

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import agree, built, one_of, renamed, whole_number
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.places import hookpoint_sites
from micrographia.core.dictionaries.formats.writing import Carries, ToolFiles, fitted, single, untold
from micrographia.core.dictionaries.several import AnyDictionary
from micrographia.core.store.foreign import foreign_json
from micrographia.core.store.formats import tensors_bytes

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
ACTIVATIONS = ("topk", "groupmax")
TENSORS = {"W_enc": "encoder.weight.T", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}
MISREAD = (
    "SAELens' own loader of sparsify folders (6.54.12) reads another dictionary: W_dec transposed, which fails but for "
    "as many latents as inputs, bfloat16, b_dec not subtracted where the decoder was normalised, the skip left out."
)


def holds(found: Holding) -> bool:
    return found.has(CONFIG, WEIGHTS)


def read(found: Holding) -> Dictionary:
    config = found.config(CONFIG)
    transcodes, skips = bool(config.get("transcode")), bool(config.get("skip_connection"))
    tensors = renamed(found, found.tensors(WEIGHTS), TENSORS | ({"W_skip": "W_skip.T"} if skips else {}))
    form = Form(
        activation=one_of(found, "activation", config.get("activation", "topk"), ACTIVATIONS),
        k=whole_number(found, "k", config.get("k")),
        subtract_b_dec=not transcodes,
    )
    one = built(found, tensors, form, _about(found, config, transcodes, skips))
    width = config.get("num_latents") or one.d_in * int(config.get("expansion_factor") or 0) or None
    agree(found, {"d_in": config.get("d_in"), "num_latents": width}, {"d_in": one.d_in, "num_latents": one.n_latents})
    return one


def _about(found: Holding, config: dict[str, object], transcodes: bool, skips: bool) -> About:
    above = found.folder.resolve().parent / "config.json"
    run = Holding(above.parent).config(above.name)
    site, target = hookpoint_sites(found.folder.name, transcodes)
    notes = [MISREAD]
    if skips:
        notes.append("sparsify's decode leaves the skip out; its forward adds it.")
    if config.get("signed"):
        notes.append("The config says signed, which sparsify 1.3.3 ignores, as this reader does.")
    model = run.get("model") if isinstance(run.get("model"), str) else ""
    training = {"architecture": config.get("activation", "topk"), **config, "run": run} if run else dict(config)
    return About(
        model=str(model or ""), site=site, target=target, layout="sparsify", source=str(found.path),
        notes=tuple(notes), training=MappingProxyType(training),
    )  # fmt: skip


CARRIES = Carries("sparsify", {"topk": "topk", "groupmax": "groupmax"}, skip=True)


def write(value: AnyDictionary) -> ToolFiles:
    of = single(value, "sparsify")
    transcodes = not of.form.subtract_b_dec and of.about.target is not None
    one = fitted(of, CARRIES._replace(subtracts=not transcodes))
    w = one.weights
    assert w.b_enc is not None
    tensors = {"encoder.weight": w.W_enc.T, "encoder.bias": w.b_enc, "W_dec": w.W_dec, "b_dec": w.b_dec}
    if w.W_skip is not None:
        tensors["W_skip"] = w.W_skip.T
    norms = w.W_dec.float().norm(dim=-1)
    config = {
        "activation": one.form.activation,
        "expansion_factor": max(1, one.n_latents // one.d_in),
        "normalize_decoder": bool(torch.allclose(norms, torch.ones_like(norms), atol=1e-3)),
        "num_latents": one.n_latents, "k": one.form.k, "multi_topk": False,
        "skip_connection": w.W_skip is not None, "transcode": transcodes, "d_in": one.d_in,
    }  # fmt: skip
    return ToolFiles({CONFIG: foreign_json(config), WEIGHTS: tensors_bytes(tensors)}, untold(one))


def layer_folder(layer: int) -> str:
    """The folder of a layer's residual stream, as sparsify names it."""
    return f"layers.{layer}"


def layer_of(folder: str) -> int | None:
    found = re.search(r"(?:layers|h)[._](\d+)", folder)
    return int(found[1]) if found else None
