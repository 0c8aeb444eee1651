"""Config -> Run: train a model on games, or load one; probe every layer, flip squares, judge, store.

The lab's only orchestrator. The model is a Run of its own within this one, with checkpoints; what follows is computed
anew.
"""

from pathlib import Path

from micrographia.core.claims import Run
from micrographia.core.events import Watch, silent
from micrographia.core.lab import Findings, run_lab
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import RunFolder, read_metrics
from micrographia.core.train_loop import Rows
from micrographia.labs.othello.cases import read_cases
from micrographia.labs.othello.config import Config, preset_of
from micrographia.labs.othello.evidence import MODEL, BoardEvidence, chosen_flip, evidence
from micrographia.labs.othello.figures import READ, of_run
from micrographia.labs.othello.measure import CLAIMS, measures
from micrographia.labs.othello.network import trained
from micrographia.labs.othello.published import model_of, read_probes
from micrographia.labs.othello.published_probes import figure_of, judge_probes
from micrographia.labs.othello.studied import PROBES, probe_bytes

LAB = "othello"
TITLE = "The board inside a model of legal moves"


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train a model to predict legal moves, or load one, and look for the board in it.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there.
    Raises RunExists, RunLocked, BadConfig, UserError, PickleRefused, UnreadableWeights, NonFiniteLoss, CannotWrite,
    Interrupted.
    """
    preset = preset_of(config)
    return run_lab(config, _work, lab=LAB, preset=preset, claims=CLAIMS, out=out, resume=resume, watch=watch)


def _work(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    if config.benchmark:
        read_cases(Path(config.benchmark), config.board)
    if config.probes and not config.model:
        read_probes(Path(config.probes), config, config.network.d_model)
    model, curve = _model(config, folder, watch)
    given = read_probes(Path(config.probes), config, model.shape.d_model) if config.probes else None
    model = Transformer(model.arch, {name: w.cpu() for name, w in model.state.items()}, model.tokenizer)
    found = evidence(config, model, folder.path, watch)
    results = {
        "title": TITLE,
        "legal": found.scores._asdict(),
        "untrained": found.untrained_scores._asdict(),
        "legality": found.legality.rows(),
        "flips": [each.row() for each in found.flips],
        "heads": found.parts.heads.counts(),
        "latents": found.latents.rows() if found.latents else [],
    }
    shown, chosen = of_run(config, model, found, curve), chosen_flip(found.flips)
    if given is not None:
        judged = judge_probes(config, model, given)
        results["probes"] = [each.row(model) for each in judged.modes]
        shown.append(figure_of(model, judged, READ))
    files = {PROBES: probe_bytes(found.linear.probes["mover"], chosen)}
    return Findings(results, shown, measures(found), {}, opening(config, found), files=files)


def _model(config: Config, folder: RunFolder, watch: Watch) -> tuple[Transformer, Rows | None]:
    """The model, and its training where that was here."""
    if config.model:
        return model_of(config, watch), None
    model = trained(config, folder.path / MODEL, lab=LAB, preset=preset_of(config), watch=watch)
    return model, {name: list(column) for name, column in read_metrics(folder.path / MODEL).items()}


def opening(config: Config, found: BoardEvidence) -> list[str]:
    """How well the model plays, in nats above the floor."""
    scores = found.scores
    return [
        f"On a board of {config.size}x{config.size} the model's loss is {scores.excess_nats:.3f} nats a move above the "
        f"floor of random legal play ({scores.floor_nats:.3f}); {scores.legal_mass:.1%} of its probability is on legal "
        f"moves, and in {scores.full_sets:.1%} of the positions every legal move is above every other."
    ]
