"""Carry out a Config in the folder of its Run: the one orchestrator behind every lab and question.

`run_lab` opens the folder (new, gone on with, or finished and only read), settles device, threads and provenance once,
does the lab's work, judges its measures and stores everything. However the work ends, the Run says so: finished,
interrupted or failed. `for_each_network` does one function for many networks side by side, each in a folder of its own.
`run_words` is what `python -m micrographia.labs.<name> config.json [out]` does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from micrographia.core import errors
from micrographia.core.claims import Measures, Run, headline, judge_all
from micrographia.core.config import flat, with_fields
from micrographia.core.errors import BadConfig, CannotWrite, Interrupted, MicrographiaError
from micrographia.core.events import Note, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.interrupt import terminable
from micrographia.core.runtime import allowed_cores, busy_warning, pick_device, provenance, settings
from micrographia.core.store import RunFolder, load_run, new_run_path
from micrographia.core.store.formats import Column
from micrographia.core.store.verify import RUN, read_run
from micrographia.core.tasks import Done, Task, run_tasks


class Findings(NamedTuple):
    """What a lab found, up to judging it.

    `results` is the object that `--json` prints, less config, claims and summary. The summary is `opening`, the claims'
    own sentences, then `closing`.
    """

    results: Mapping[str, Any]
    figures: Sequence[Figure]
    measures: Measures = MappingProxyType({})
    metrics: Mapping[str, Column] = MappingProxyType({})
    """The table of the Run: a row a step, a place or a network."""
    opening: Sequence[str] = ()
    closing: Sequence[str] = ()
    files: Mapping[str, bytes] = MappingProxyType({})
    """Further files of the Run, such as a vector, by name."""


Work = Callable[[Any, RunFolder, Watch], Findings]
"""(config, with its threads and device settled; folder; watch) -> what was found."""


def run_lab(
    config: Any,
    work: Work,
    *,
    lab: str,
    preset: str,
    claims: Path | None = None,
    dtype: str = "float32",
    out: Path | None = None,
    resume: bool = False,
    watch: Watch = silent,
) -> Run:
    """Do the `work` of a Config in its Run's folder, unless it is finished there; the Run.

    `config` is a dataclass with `seed`, `device` and `threads`, its own or those of an inner one. `claims` is the lab's
    `claims.toml`. `out`: the folder, by default a new one under the runs root; with `resume`, what is there goes on. A
    busy machine is reported. Raises RunExists, RunLocked, BadConfig (another config is stored there, or no such
    device), CannotWrite, and what the work raises, the Run then being "failed" or "interrupted".
    """
    chosen = flat(config)
    device, threads = str(pick_device(chosen["device"])), chosen["threads"] or allowed_cores()

    def settled(folder: RunFolder, watch: Watch) -> Findings:
        if warning := busy_warning(folder.config["threads"]):
            watch(Note(warning, "warning"))
        here = with_fields(config, threads=folder.config["threads"], device=device)
        with settings(folder.config["threads"], device):  # of a Run that goes on, as many as it was begun with
            return work(here, folder, watch)

    about = provenance(chosen["seed"], device, dtype, threads)
    stored = _as_begun(config, out) if out is not None and resume else chosen
    return run_in_folder(
        stored, settled, lab=lab, preset=preset, about=about, claims=claims, out=out, resume=resume, watch=watch
    )


def _as_begun(config: Any, out: Path) -> dict[str, Any]:
    """The config without the fields that a Run begun before lacks, as far as they have their defaults."""
    chosen = flat(config)
    known = read_run(out)["config"] if (out / RUN).is_file() else chosen
    if not (newer := chosen.keys() - known.keys()):
        return chosen
    default = flat(type(config)())
    return {name: value for name, value in chosen.items() if name not in newer or value != default[name]}


def run_in_folder(
    config: Mapping[str, Any],
    work: Callable[[RunFolder, Watch], Findings],
    *,
    lab: str,
    preset: str,
    about: Mapping[str, Any],
    claims: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
    watch: Watch = silent,
) -> Run:
    """The same for a config as it is stored, with its provenance `about` at hand."""
    place = out or new_run_path(lab, config)
    with RunFolder.open(place, lab=lab, preset=preset, config=config, provenance=about, resume=resume) as folder:
        if folder.status == "finished":
            for note in folder.notes:
                watch(Note(note, "warning"))
        else:
            with ending(folder):
                finish(folder, work(folder, watch), preset=preset, claims=claims)
    return load_run(folder.path)


@contextmanager
def ending(folder: RunFolder) -> Iterator[None]:
    """Where work stops before its end, write down how: interrupted, or failed."""
    try:
        with terminable():
            yield
    except BaseException as error:
        stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)  # Ctrl-C, or told to exit
        with suppress(CannotWrite):  # what ended the work is raised, not that this could not be written down
            folder.set_status("interrupted" if stopped else "failed")
        raise


def finish(folder: RunFolder, found: Findings, *, preset: str, claims: Path | None) -> None:
    """Judge what was found and store all of it."""
    judged = judge_all(claims, found.measures, preset=preset, config=folder.config) if claims else []
    results = {"config": folder.config, **found.results}
    if found.measures:
        measured = ((name, each._asdict()) for name, each in found.measures.items())
        results["measured"] = {name: {k: x for k, x in each.items() if k != "taken"} for name, each in measured}
    results["claims"] = [each.as_json() for each in judged]
    results["summary"] = [*found.opening, *headline(judged), *found.closing]
    for name, data in found.files.items():
        folder.add_file(name, data)
    folder.finish(results, judged, found.figures, found.metrics)


def for_each_network(
    function: Callable[..., Any],
    configs: Mapping[str, Any],
    folder: Path,
    *,
    workers: int | None = None,
    watch: Watch = silent,
    noun: str = "network",
    **arguments: Any,
) -> dict[str, Done]:
    """`function(config, out, **arguments)` for every network by name, side by side; what each gave, or its error.

    `out` is `folder / name`. Every network has one thread of the CPU. One that fails is reported and the others go on;
    `raise_failed` turns that into an error. `function` stands at the top of a module, and what it gives must travel
    between processes; `noun` is what they are called. Raises Interrupted when the user stops; what was done stays.
    """
    tasks = [
        Task(name, function, {"config": config, "out": str(folder / name), **arguments})
        for name, config in configs.items()
    ]
    found: dict[str, Done] = {}
    try:
        with closing(run_tasks(tasks, workers=workers, watch=watch)) as ended:  # pyright: ignore[reportArgumentType] (a generator)
            for done in ended:
                found[done.task.name] = done
                if done.error and not _was_stopped(done):
                    what = f"{noun.capitalize()} {done.task.name}"
                    watch(Note(f"{what} failed, the others go on. {first_line(done)}", "warning"))
    except KeyboardInterrupt as error:
        raise Interrupted(_so_far(found, len(tasks), noun)) from error
    if any(_was_stopped(done) for done in found.values()):
        raise Interrupted(_so_far(found, len(tasks), noun))
    return {name: found[name] for name in configs}


def raise_failed(done: Mapping[str, Done]) -> None:
    """Raise the error of the first network that failed, as it was where this package knows its kind."""
    for name, each in done.items():
        if each.error is not None:
            kind, _, message = first_line(each).partition(": ")
            known = getattr(errors, kind, MicrographiaError)
            raise known(f"{name}: {message or kind}")


def first_line(done: Done) -> str:
    """Type and message of a failure, without its traceback; empty where there was none."""
    return (done.error or "").split("\n", 1)[0]


def row_of(head: Mapping[str, Any], done: Done) -> dict[str, Any]:
    """A line of a table of networks: `head`, then what the task gave (a mapping), or why nothing came of it."""
    if done.error:
        return {**head, "status": "failed", "error": first_line(done)}
    return {**head, "status": "finished", "error": None, **done.result}


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The numbers and texts of records as a Run's metric table; what a record lacks is empty."""
    texts = {name: isinstance(x, str) for row in rows for name, x in row.items() if isinstance(x, str | int | float)}
    return {name: [(row.get(name) or "") if text else row.get(name) for row in rows] for name, text in texts.items()}


def _was_stopped(done: Done) -> bool:
    """It saved what it had when it was told to stop: no failure of the network."""
    return first_line(done).startswith(f"{Interrupted.__name__}:")


def _so_far(found: Mapping[str, Done], n: int, noun: str) -> str:
    whole = sum(not done.error for done in found.values())
    return (
        f"Stopped by request: {whole} of {n} {noun}s are finished, the others are saved as far as they came. "
        "Resume to go on."
    )


def run_words(words: Sequence[str], read: Callable[[Path], Any], run: Callable[..., Run]) -> Path:
    """The folder of the Run that a command line asks for: a file that `read` turns into a Config, and where to put it.

    With a folder, a Run that was interrupted there goes on. An error that a user can meet ends the program with its
    sentence (SystemExit).
    """
    try:
        if not 1 <= len(words) <= 2:
            raise BadConfig(
                f"Asked for {list(words) or 'nothing'}. Give a config.json and, if you like, the folder of the Run."
            )
        out = Path(words[1]) if len(words) > 1 else None
        return run(read(Path(words[0])), out=out, resume=out is not None).path
    except MicrographiaError as error:
        raise SystemExit(f"micrographia: {error}") from None
