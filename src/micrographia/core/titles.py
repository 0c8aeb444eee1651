"""What kinds of Site, methods and directions are called, wherever they are named for people. Imports no torch."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Mode = Literal["denoise", "noise"]
"""The direction of a patch: clean values into the corrupt run, or corrupt values into the clean run."""


class Direction(NamedTuple):
    """How a Mode is written. `sign`: which way a change of the metric counts, in shares of the gap."""

    verb: str
    sign: float
    panel: str
    meaning: str
    replaced: str
    """The same where something else than the other run's value is written, as a template."""


MODES: Mapping[Mode, Direction] = {
    "denoise": Direction(
        verb="restored",
        sign=1.0,
        panel="denoise: clean into corrupt",
        meaning="Denoising: 1 means that the clean value at this place alone restores the clean answer.",
        replaced="Written into the corrupt run: {written}. 1: this at one place alone gives the clean metric.",
    ),
    "noise": Direction(
        verb="destroyed",
        sign=-1.0,
        panel="noise: corrupt into clean",
        meaning="Noising: 1 means that the corrupt value at this place alone destroys the clean answer.",
        replaced="Written into the clean run: {written}. 1: this at one place alone gives the corrupt metric.",
    ),
}
WRITTEN: Mapping[str, str] = {"zero": "zeros", "mean": "a mean", "resample": "a resample", "noise": "noise"}
"""What a replacement writes instead of the other run's value."""

KINDS: Mapping[str, str] = {
    "resid_pre": "the residual stream before each layer",
    "resid_mid": "the residual stream between attention and MLP",
    "resid_post": "the residual stream after each layer",
    "z": "head outputs",
    "result": "head outputs",
    "attn_out": "attention outputs",
    "mlp_out": "MLP outputs",
    "neurons": "neurons",
    "pattern": "attention patterns",
    "q": "queries",
    "k": "keys",
    "v": "values",
}

METHODS: Mapping[str, str] = {
    "exact": "exact patching",
    "atp": "attribution patching",
    "atp-qk": "attribution patching with the QK-fix",
    "atp-star": "AtP*: QK-fix and GradDrop",
    "ig": "integrated gradients, input path",
    "ig-activation": "integrated gradients, a path per Site",
    "relp": "relevance patching",
    "edges": "edge attribution patching",
    "edges-ig": "edge attribution patching with integrated gradients",
    "eap": "EAP",
    "eap-ig": "EAP-IG",
    "atp-size": "attribution patching, by size",
    "change": "activation norm",
    "random": "random order",
}


def kind_title(kind: str) -> str:
    """A kind of Site in words, itself where there are none."""
    return KINDS.get(kind, kind)


def panel(mode: Mode, replace: str = "other") -> str:
    """What was written into which run, as a heading."""
    if replace == "other":
        return MODES[mode].panel
    return f"{WRITTEN[replace]} into {'corrupt' if mode == 'denoise' else 'clean'}"


SIGNS = {"\n": "↵", "\t": "⇥", "\r": "␍", "\xa0": "⍽"}
BREAKS, BLANKS = str.maketrans(SIGNS), str.maketrans({" ": "␣", **SIGNS})


def shown_token(text: str) -> str:
    """A token in readable form: without a space around it, line breaks and tabs by their signs, blanks as ␣.

    Several spaces stay, since indents differ by nothing else.
    """
    plain = not text.startswith("  ") and not text.endswith("  ")
    return (text.strip(" ").translate(BREAKS) if plain else "") or text.translate(BLANKS) or "(padding)"
