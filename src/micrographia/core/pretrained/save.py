"""Write a model as a plain folder, as transformers reads it: config, weights, tokenizer; whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from micrographia.core.errors import CannotWrite, UserError
from micrographia.core.pretrained.quiet import quietly
from micrographia.core.pretrained.tokenizer import HubTokenizer
from micrographia.core.store.models import model_draft
from micrographia.core.tokens import Tokenizer

MARKS = ("hf_quantizer", "quantization_method", "is_quantized")


def save(module: nn.Module, tokenizer: Tokenizer | None, folder: Path) -> Path:
    """The folder, with the module as it is and a tokenizer of Hugging Face if it has one.

    Raises CannotWrite for a folder that is there already or a full disk; UserError for a module that transformers
    cannot write, such as one of packed weights.
    """
    write: Any = getattr(module, "save_pretrained", None)
    if write is None:
        raise UserError(f"Asked to save a {type(module).__name__}, which has no save_pretrained of transformers.")
    with model_draft(folder) as draft, quietly(), without_marks(module):
        try:
            write(draft)
        except SafetensorError as error:
            raise CannotWrite(f"Cannot write the model to {folder}: {error}. Nothing was kept.") from error
        except ValueError as error:
            raise UserError(f"Asked to save the model to {folder}; transformers cannot: {error}") from error
        if isinstance(tokenizer, HubTokenizer):
            tokenizer.inner.save_pretrained(draft)
    return folder


@contextmanager
def without_marks(module: Any) -> Iterator[None]:
    """Within this block, a module dequantised from GGUF is written as what it is: whole weights."""
    config = getattr(module.config, "quantization_config", None)
    method = getattr(config, "quant_method", None)
    whole = all(parameter.dtype.is_floating_point for parameter in module.parameters())
    if getattr(method, "value", method) != "gguf" or not whole:
        yield
        return
    kept = {name: vars(module).pop(name) for name in MARKS if name in vars(module)}
    del module.config.quantization_config
    try:
        yield
    finally:
        vars(module).update(kept)
        module.config.quantization_config = config
