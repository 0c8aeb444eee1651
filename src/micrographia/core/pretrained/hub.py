"""Files of a repository on the Hugging Face Hub: their names, and those that are asked for.

Without a network, both are those of the cache.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from micrographia.core.errors import UnknownDictionary
from micrographia.core.events import Note, Watch, silent
from micrographia.core.pretrained.load import noted_once


def listing(repository: str, revision: str | None = None, watch: Watch = silent) -> list[str]:
    """Paths of all files of this repository; without a network, of those in the cache, with a Note.

    Raises UnknownDictionary for a repository that does not exist, needs permission, or can be had from nowhere.
    """
    from huggingface_hub import list_repo_files

    with _explained(repository, revision), noted_once(watch):
        try:
            return list_repo_files(repository, revision=revision)
        except Exception as error:  # its client's errors are of another library with each version
            cached = _cached(repository, revision) if _unreached(error) else None
            if cached is None:
                raise
            watch(Note("The Hub cannot be reached; only what is in the cache is looked at."))
            return [each.relative_to(cached).as_posix() for each in cached.rglob("*") if each.is_file()]


def fetched(repository: str, files: Sequence[str], revision: str | None = None, watch: Watch = silent) -> Path:
    """The folder in the cache with these files of the repository, fetched where they are not there yet."""
    from huggingface_hub import hf_hub_download

    watch(Note(f"Fetching {len(files)} files of {repository} from the Hub, unless they are in the cache."))
    with _explained(repository, revision), noted_once(watch):
        places = [hf_hub_download(repository, name, revision=revision) for name in files]
    return Path(places[0]).parents[files[0].count("/")]


def _cached(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _unreached(error: BaseException) -> bool:
    """Whether this error means that there is no way to the Hub, or that none may be taken."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError | TimeoutError):
            return True
        if type(cause).__name__ in ("gaierror", "ConnectError", "ConnectTimeout", "ReadTimeout"):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Turn an error of the Hub into one that says what to do."""
    from huggingface_hub import errors

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
    except Exception as error:  # as above
        if not _unreached(error):
            raise
        advice = (
            "It is no folder here, the Hub cannot be reached, and it is not in the cache. Connect once, or download "
            "its files elsewhere and give their folder."
        )
        raise _unknown(repository, advice) from error


def _unknown(repository: str, advice: str) -> UnknownDictionary:
    return UnknownDictionary(f"Asked for the dictionaries of {repository}. {advice}")
