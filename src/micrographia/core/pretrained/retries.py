"""What the Hub's client says while it tries again, told once; how it ends is told by a model or by our error."""

from collections.abc import Iterator
from contextlib import contextmanager
from logging import LogRecord

from micrographia.core.events import Note, Watch

CLIENT = "huggingface_hub.utils._http"
"""The logger that tells of every request that failed and of every new try."""
AGAIN = ("thrown while requesting", "Retrying in")


@contextmanager
def told_once(watch: Watch) -> Iterator[None]:
    """Within it, `watch` gets one Note for all new tries; whatever else the client says passes."""
    told = False

    def passes(record: LogRecord) -> bool:
        nonlocal told
        if not any(words in record.getMessage() for words in AGAIN):
            return True
        if not told:
            watch(
                Note(
                    "The Hugging Face Hub does not answer; trying again for up to half a minute. With HF_HUB_OFFLINE=1 "
                    "only what is in the cache is looked for."
                )
            )
        told = True
        return False

    from huggingface_hub.utils import logging as hub

    client = hub.get_logger(CLIENT)
    client.addFilter(passes)
    try:
        yield
    finally:
        client.removeFilter(passes)
