"""A model with its board and a probe of every layer: read from where they lie, the probe else fitted on the spot.

`probes.safetensors` beside a model holds its linear probe in the mover's frame: `weight` [site, d_model, square, class]
and `bias` [site, square, class], of the sites of `reading.sites_of` and the classes empty, mine, theirs; `layers` and
`scale` are those at which a change along the probe flips a square best. Axes: site d_model square class.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.config import with_fields
from micrographia.core.errors import BadConfig, BadShape, UnknownModel
from micrographia.core.events import Note, Progress, Watch, silent
from micrographia.core.model_packages import shipped_models
from micrographia.core.runtime import generator
from micrographia.core.small.trained import load_trained
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import find_run, read_tensors
from micrographia.core.store.formats import tensors_bytes
from micrographia.labs.othello.cases import Cases
from micrographia.labs.othello.config import SHIPPED, Config
from micrographia.labs.othello.engine.board import SIZES, Board
from micrographia.labs.othello.flips import WAYS, edits_of, flip_scores, logits_at_last
from micrographia.labs.othello.intervene import CONTROLLED, TUNED_ON, Chosen, cases_of_config, choose
from micrographia.labs.othello.published import FILES, LAB, board_of, model_of, rules_of, shipped
from micrographia.labs.othello.reading import probe_board, reader, sites_of
from micrographia.methods.probes.probe import ProbeLayer, ProbeTarget, SiteProbes

PROBES = "probes.safetensors"
N_CLASSES = 3
FRAME = WAYS[CONTROLLED].frame
ON_THE_SPOT = {"probe_games": 4_000, "probe_rows": 20, "test_games": 400, "tuning_cases": 60}


class Studied(NamedTuple):
    """A model, and what its board is read and changed with."""

    model: Transformer
    board: Board
    probe: SiteProbes
    chosen: Chosen
    """Layers and scale of a flip."""


def model_and_board(name: str, *, allow_pickle: bool = False, watch: Watch = silent) -> tuple[Transformer, Board]:
    """The model of this name, and the board that it plays on. Raises as `studied`."""
    model, _ = _found(name, allow_pickle, watch)
    return model, board_of(model, name)


def studied(name: str, *, allow_pickle: bool = False, watch: Watch = silent) -> Studied:
    """The model of this name: "shipped", a Run of this lab, or a file of weights.

    Where no probe lies beside the model, one is fitted on 4,000 games, and the layers and scale of a flip are chosen on
    60 cases: half a minute for a model of 6 layers. A Run of the lab has them. Raises RunNotFound, UnknownModel,
    UnreadableWeights, PickleRefused, Corrupt, BadShape for a probe of another model, and BadConfig for a model of no
    known board.
    """
    model, file = _found(name, allow_pickle, watch)
    board = board_of(model, name)
    stored = read_probe(file, model, board) if file.is_file() else None
    probe, chosen = stored or (None, None)
    config = with_fields(Config(), size=board.size, **ON_THE_SPOT)
    if probe is None:
        probe = fitted(config, model, watch)
    if chosen is None:
        chosen = best_flip(model, probe, cases_of_config(config, TUNED_ON, config.flipping.tuning_cases), watch)
    return Studied(model, board, probe, chosen)


def fitted(config: Config, model: Transformer, watch: Watch = silent) -> SiteProbes:
    """The mover's linear probe of every site, and a note of how well it reads other games."""
    found = probe_board(config, reader(model), (FRAME,), watch=watch, task="fit probes")
    accuracy = found.counts[FRAME].accuracy()
    best = int(accuracy.argmax())
    watch(Note(f"On other games the probe of {sites_of(model)[best]} reads {accuracy[best]:.1%} of the squares right."))
    return found.probes[FRAME]


def best_flip(model: Transformer, probe: SiteProbes, tuning: Cases, watch: Watch = silent) -> Chosen:
    """The layers and scale of the least mean error, sought scale by scale: about 2 runs over the cases a layer each."""
    way, found = WAYS[CONTROLLED], dict[Chosen, float]()
    for i, scale in enumerate(way.scales):
        watch(Progress("choose how to flip", i, len(way.scales), "scale"))
        best, _ = choose(model, way._replace(scales=(scale,)), probe, tuning)
        edits = edits_of(way, probe, tuning, best.layers, scale, generator(0))
        found[best] = float(flip_scores(logits_at_last(model, tuning, edits), tuning).error.mean())
    watch(Progress("choose how to flip", len(way.scales), len(way.scales), "scale"))
    return min(found, key=lambda each: found[each])


def _found(name: str, allow_pickle: bool, watch: Watch) -> tuple[Transformer, Path]:
    """A model, and the file in which its probe would lie: of the model in a Run of the lab, that Run's."""
    if name == SHIPPED:
        return shipped(), shipped_models()[LAB] / PROBES
    if Path(name).suffix.lower() in FILES:
        return _foreign(name, allow_pickle, watch), Path(name).with_name(f"{Path(name).stem}.{PROBES}")
    run = find_run(name)
    if rules_of(run) != "flipped":
        raise BadConfig(
            f"Asked for the board of the model {name!r}. It was trained on a variant, in which flanked discs are "
            f"{rules_of(run)!r}; games of Othello alone can be stepped through. Give a model of those."
        )
    inner = run / "model"
    beside = run / PROBES
    if not beside.is_file() and (run.parent / PROBES).is_file():
        beside = run.parent / PROBES
    return load_trained(inner if inner.is_dir() else run), beside


def _foreign(name: str, allow_pickle: bool, watch: Watch) -> Transformer:
    """A file of weights on whichever board they fit."""
    if not Path(name).is_file():
        raise UnknownModel(f"Asked for the model in {name}. There is no such file. Check the path.")
    for size in SIZES:
        try:
            return model_of(with_fields(Config(), size=size, model=name, allow_pickle=allow_pickle), watch)
        except BadConfig:  # it has the tokens of another board
            continue
    boards = ", ".join(f"{size}x{size} ({Board(size).most_moves + 1})" for size in SIZES)
    raise BadConfig(
        f"Asked for the model in {name}. Its tokens are those of no known board: {boards}. Give a model of Othello."
    )


def probe_bytes(probe: SiteProbes, chosen: Chosen | None = None) -> bytes:
    """The file `probes.safetensors` of a linear probe."""
    tensors = {"weight": probe.directions, "bias": probe.readout.bias.unflatten(-1, tuple(probe.target))}
    if chosen is not None:
        tensors |= {"layers": torch.tensor(chosen.layers), "scale": torch.tensor([chosen.scale])}
    return tensors_bytes(tensors)


def read_probe(path: Path, model: Transformer, board: Board) -> tuple[SiteProbes, Chosen | None]:
    """The probe in a file, and the layers and scale of a flip where it has them. Raises Corrupt, BadShape."""
    found = read_tensors(path)
    n_sites, n = len(sites_of(model)), board.n_squares
    wanted = {"weight": (n_sites, model.shape.d_model, n, N_CLASSES), "bias": (n_sites, n, N_CLASSES)}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    if any(shapes.get(name) != shape for name, shape in wanted.items()):
        raise BadShape(f"Asked for the probe of this model in {path}. Wanted {wanted}. Found {shapes}. Fit it anew.")
    if not (found["weight"].isfinite().all() and found["bias"].isfinite().all()):
        raise BadShape(f"Asked for the probe of this model in {path}. It holds NaN or infinity. Fit it anew.")
    weight, bias = found["weight"].float().flatten(2), found["bias"].float().flatten(1)
    return SiteProbes(ProbeTarget(n, N_CLASSES), ProbeLayer(weight, bias)), _chosen(found, model, path)


def _chosen(found: dict[str, Tensor], model: Transformer, path: Path) -> Chosen | None:
    if not {"layers", "scale"} <= found.keys():
        return None
    layers, scale = (found[name].flatten() for name in ("layers", "scale"))
    if layers.is_floating_point() or not len(layers) or len(scale) != 1 or not scale.isfinite().all():
        raise BadShape(f"The probe in {path} should have whole numbers as layers, and one as scale. Fit it anew.")
    layers = tuple(layers.tolist())
    if any(not 0 <= layer < model.shape.n_layers for layer in layers):
        raise BadShape(f"The probe in {path} is of the layers {layers}. The model has {model.shape.n_layers} layers.")
    return Chosen(layers, float(scale))
