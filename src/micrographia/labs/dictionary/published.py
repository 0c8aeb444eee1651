"""What a config names instead of training it: a model of one layer, and published autoencoders of its neurons."""

from pathlib import Path

import torch

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import UnknownDictionary, UnknownModel
from micrographia.core.events import Watch
from micrographia.core.model import Model
from micrographia.core.pretrained import load
from micrographia.core.pretrained.hub import fetched
from micrographia.core.small.lens_layout import is_lens_model, load_lens_model
from micrographia.labs.dictionary.config import Config
from micrographia.labs.dictionary.recipes import SITE, at_neurons

RUNS = ("25", "47")
"""The names under which Nanda's two runs are stored."""


def model_of(config: Config, watch: Watch) -> Model:
    """The model that the config names: of TransformerLens' layout, else what `load` takes, such as a Run of ours.

    Raises UnknownModel for one of several layers, and what reading it raises.
    """
    name, device = config.model, config.machine.device
    if is_lens_model(name):
        model = load_lens_model(name, allow_pickle=config.allow_pickle, device=device, watch=watch)
    else:
        model = load(name, device=device, watch=watch)
    if model.shape.n_layers != 1 or SITE not in model.sites:
        raise UnknownModel(
            f"Asked for the dictionaries of {name}, which has {model.shape.n_layers} layers. The lab is about models "
            "of one layer with an MLP; `micrographia sae train` takes any."
        )
    return model


def autoencoders(config: Config, watch: Watch) -> dict[str, Dictionary]:
    """The published autoencoders by run: of a folder, else of a repository of the Hub.

    Of a folder that holds the two published runs, those; else all. Raises UnknownDictionary, PickleRefused.
    """
    folder = Path(config.published)
    if not folder.is_dir():
        folder = fetched(config.published, [f"{run}{end}" for run in RUNS for end in (".pt", "_cfg.json")], watch=watch)
    files = {path.stem: path for path in sorted(folder.glob("*.pt"))}
    chosen = [run for run in RUNS if run in files] or list(files)
    if not chosen:
        raise UnknownDictionary(
            f"Asked for the autoencoders in {folder}. Found no <run>.pt there. Give another folder."
        )
    found = {f"run {run}": Dictionary.load(files[run], allow_pickle=config.allow_pickle) for run in chosen}
    return {
        name: at_neurons(each).to(dtype=torch.float32, device=config.machine.device) for name, each in found.items()
    }
