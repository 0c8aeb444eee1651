"""Model and text of a Run as another process finds them: a worker that trains one program, a process of torchrun."""

from pathlib import Path

from micrographia.core.events import silent
from micrographia.core.model import Model
from micrographia.core.small.split_text import TOKENS, split_rows
from micrographia.core.small.trained import load_trained
from micrographia.core.stream.rows import TokenRows
from micrographia.core.stream.tokenise import open_tokens
from micrographia.core.untrained import untrained
from micrographia.labs.gemma_scope.config import Config
from micrographia.labs.gemma_scope.published import model_of

MODEL = "model"
"""The Run of the language model within that of the lab."""


def reread(config: Config, run: Path, *, null: bool) -> tuple[Model, TokenRows]:
    """The model, with `null` that without its training, and the rows that the Run in this folder trains on.

    Memory: the model, with `null` twice, and 8 bytes a token. Raises RunNotFound, Corrupt.
    """
    made = not config.model
    model = load_trained(run / MODEL, device=config.machine.device) if made else model_of(config, silent)
    assert model.tokenizer is not None, "the Run read its text with it"
    rows = split_rows(config, open_tokens(run / TOKENS), model.tokenizer).train
    return untrained(model, config.seed) if null else model, rows
