"""Site: the address of one activation (`L3.mlp_out`), and the table of all kinds of activations.

`AXES` gives the axes of each kind's value; `LAYERLESS` are the kinds outside layers. A Site prints as `L3.mlp_out` or
`logits`; a spliced dictionary's latents as `L3.resid_post[sae].latents`. TransformerLens' hook names parse too.
`select` turns patterns (`L*.resid_pre`, `L-1.z`, `L2:5.*`) into Sites of a model.
Axes are always named the same: batch pos head query key d_model d_head neuron expert latent vocab. In dense algebra a
file
uses suffix letters with a legend at its top; annotations with these names are executed in the tests.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from micrographia.core.errors import UnknownSite

RESIDUAL = ("batch", "pos", "d_model")
HEADS = ("batch", "pos", "head", "d_head")
PAIRS = ("batch", "head", "query", "key")
NEURONS = ("batch", "pos", "neuron")
SCALE = ("batch", "pos", "one")
EXPERTS = ("batch", "pos", "expert")

AXES: dict[str, tuple[str, ...]] = {
    "embed": RESIDUAL,
    "pos_embed": RESIDUAL,
    "resid_pre": RESIDUAL,
    "attn_norm_scale": SCALE,  # the divisor of the norm
    "attn_norm": RESIDUAL,  # the normalised residual that attention reads, gain and bias applied
    "q": HEADS,  # q and k before rotary, rot_q and rot_k after
    "k": HEADS,
    "v": HEADS,
    "rot_q": HEADS,
    "rot_k": HEADS,
    "scores": PAIRS,  # after scaling and masking, before the softmax
    "pattern": PAIRS,
    "z": HEADS,
    "result": ("batch", "pos", "head", "d_model"),
    "attn_raw": RESIDUAL,  # before the norm that some families have after a sublayer (Gemma 2 and 3, OLMo 2)
    "attn_out": RESIDUAL,  # what is added to the residual stream
    "resid_mid": RESIDUAL,
    "mlp_norm_scale": SCALE,
    "mlp_norm": RESIDUAL,
    "mlp_pre": NEURONS,  # the input of the activation function: in a gated MLP the gate branch
    "mlp_up": NEURONS,  # the linear branch of a gated MLP
    "neurons": NEURONS,
    "router_logits": EXPERTS,  # of a layer with experts: the router's scores
    "router_probs": EXPERTS,  # what each expert's output is multiplied with; 0 for one that is not chosen
    "expert_out": ("batch", "pos", "expert", "d_model"),  # what each expert adds to mlp_out
    "mlp_raw": RESIDUAL,  # as attn_raw
    "mlp_out": RESIDUAL,
    "resid_post": RESIDUAL,
    "final_norm_scale": SCALE,
    "final_norm": RESIDUAL,
    "logits": ("batch", "pos", "vocab"),
}
LAYERLESS = frozenset({"embed", "pos_embed", "final_norm_scale", "final_norm", "logits"})
PARTS = ("latents", "error")
LATENTS = ("batch", "pos", "latent")  # a dictionary reads concatenated heads; its error has the axes of its Site

EXAMPLES = ("embed", "resid_pre", "z", "pattern", "mlp_out")  # named where nothing is near

LENS_NAMES: dict[str, str] = {  # TransformerLens' name within a block -> our kind
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_v": "v",
    "attn.hook_rot_q": "rot_q",
    "attn.hook_rot_k": "rot_k",
    "attn.hook_attn_scores": "scores",
    "attn.hook_pattern": "pattern",
    "attn.hook_z": "z",
    "attn.hook_result": "result",
    "mlp.hook_pre": "mlp_pre",
    "mlp.hook_pre_linear": "mlp_up",
    "mlp.hook_post": "neurons",
    "ln1.hook_scale": "attn_norm_scale",
    "ln1.hook_normalized": "attn_norm",
    "ln2.hook_scale": "mlp_norm_scale",
    "ln2.hook_normalized": "mlp_norm",
}
LENS_LAYERLESS: dict[str, str] = {
    "hook_embed": "embed",
    "hook_pos_embed": "pos_embed",
    "ln_final.hook_scale": "final_norm_scale",
    "ln_final.hook_normalized": "final_norm",
}

_OWN = re.compile(r"(?:L(?P<layer>\d+)\.)?(?P<kind>[a-z_]+)(?:\[(?P<name>\w+)\]\.(?P<part>\w+))?")
_PATTERN = re.compile(r"(?:L(?P<layers>\*|-?\d+|(?:-?\d+)?:(?:-?\d+)?)\.)?(?P<kind>[a-z_*?\[\]!.\w]+)")


@dataclass(frozen=True, order=True, slots=True)
class Site:
    """The address of one activation: `AXES[kind]` names the axes of its value.

    `dictionary` and `part` address the latents or the error term of a dictionary spliced in at this place.

    >>> Site.parse("L3.mlp_out")
    Site(kind='mlp_out', layer=3, dictionary='', part='')
    >>> str(Site.parse("blocks.0.attn.hook_z"))
    'L0.z'
    """

    kind: str
    layer: int | None = None
    dictionary: str = ""
    part: str = ""

    def __post_init__(self) -> None:
        if self.kind not in AXES:
            raise UnknownSite(f"{self.kind!r} is not a kind of site. Nearest kinds: {_nearest(self.kind)}.")
        if (self.layer is None) != (self.kind in LAYERLESS):
            raise UnknownSite(
                f"{self.kind!r} {'needs a' if self.layer is None else 'has no'} layer. Found {self.layer}."
            )
        if self.layer is not None and self.layer < 0:
            raise UnknownSite(f"Layers count from 0. Found {self.layer}; `L-1.{self.kind}` is a pattern: see `select`.")
        if (self.part or self.dictionary) and not (self.part in PARTS and re.fullmatch(r"\w+", self.dictionary)):
            raise UnknownSite(
                f"A dictionary has a name of letters, digits and _, and the parts {', '.join(PARTS)}. "
                f"Found {self.dictionary!r} and {self.part!r}."
            )

    def __str__(self) -> str:
        place = self.kind if self.layer is None else f"L{self.layer}.{self.kind}"
        return f"{place}[{self.dictionary}].{self.part}" if self.part else place

    @property
    def axes(self) -> tuple[str, ...]:
        return LATENTS if self.part == "latents" else AXES[self.kind]

    def within(self, dictionary: str, part: str) -> "Site":
        """The Site of a part of a dictionary spliced in here."""
        return Site(self.kind, self.layer, dictionary, part)

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read `L<layer>.<kind>`, `<kind>`, `...[name].latents`, or a TransformerLens hook name."""
        if (site := _parse_lens(text)) is not None:
            return site
        match = _OWN.fullmatch(text)
        if match is None and _is_pattern(text):
            raise UnknownSite(
                f"{text!r} is a pattern, but one site was asked for. `select(model.sites, {text!r})` gives the sites "
                "that it matches: use them one at a time."
            )
        if match is None or match["kind"] not in AXES:
            raise UnknownSite(
                f"Cannot read {text!r} as a site: write L<layer>.<kind> or <kind>. Nearest kinds: {_nearest(text)}."
            )
        layer = int(match["layer"]) if match["layer"] is not None else None
        return cls(match["kind"], layer, match["name"] or "", match["part"] or "")


SiteLike = Site | str


def as_site(site: SiteLike) -> Site:
    return site if isinstance(site, Site) else Site.parse(site)


def select(sites: Sequence[Site], wanted: SiteLike | Iterable[SiteLike]) -> tuple[Site, ...]:
    """The members of `sites` that `wanted` names: Sites, their texts, or patterns over layers and kinds.

    `L*.z` is every layer, `L-1.z` the last, `L2:5.z` layers 2 to 4, `L-2:.z` the last two, `L0.*` every kind of a
    layer. The order is that of `wanted`, then of `sites`; each comes once. Raises UnknownSite when a name matches
    nothing.

    >>> here = [Site("z", 0), Site("z", 1), Site("logits")]
    >>> [str(site) for site in select(here, "L*.z")]
    ['L0.z', 'L1.z']
    """
    if not isinstance(wanted, Iterable | Site):
        raise UnknownSite(_no_name(wanted))
    names = [wanted] if isinstance(wanted, Site | str) else list(wanted)
    found: dict[Site, None] = {}
    for name in names:
        found.update(dict.fromkeys(_matching(sites, name)))
    return tuple(found)


def one_site(sites: Sequence[Site], wanted: SiteLike) -> Site:
    """The one member of `sites` that `wanted` names. Raises UnknownSite for several."""
    site, *others = select(sites, wanted)
    if others:
        raise UnknownSite(f"Asked for one site; {str(wanted)!r} is several places. Name one, such as {site}.")
    return site


def _matching(sites: Sequence[Site], name: SiteLike) -> list[Site]:
    if not isinstance(name, Site | str):
        raise UnknownSite(_no_name(name))
    if isinstance(name, str) and not _is_pattern(name):
        name = Site.parse(name)
    if isinstance(name, Site):
        if name not in sites and not name.part:
            raise UnknownSite(f"This model has no site {str(name)!r}. Nearest: {_nearest(str(name), sites)}.")
        return [name]
    match = _PATTERN.fullmatch(name)
    layers = _layers(match["layers"], sites) if match else []
    hits = [s for s in sites if match and s.layer in layers and fnmatchcase(s.kind, match["kind"])]
    if not hits:
        kinds = ", ".join(dict.fromkeys(site.kind for site in sites))
        raise UnknownSite(f"The pattern {name!r} matches no site of this model. Its kinds are {kinds}.")
    return hits


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in ("*", "?", "L-")) or re.match(r"L(-?\d+)?:(-?\d+)?\.", text) is not None


def _layers(text: str | None, sites: Sequence[Site]) -> list[int | None]:
    if text is None:
        return [None]
    layers = sorted({site.layer for site in sites if site.layer is not None})
    if text == "*":
        return [*layers]
    if ":" in text:
        start, stop = (int(end) if end else None for end in text.split(":"))
        return [*layers[start:stop]]
    return [layers[int(text)]] if -len(layers) <= int(text) < len(layers) else []


def _parse_lens(text: str) -> Site | None:
    if text in LENS_LAYERLESS:
        return Site(LENS_LAYERLESS[text])
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", text)
    if match and match[2] in LENS_NAMES:
        return Site(LENS_NAMES[match[2]], int(match[1]))
    return None


def _no_name(given: object) -> str:
    kind = type(given).__name__
    return f"Asked for the site {given!r}, a value of type {kind}. Sites are texts such as 'L3.mlp_out', or Sites."


def _nearest(text: str, sites: Sequence[Site] = ()) -> str:
    known = [str(site) for site in sites] or list(AXES)
    texts = (text, text.lower(), text.lower().rpartition(".")[2])
    near = next(filter(None, (get_close_matches(each, known) for each in texts)), None)
    return ", ".join(near or EXAMPLES) + ("" if near else "; all are in `model.sites`")
