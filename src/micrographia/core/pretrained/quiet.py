"""transformers without its bars and warnings, while a model is loaded; its settings are put back afterwards.

What a user has to know of a load we say ourselves: missing weights are an error, what was guessed is a Note. The bars
of downloads stay.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quietly() -> Iterator[None]:
    """Show no bar of loading, and no message of transformers below an error, within this block."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    level, shown, hub_silent = logging.get_verbosity(), logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # and those of the hub with it
    if not hub_silent:
        enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
        if hub_silent:
            disable_progress_bars()


@contextmanager
def without_gguf_bar() -> Iterator[None]:
    """Show no bar of dequantising either, which no setting of transformers switches off."""
    from transformers import modeling_gguf_pytorch_utils

    reader: Any = modeling_gguf_pytorch_utils
    bar = reader.tqdm
    reader.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        reader.tqdm = bar
