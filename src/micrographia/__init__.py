"""micrographia: a microscope for neural networks.

    import micrographia as mg

    run = mg.grok(mg.GrokkingConfig(epochs=200))   # a Config in, a Run out
    run.results["key_frequencies"]

Names are looked up when they are used, so that importing the package costs nothing: no torch, no numpy. Inside the
package nobody imports from here.
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "micrographia.core.small.architecture": ("Architecture",),
    "micrographia.core.claims": ("Claim", "Judged", "Run"),
    "micrographia.core.figures": ("Figure",),
    "micrographia.core.edits": (
        "Edit", "add", "apply", "freeze", "mean", "noise", "project_out", "put", "scale", "splice", "zero",
    ),
    "micrographia.core.errors": ("MicrographiaError", "UserError"),
    "micrographia.core.model": ("Cache", "Model", "Output"),
    "micrographia.core.prompts": ("PairText", "Pairs", "from_texts", "metrics_of"),
    "micrographia.core.pretrained": ("Pretrained", "load"),
    "micrographia.core.sites": ("Site", "select"),
    "micrographia.core.store": ("find_run", "list_runs", "load_run", "read_metrics", "verify"),
    "micrographia.core.sweep": ("grids", "places"),
    "micrographia.core.small.transformer": ("Transformer",),
    "micrographia.faces.notebook": ("show",),
    "micrographia.labs.workbench.config": (
        "Attribute", "Circuit", "Lens", "Patch", "Prompts", "Target", "Trace",
    ),
    "micrographia.methods.attribution.attribute": ("attribute",),
    "micrographia.methods.patching": ("patch", "patch_both"),
    "micrographia.methods.tracing": ("trace",),
}  # fmt: skip

_RENAMED = {
    "GrokkingConfig": ("micrographia.labs.grokking.config", "Config"),
    "grok": ("micrographia.labs.grokking.run", "run"),
    "analyse": ("micrographia.labs.grokking.identify.run", "analyse"),
    "ask": ("micrographia.labs.workbench.run", "run"),
}

_FLOORS = ("core", "methods", "labs", "faces")
_SHOWN = (  # what leads to Runs, Figures and results, which a notebook displays
    "Figure", "Run", "find_run", "list_runs", "load_run", "grok", "analyse", "ask", "patch", "patch_both", "attribute",
    "trace",
)  # fmt: skip

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
