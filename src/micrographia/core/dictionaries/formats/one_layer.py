"""Nanda's autoencoders of a one-layer model (2023): `<run>.pt`, a pickle of four tensors, beside `<run>_cfg.json`.

Read from the code published with them (1L-Sparse-Autoencoder, utils.py): f = ReLU((x - b_dec) W_enc + b_enc), output
f W_dec + b_dec. Decoder rows are not of norm 1: the code took the gradient along them away and did not renormalise.
"""

from types import MappingProxyType

from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import built, renamed
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.places import lens_site
from micrographia.core.state_dicts.pickles import SUFFIXES

TENSORS = {name: name for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
CONFIG = "_cfg.json"


def holds(found: Holding) -> bool:
    """One pickle with its own config beside it."""
    files = found.ending(*SUFFIXES)
    return len(files) == 1 and found.has(files[0].rpartition(".")[0] + CONFIG)


def read(found: Holding) -> Dictionary:
    (file,) = found.ending(*SUFFIXES)
    config = found.config(file.rpartition(".")[0] + CONFIG)
    tensors = {name: value for name, value in found.pickled(file).items() if isinstance(value, Tensor)}
    about = About(
        model=str(config.get("model_name", "")),
        site=lens_site(config.get("act_name", "")),
        layout="one_layer",
        source=str(found.path),
        training=MappingProxyType(config),
    )
    return built(found, renamed(found, tensors, TENSORS), Form(), about)
