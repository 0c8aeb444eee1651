"""What the name of a folder or file says of the dictionary in it: layer, width, published L0, and the kind of its Site.

layer_12/width_16k/average_l0_82      Gemma Scope 1
resid_post/layer_13_width_262k_l0_big Gemma Scope 2
blocks.8.hook_resid_pre, layers.3.mlp, resid_post_layer_3/trainer_5, Llama3_1-8B-Base-L15R-8x, layer7.sae.pt
"""

import re
from math import log2
from typing import NamedTuple

from micrographia.core.dictionaries.formats.places import lens_site

LAYER = (
    r"layer[s_.]*(\d+)",
    r"blocks\.(\d+)\.",
    r"(?:^|[/._])h[._](\d+)",
    r"(?:^|[/\-_])[Ll](\d+)(?:[A-Z]|\b)",
    r"(?:^|/)W_enc_(\d+)\.",
)
WIDTH = (r"width[_-](\d+)([kmKM]?)(?![\d^]|pow)", r"width-2(?:pow|\^)(\d+)", r"(?:^|[-_/])W(\d+)([KM])\b")
L0 = (
    r"average_l0_(\d+(?:\.\d+)?)",
    r"(?:^|[_/\-])[lL]0[_-](\d+(?:\.\d+)?|small|medium|big)\b(?!\w)",
    r"_l0_(small|medium|big)",
)
NOMINAL = {"small": 15.0, "medium": 45.0, "big": 120.0}
"""The middle of what Gemma Scope 2's words mean (10-20, 30-60, 90-150: its technical paper)."""
KINDS = (
    (r"(?:^|/)embedding/", "embed"),
    (r"gemma-scope-\d+b-(?:pt|it)-res\b", "resid_post"),
    (r"gemma-scope-\d+b-(?:pt|it)-mlp\b", "mlp_out"),
    (r"gemma-scope-\d+b-(?:pt|it)-att\b", "z"),
    (r"gemma-scope-\d+b-(?:pt|it)-transcoders\b", "mlp_norm"),
    (r"(?:^|/)attn_out(?:_all)?/layer_", "z"),
    (r"(?:^|/)transcoder(?:_all)?/layer_", "mlp_norm"),
    (r"(?:^|/)L\d+\.([a-z]\w*)(?=[-/]|$)", ""),
    (r"(?:^|/)(crosscoder|clt)/", ""),
    (r"(?:^|/)([a-z]\w*?)(?:_all)?/layer_\d+_width", ""),
)
"""Of paths: Gemma Scope 1 by the repository's name, 2 by the folder, Runs by Site. Empty: as the folder is called."""
ACROSS = ("crosscoder", "clt")
"""Kinds that are of no one layer."""
NEAR = 0.05
UNITS = {"": 1, "k": 1000, "m": 1000**2}


class Facets(NamedTuple):
    """None where the name does not say it. The last folder that says something counts."""

    layer: int | None = None
    width: int | None = None
    l0: float | None = None


def facets(path: str) -> Facets:
    """What this path says, read from its end."""
    return Facets(_number(LAYER, path), _width(path), _l0(path))


def kind_of(path: str) -> str:
    """The kind of the Site that this dictionary reads, as far as the path tells it; "" where it does not."""
    for pattern, kind in KINDS:
        if found := re.search(pattern, path):
            return kind or found[1]
    sites = [site for part in reversed(path.split("/")) if (site := lens_site(part)) is not None]
    return sites[0].kind if sites else ""


def width_of(text: str | int) -> int:
    """A width as users write it: 16384, "16384", "16k", "1m". Raises ValueError."""
    found = re.fullmatch(r"(\d+)([kmKM]?)", str(text))
    if found is None:
        raise ValueError(text)
    return _meant(int(found[1]), found[2])


def _meant(number: int, unit: str) -> int:
    """Widths are named after the powers of two that they are: "65k" is 65,536, as "16k" is 16,384. Else k is 1,024."""
    if not unit:
        return number
    power = 2 ** round(log2(number * UNITS[unit.lower()]))
    near = abs(power / (number * UNITS[unit.lower()]) - 1) < NEAR
    return power if near else number * (1024 if unit.lower() == "k" else 1024**2)


def _last(patterns: tuple[str, ...], path: str) -> re.Match[str] | None:
    """The last match of any of these in the innermost folder that has one."""
    for part in reversed(path.split("/")):
        for pattern in patterns:
            if matches := list(re.finditer(pattern, part)):
                return matches[-1]
    return None


def _number(patterns: tuple[str, ...], path: str) -> int | None:
    found = _last(patterns, path)
    return int(found[1]) if found else None


def _width(path: str) -> int | None:
    found = _last(WIDTH, path)
    if found is None:
        return None
    return _meant(int(found[1]), found[2]) if len(found.groups()) == 2 else 2 ** int(found[1])


def _l0(path: str) -> float | None:
    found = _last(L0, path)
    return None if found is None else NOMINAL[found[1]] if found[1] in NOMINAL else float(found[1])
