"""`load`: a Model from a Hugging Face Hub id, a folder, a GGUF file, a Run, or a module that is already loaded.

Nothing is converted and no code from the Hub is run. Errors of the Hub become errors that say what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from logging import LogRecord
from pathlib import Path
from typing import Any

import torch
from torch import nn

from micrographia.core.errors import UnknownModel, UserError
from micrographia.core.events import Note, Watch, silent
from micrographia.core.model_packages import packages
from micrographia.core.pretrained import gguf
from micrographia.core.pretrained.families import Family, family_of
from micrographia.core.pretrained.files import check_folder, check_loaded
from micrographia.core.pretrained.gguf_header import GgufHeader
from micrographia.core.pretrained.model import Pretrained
from micrographia.core.pretrained.quiet import quietly, without_gguf_bar
from micrographia.core.pretrained.stream import stream_of
from micrographia.core.pretrained.tokenizer import HubTokenizer, as_tokenizer
from micrographia.core.runtime import dtype_named, pick_device
from micrographia.core.small.transformer import Transformer
from micrographia.core.sources import is_gguf
from micrographia.core.tokens import Tokenizer

RUN_FILE = "run.json"
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")
CLIENT = "huggingface_hub.utils._http"
"""The logger of failed requests and retries."""
AGAIN = ("thrown while requesting", "Retrying in")


def load(
    model: str | Path | nn.Module,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    device_map: str | dict[str, Any] | None = None,
    revision: str | None = None,
    tokenizer: Any = None,
    residual_only: bool = False,
    watch: Watch = silent,
) -> Pretrained | Transformer:
    """Load a Model: from a Hub id, a local folder or GGUF file, or a module that is already loaded.

    A loaded module is used as it is, with its dtype, device, attention implementation and mode. From the Hub or a
    folder, `dtype` None means that of the file (of a GGUF file float32, to which its weights are dequantised);
    `device_map` needs accelerate. `tokenizer` is a Hub id, a folder, a Hugging Face tokenizer or a
    `core.tokens.Tokenizer`; None finds the model's own, if it has one. A folder of one of our own Runs gives the model
    that it trained, with its vocabulary. `residual_only` takes a model of any family, and gives the residual stream
    between its blocks as its only Sites. `watch` gets Notes on the file and on later runs.
    Errors: UnknownModel for a model that does not exist, needs permission or has no known family; UserError for
    settings that a loaded module already has, that do not apply to a Run, or that exclude each other.
    """
    if isinstance(model, nn.Module):
        given = {"dtype": dtype, "device": device, "device_map": device_map, "revision": revision}
        if set_anyway := [name for name, value in given.items() if value is not None]:
            raise UserError(
                f"{', '.join(set_anyway)} was asked for, but a module that is already loaded stays as it is. "
                "Convert or move the module yourself, or pass its Hub id."
            )
        return Pretrained(model, as_tokenizer(tokenizer), residual_only=residual_only, watch=watch)
    if (Path(model) / RUN_FILE).is_file():
        own = {"device_map": device_map, "revision": revision, "tokenizer": tokenizer}
        return _from_run(Path(model), dtype, device, [name for name, value in own.items() if value is not None])
    gguf_file = Path(model) if is_gguf(Path(model)) else None
    if gguf_file is None and _means_a_folder(model) and not Path(model).is_dir():
        raise UnknownModel(f"Asked for the model in the folder {model}. There is no such folder. Check the path.")
    if device is not None and device_map is not None:
        raise UserError(f"Both device {device} and device_map {device_map} were asked for. Choose one.")
    place = None if device is None else pick_device(str(device))  # refused before anything is read
    with _explained(str(model), revision), noted_once(watch), quietly():
        choices, stored = {"device_map": device_map} if device_map is not None else {}, ""
        if gguf_file is not None:
            header = gguf.opened(gguf_file)
            module, own = _from_gguf(header, tokenizer is None, dtype_named(dtype), choices, watch)
            stored = gguf.said(header, module)
            watch(Note(f"{gguf_file.name}: {stored}."))
        else:
            module, own = _from_hub(str(model), dtype, revision, tokenizer is None, choices, watch, residual_only)
        words = own if tokenizer is None else as_tokenizer(tokenizer)
    if place is not None:
        module = module.to(place)
    return Pretrained(module.eval(), words, residual_only=residual_only, watch=watch, stored=stored)


def _from_run(
    run: Path, dtype: torch.dtype | str | None, device: torch.device | str | None, set_anyway: list[str]
) -> Transformer:
    from micrographia.core.small.trained import load_trained

    if set_anyway:
        raise UserError(
            f"{', '.join(set_anyway)} was asked for, of the network of the Run {run}: it is one file with its own "
            "vocabulary. Leave that out; dtype and device may be chosen."
        )
    return load_trained(run, dtype=dtype_named(dtype), device=None if device is None else str(device))


def _means_a_folder(model: str | Path) -> bool:
    """Whether this is a Path, begins like one, or does not have the form "owner/name" of a Hub id."""
    if isinstance(model, Path):
        return True
    first, *rest = model.split("/")
    return first in ("", ".", "..", "~") or len(rest) > 1 or (bool(rest) and Path(first).is_dir())


def _from_hub(
    name: str,
    dtype: torch.dtype | str | None,
    revision: str | None,
    with_tokenizer: bool,
    choices: dict[str, Any],
    watch: Watch,
    residual_only: bool,
) -> tuple[Any, Tokenizer | None]:
    """The module of a Hub id or folder, and its tokenizer where that is wanted."""
    from transformers import AutoConfig

    where = {"revision": revision, "trust_remote_code": False}
    if Path(name).is_dir():
        check_folder(Path(name))
    config = AutoConfig.from_pretrained(name, **where)
    family = None if residual_only else family_of(config, next(iter(config.architectures or ()), ""))
    module, about = _class_for(family, config).from_pretrained(
        name,
        config=config,
        dtype=dtype or "auto",
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **choices,
        **where,
    )
    if any(each.startswith("pooler.") for each in about["missing_keys"]):
        module.pooler = None  # behind the last layer, where no run goes
    check_loaded(name, family or stream_of(module.eval()), module, about, watch)
    return module, _own_tokenizer(name, where, watch) if with_tokenizer else None


def _from_gguf(
    header: GgufHeader, with_tokenizer: bool, dtype: torch.dtype | None, choices: dict[str, Any], watch: Watch
) -> tuple[Any, Tokenizer | None]:
    """The module of a GGUF file, dequantised, and its tokenizer where that is wanted."""
    from transformers import AutoConfig

    folder, file = str(header.path.parent), header.path.name
    config = gguf.mended(AutoConfig.from_pretrained(folder, gguf_file=file, trust_remote_code=False), header)
    if told := gguf.assumed(config, header):
        watch(Note(told, "warning"))
    family = family_of(config)
    choices = {**choices, **gguf.whole_weights(), "config": config, "dtype": dtype or torch.float32}
    with without_gguf_bar():
        module, about = _class_for(family, config).from_pretrained(
            folder, gguf_file=file, output_loading_info=True, ignore_mismatched_sizes=True, **choices
        )
    check_loaded(str(header.path), family, module, about, watch)
    gguf.checked(module, header)
    return module, _gguf_tokenizer(header, watch) if with_tokenizer else None


def _gguf_tokenizer(header: GgufHeader, watch: Watch) -> Tokenizer | None:
    """The file's tokenizer; None, with a Note to `watch`, for one that cannot be built."""
    try:
        inner = gguf.tokenizer_of(header)
    except Exception as error:  # tokenizers raises no narrower kind
        text = f"The tokenizer of {header.path.name} cannot be built ({error}), so that it takes token ids alone."
        watch(Note(text, "warning"))
        return None
    return None if inner is None else HubTokenizer(inner)


def _class_for(family: Family | None, config: Any) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

    if family is not None and not family.head:
        return AutoModel
    masked = type(config) not in AutoModelForCausalLM._model_mapping if family is None else family.encoder
    return AutoModelForMaskedLM if masked else AutoModelForCausalLM


@contextmanager
def noted_once(watch: Watch) -> Iterator[None]:
    """Give `watch` one Note for all retries of the Hub's client; its other messages pass through.

    The result of the retries is a model or our error.
    """
    noted = False

    def passes(record: LogRecord) -> bool:
        nonlocal noted
        if not any(words in record.getMessage() for words in AGAIN):
            return True
        if not noted:
            watch(
                Note(
                    "The Hugging Face Hub does not answer; trying again for up to half a minute. With HF_HUB_OFFLINE=1 "
                    "only the cache is searched."
                )
            )
        noted = True
        return False

    from huggingface_hub.utils import logging as hub

    client = hub.get_logger(CLIENT)
    client.addFilter(passes)
    try:
        yield
    finally:
        client.removeFilter(passes)


def _own_tokenizer(name: str, where: dict[str, Any], watch: Watch) -> Tokenizer | None:
    """The model's own tokenizer; None for a folder without one, and, with a Note, for a model of the Hub without."""
    from transformers import AutoTokenizer

    folder = Path(name)
    if folder.is_dir():
        here = any(found for pattern in TOKENIZER_FILES for found in folder.glob(pattern))
        return HubTokenizer(AutoTokenizer.from_pretrained(name, **where)) if here else None
    try:
        return HubTokenizer(AutoTokenizer.from_pretrained(name, **where))
    except (OSError, ValueError) as error:
        watch(Note(f"No tokenizer was found for {name}, which therefore takes token ids alone ({error})."))
        return None


@contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """Turn an error of the Hub, or of a folder, into one that says what to do."""
    from huggingface_hub import errors as hub

    try:
        yield
    except (UserError, ImportError):
        raise
    except Exception as error:  # of the Hub, of Rust readers, of strict configurations: anything may be raised
        causes = list(_chain(error))

        def has(*kinds: type[BaseException]) -> bool:
            return any(isinstance(cause, kinds) for cause in causes)

        if has(hub.GatedRepoError):
            advice = f"It is gated: ask for access at https://huggingface.co/{name}, then `hf auth login`."
        elif has(hub.RevisionNotFoundError):
            advice = f"The Hub has it, but not the revision {revision!r}. Choose a branch, tag or commit that is there."
        elif has(hub.RepositoryNotFoundError, hub.HFValidationError):
            advice = "The Hub has no such model, nor is it a folder here. Check the name; for a private one, log in."
        elif has(hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError):
            advice = "The Hub cannot be reached and it is not in the cache. Connect once, or pass a local folder."
        elif "trust_remote_code" in str(error):
            advice = "It needs code from the Hub, which is never run here. Load it yourself and pass the module."
        elif isinstance(error, OSError | ValueError):
            advice = f"{error}"
        else:
            said = " ".join(str(error).split())
            advice = f"transformers cannot read its files ({type(error).__name__}: {said}). Check them and config.json."
        near = "".join(f" Did you mean {each!r}?" for each in get_close_matches(name, packages(), n=1))
        raise UnknownModel(f"The model {name!r} was asked for and could not be loaded. {advice}{near}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
