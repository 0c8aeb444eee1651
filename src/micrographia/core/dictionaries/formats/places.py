"""Sites by the names that other tools give to them, and back: TransformerLens hooks, modules of Hugging Face models.

None where a name means no Site of ours, or not surely one: it then stays in the notes and `about.training`.
"""

import re

from micrographia.core.errors import UnknownSite
from micrographia.core.sites import LENS_LAYERLESS, LENS_NAMES, Site

OURS = {kind: hook for hook, kind in LENS_NAMES.items()}
OURS_LAYERLESS = {kind: hook for hook, kind in LENS_LAYERLESS.items()}
MODULES = (  # the end of a Hugging Face module's name with its side -> our kind
    (r"layers\.(\d+)\.output", "resid_post"),
    (r"layers\.(\d+)\.input", "resid_pre"),
    (r"layers\.(\d+)\.self_attn\.o_proj\.input", "z"),
    (r"layers\.(\d+)\.pre_feedforward_layernorm\.output", "mlp_norm"),
    (r"layers\.(\d+)\.post_feedforward_layernorm\.output", "mlp_out"),
    (r"layers\.(\d+)\.post_attention_layernorm\.output", "attn_out"),  # of Gemma, where it is behind attention
)
HOOKPOINTS = (  # sparsify names a module, of which it reads the output
    (r"(?:layers|h)[._](\d+)", "resid_post"),
    (r"(?:layers|h)[._](\d+)\.(?:mlp)", "mlp_out"),
    (r"(?:layers|h)[._](\d+)\.(?:self_attn|attention|attn)", "attn_out"),
)


def lens_site(hook: object) -> Site | None:
    """The Site of a TransformerLens hook name, such as "blocks.3.hook_resid_post"."""
    try:
        return Site.parse(hook) if isinstance(hook, str) and hook else None
    except UnknownSite:
        return None


def lens_name(site: Site | None) -> str:
    """TransformerLens' hook for a Site; "" for none, or where it has none."""
    if site is None or site.part:
        return ""
    if site.layer is None:
        return OURS_LAYERLESS.get(site.kind, "")
    return f"blocks.{site.layer}.{OURS[site.kind]}" if site.kind in OURS else ""


def module_site(name: object) -> Site | None:
    """The Site of a module of a Gemma, with its side: "model.layers.3.self_attn.o_proj.input"."""
    return _first(MODULES, str(name or ""))


def hookpoint_sites(hookpoint: str, transcodes: bool) -> tuple[Site | None, Site | None]:
    """Where a sparsify folder of this name reads and, for a transcoder, writes."""
    if hookpoint == "embed_tokens":
        return Site("embed"), None
    site = _first(HOOKPOINTS, hookpoint)
    if not transcodes or site is None or site.kind != "mlp_out":
        return site if not transcodes else None, None
    return Site("mlp_norm", site.layer), site


def _first(table: tuple[tuple[str, str], ...], name: str) -> Site | None:
    for pattern, kind in table:
        if found := re.search(rf"(?:^|\.){pattern}$", name):
            return Site(kind, int(found[1]))
    return None
