"""Files of a repository on the Hugging Face Hub: their names, and those that are asked for.

Without a network, both are those of the cache.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub

from micrographia.core.errors import UnknownDictionary
from micrographia.core.events import Note, Watch, silent


def listing(repository: str, revision: str | None = None, watch: Watch = silent) -> list[str]:
    """Paths of all files of this repository; without a network, of those in the cache, with a Note.

    Raises UnknownDictionary for a repository that does not exist, needs permission, or can be had from nowhere.
    """
    with _explained(repository, revision):
        try:
            return huggingface_hub.list_repo_files(repository, revision=revision)
        except _unreached() as error:
            cached = _cached(repository, revision)
            if cached is None:
                raise
            watch(Note(f"The Hub cannot be reached ({type(error).__name__}); only what is in the cache is looked at."))
            return [each.relative_to(cached).as_posix() for each in cached.rglob("*") if each.is_file()]


def fetched(repository: str, files: Sequence[str], revision: str | None = None, watch: Watch = silent) -> Path:
    """The folder in the cache with these files of the repository, fetched where they are not there yet."""
    with _explained(repository, revision):
        watch(Note(f"Fetching {len(files)} files of {repository} from the Hub, unless they are in the cache."))
        places = [huggingface_hub.hf_hub_download(repository, name, revision=revision) for name in files]
    return Path(places[0]).parents[files[0].count("/")]


def _cached(repository: str, revision: str | None) -> Path | None:
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, local_files_only=True))
    except huggingface_hub.errors.LocalEntryNotFoundError:
        return None


def _unreached() -> tuple[type[Exception], ...]:
    errors = huggingface_hub.errors
    return (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError, *_http())


def _http() -> tuple[type[Exception], ...]:
    """The errors of connection of the client that huggingface_hub stands on."""
    try:
        import httpx
    except ImportError:
        return ()
    return (httpx.TransportError,)


@contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Turn an error of the Hub into one that says what to do."""
    errors = huggingface_hub.errors
    try:
        yield
    except errors.GatedRepoError as error:
        advice = f"It is gated: ask for access at https://huggingface.co/{repository}, then `hf auth login`."
        raise _unknown(repository, advice) from error
    except errors.RevisionNotFoundError as error:
        raise _unknown(repository, f"The Hub has it, but not the revision {revision!r}.") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        advice = "Neither a folder here nor a repository of the Hub has this name. Check it; for a private one, log in."
        raise _unknown(repository, advice) from error
    except _unreached() as error:
        advice = (
            "It is no folder here, the Hub cannot be reached, and it is not in the cache. Connect once, or download its "
            "files elsewhere and give their folder."
        )
        raise _unknown(repository, advice) from error


def _unknown(repository: str, advice: str) -> UnknownDictionary:
    return UnknownDictionary(f"Asked for the dictionaries of {repository}. {advice}")
