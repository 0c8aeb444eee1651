"""The labs, as a literal table: `--help` and completion read it without importing anything heavy.

A row is all that a lab adds to the house beside its own package `micrographia.labs.<name>`, which holds `config` (with
`Config`, `PRESETS` and `preset_of`), `run` (with `run(config, *, out, resume, watch)`) and `claims.toml`. From it come
`micrographia lab <name>` with a flag for every field, its claims, its line in the help, and `run_by_name`.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micrographia.core.claims import Run
    from micrographia.core.events import Watch


@dataclass(frozen=True, slots=True)
class Lab:
    """A room of the third floor: its name and its question."""

    name: str
    question: str
    preset_with_model: str = "quick"
    """The preset taken when a pretrained model is named, and no preset: one that trains none."""

    @property
    def package(self) -> str:
        """What holds its `claims.toml`."""
        return f"micrographia.labs.{self.name}"

    @property
    def config(self) -> Any:
        """Its module with `Config` and `PRESETS`; no tensor library."""
        return import_module(f"{self.package}.config")

    def preset(self, model: object = None) -> str:
        """The preset where none is named."""
        return self.preset_with_model if model else "quick"

    def run(self, config: Any, *, out: Path | None = None, resume: bool = False, watch: "Watch | None" = None) -> "Run":
        """Carry out a Config of this lab. Imports torch."""
        watching = {} if watch is None else {"watch": watch}
        return import_module(f"{self.package}.run").run(config, out=out, resume=resume, **watching)


LABS = (
    Lab("grokking", "What does a transformer learn when it groks modular addition?"),
    Lab(
        "ioi", "Which components carry a behaviour, and how far can each method be trusted?", preset_with_model="paper"
    ),
    Lab("dictionary", "What do sparse autoencoders find in the neurons of a one-layer language model?"),
    Lab(
        "gemma_scope",
        "What does a suite of dictionaries at every layer and sublayer find, and what does it cost the model?",
        preset_with_model="given",
    ),
    Lab("othello", "Does a model of legal moves hold a board?"),
    Lab("facts", "How are facts recalled?", preset_with_model="real"),
    Lab("reversal", 'Why does "A is B" not give "B is A", and what repairs it?', preset_with_model="real"),
    Lab("planted", "What does each method find and miss of circuits that were built by hand?"),
)


def lab(name: str) -> Lab | None:
    """The lab of this name."""
    return next((each for each in LABS if each.name == name), None)


def nearest(name: str) -> list[str]:
    """The names most like this one, or all."""
    names = [each.name for each in LABS]
    return get_close_matches(name, names) or names


def run_by_name(
    name: str,
    *,
    preset: str | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    watch: "Watch | None" = None,
    **fields: Any,
) -> "Run":
    """Run a lab at a preset, by default "quick", with some fields of its Config changed; the Run.

    `fields` have the names of the command's flags (`lr=0.01`), also those of inner parts. Raises BadConfig for an
    unknown lab, preset or field, and what the lab's own `run` raises.
    """
    from micrographia.core.config import flat, refuse_misfits, with_fields
    from micrographia.core.errors import BadConfig

    chosen = lab(name)
    if chosen is None:
        raise BadConfig(f"Asked for the lab {name!r}, which there is not. There is: {', '.join(nearest(name))}.")
    presets = chosen.config.PRESETS
    wanted = preset or chosen.preset(fields.get("model"))
    if wanted not in presets:
        raise BadConfig(f"The lab {name} has no preset {wanted!r}. It has {', '.join(presets)}.")
    preset_config = presets[wanted]()
    refuse_misfits(type(preset_config), {name: fields[name] for name in fields if name in flat(preset_config)})
    config = with_fields(preset_config, **fields)
    return chosen.run(config, out=None if out is None else Path(out), resume=resume, watch=watch)
