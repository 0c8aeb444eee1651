"""micrographia: a microscope for neural networks.

    import micrographia as mg

    run = mg.run("grokking", preset="quick")       # any lab or question: a Config in, a Run out
    model = mg.load("gpt2")                        # a name, a folder, a module, or one of your own Runs
    pairs = mg.Pairs(model, clean=..., corrupt=..., answer=" Mary", wrong=" John")
    mg.patch(model, pairs, "L*.z", by=("head", "pos"))

Names are looked up when they are used, so that importing the package costs nothing: no torch, no numpy. Inside the
package nobody imports from here.
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "micrographia.api": (
        "ablate", "analyse", "attribute", "check", "check_answers", "circuit", "generate", "grok", "head_scores",
        "lens", "load", "models", "open_run", "patch", "path_patch", "patterns", "probe", "read_pairs", "run", "runs",
        "steer", "trace",
    ),
    "micrographia.core.claims": ("Claim", "Run"),
    "micrographia.core.dictionaries.dictionary": ("Dictionary",),
    "micrographia.core.dictionaries.suite": ("Suite",),
    "micrographia.core.edits": (
        "Edit", "add", "apply", "freeze", "mean", "noise", "project_out", "put", "scale", "splice", "zero",
    ),
    "micrographia.core.effects": ("Effects",),
    "micrographia.core.errors": ("MicrographiaError", "UserError"),
    "micrographia.core.figures": ("Figure",),
    "micrographia.core.model": ("Model",),
    "micrographia.core.sites": ("Site",),
    "micrographia.faces.notebook": ("show",),
    "micrographia.labs.sae.direct": ("build_bundle", "evaluate_dictionary", "train_dictionary"),
    "micrographia.methods.dictionaries.features.bundle": ("Bundle",),
}  # fmt: skip

_RENAMED = {"Pairs": ("micrographia.api", "pairs")}

_FLOORS = ("core", "methods", "labs", "faces")
_SHOWN = frozenset(_PLACES["micrographia.api"]) | {"Effects", "Figure", "Run", "Suite"}
"""What leads to Runs, Figures and results, which a notebook displays and which write their report."""

_WHERE = {name: (module, name) for module, names in _PLACES.items() for name in names} | _RENAMED

__all__ = sorted([*_WHERE, *_FLOORS])


def __getattr__(name: str) -> Any:
    if name in _FLOORS:
        return import_module(f"micrographia.{name}")
    if name == "__version__":
        return import_module("importlib.metadata").version("micrographia")
    if name not in _WHERE:
        raise AttributeError(f"micrographia has no name {name!r}; it has {', '.join(__all__)}.")
    module, inner = _WHERE[name]
    found = getattr(import_module(module), inner)
    if name in _SHOWN:  # core and methods themselves know no face
        import_module("micrographia.faces.notebook").attach()
    return found


def __dir__() -> list[str]:
    return __all__
