"""Config -> Run: train or load, take apart, judge, store. The lab's only orchestrator.

Networks are trained side by side, each in a folder of its own from which it can be resumed; what follows is computed
anew from them.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.errors import Interrupted, MicrographiaError
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.running import carry_out
from micrographia.core.runtime import allowed_cores, settings
from micrographia.core.store import RunFolder, read_metrics
from micrographia.core.tasks import Task, run_tasks
from micrographia.labs.ioi.config import Config, preset_of
from micrographia.labs.ioi.figures.of_networks import of_networks
from micrographia.labs.ioi.findings import results_of
from micrographia.labs.ioi.judge import judge_all
from micrographia.labs.ioi.network import Network, take_apart
from micrographia.labs.ioi.planted.findings import findings
from micrographia.labs.ioi.published.study import study_published
from micrographia.labs.ioi.seeds import LAB, raise_if_failed, stoppable, train_seeds
from micrographia.labs.ioi.sentences import summary

Found = tuple[dict[str, Any], list[Figure]]


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train networks on the grammar, or take the model that the config names, and ask which parts do what.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there.
    Raises RunExists, RunLocked, BadConfig, UnknownModel, MissingExtra, NonFiniteLoss, Interrupted, CannotWrite.
    """
    preset = preset_of(config)
    return carry_out(config, _answer, lab=LAB, preset=preset, dtype="float32", out=out, resume=resume, watch=watch)


def _answer(config: Config, folder: RunFolder, watch: Watch) -> None:
    try:
        results, figures = _published(config, watch) if config.model else _trained(config, folder, watch)
    except (MicrographiaError, KeyboardInterrupt) as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        folder.set_status("interrupted" if stopped else "failed")
        raise
    results = {"config": folder.config, **results}
    claims = judge_all(results, preset=preset_of(config), config=folder.config)
    results["claims"] = [judged.as_json() for judged in claims]
    undecided = [each.claim.id for each in claims if each.undecided and each.verdict != "not run"]
    results["summary"] = summary(results, undecided)
    folder.finish(results, claims, figures, {"seed": list(range(config.seed, config.seed + config.seeds))})


def _trained(config: Config, folder: RunFolder, watch: Watch) -> Found:
    workers = config.threads
    places = train_seeds(config, folder.path, workers=workers, watch=watch)
    networks = take_all_apart(config, places, workers, watch)
    watch(Progress("planted circuits", 0, 1, "table"))
    planted = list(findings())
    watch(Progress("planted circuits", 1, 1, "table"))
    courses = {seed: read_metrics(place) for seed, place in places.items()}
    return results_of(networks, planted), of_networks(networks, courses, config.n_heads)


def take_all_apart(config: Config, places: dict[int, Path], workers: int | None, watch: Watch) -> Sequence[Network]:
    """Every network, in a process each, in the order of the seeds."""
    tasks = [
        Task(f"seed {seed}", take_apart, {"config": config, "seed": seed, "run": str(place)})
        for seed, place in places.items()
    ]
    found = {}
    with stoppable(), closing(run_tasks(tasks, workers=workers, watch=watch)) as ending:
        for done in ending:
            raise_if_failed(done)
            found[done.result.seed] = done.result
    return [found[seed] for seed in places]


def _published(config: Config, watch: Watch) -> Found:
    with settings(config.threads or allowed_cores(), config.device):
        return study_published(config, watch)
