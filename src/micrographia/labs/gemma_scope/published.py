"""What a config names instead of training it: a model, and a suite of it."""

from dataclasses import replace

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.dictionaries.suite import Suite
from micrographia.core.errors import UnknownDictionary, UserError
from micrographia.core.events import Watch
from micrographia.core.load import load_any
from micrographia.core.model import Model
from micrographia.core.questions import names
from micrographia.core.sites import Site
from micrographia.labs.gemma_scope.config import Config
from micrographia.labs.gemma_scope.members import WantedDictionary, places_of, sites_of


def model_of(config: Config, watch: Watch) -> Model:
    """The model that the config names. Raises UnknownModel, and UnknownSite where it lacks what is studied."""
    model = load_any(config.model, device=config.machine.device, watch=watch)
    places_of(config, model)
    return model


def second_of(config: Config, model: Model, watch: Watch) -> Model | None:
    """The model that the suite is transferred to, if any. Raises UserError for one of other tokens."""
    if not config.transfer:
        return None
    second = model_of(replace(config, model=config.transfer), watch)
    if second.shape.d_vocab != model.shape.d_vocab:
        raise UserError(
            f"Asked to transfer the suite to {config.transfer}, which has {second.shape.d_vocab:,} tokens. The suite's "
            f"model has {model.shape.d_vocab:,}. Give a model that was made from it."
        )
    return second


def suite_of(config: Config, model: Model, watch: Watch) -> dict[WantedDictionary, Dictionary]:
    """The dictionaries of the published suite at the sites, layers, widths and L0s of the config; L0s are the nearest.

    A layer or width that the suite lacks is refused, with what there is. Raises UnknownDictionary, Corrupt, and what
    reading raises.
    """
    suite, found = Suite.load(config.published, watch=watch), dict[WantedDictionary, Dictionary]()
    for site in sites_of(config, model):
        for width in names(config.suite.widths):
            for l0 in names(config.suite.l0s):
                part = suite.only(site=site.kind, layer=site.layer, width=width, l0=float(l0))
                for row in part.rows():
                    one = suite[row.path].to(device=config.machine.device)
                    target = None if one.about.target in (None, site) else one.about.target
                    wanted = WantedDictionary(site, one.n_latents, row.l0 or float(l0), target)
                    found[wanted] = _at(one, site, model, config)
    return found


def _at(one: Dictionary, site: Site, model: Model, config: Config) -> Dictionary:
    """Refused where the dictionary is of another place, or of another width than the model's activations."""
    if one.about.site not in (None, site) or (site.kind != "z" and one.d_in != model.shape.d_model):
        raise UnknownDictionary(
            f"Asked for the dictionaries of {config.published} at {site} of {config.model}. Found {one!r}, which does "
            "not fit this model. Give the model that the suite was trained on."
        )
    return one
