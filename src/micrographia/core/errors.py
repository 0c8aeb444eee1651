"""All errors that this package raises, as one tree.

MicrographiaError
├── UserError (also ValueError)      the request cannot be carried out as given
│   ├── UnknownSite  BadEdit  BadShape  BadConfig  BadPrompt
│   ├── UnknownModel                 a model that cannot be loaded, or of an unknown family
│   ├── UnreadableWeights            a state dict in an unknown layout
│   ├── UnknownDictionary            files of no known format, or several dictionaries where one is asked for
│   ├── CannotCarry                  a dictionary that a format cannot hold
│   ├── BadBundle                    a folder that is no feature bundle, was cut short or is of another format
│   └── PickleRefused                a pickle that was not allowed
├── StoreError                       files; existing ones are unchanged
│   ├── RunExists  RunLocked  RunNotFound
│   ├── Corrupt                      a hash, size or schema that does not fit
│   ├── CannotFetch                  no package client, no network, or it failed
│   └── CannotWrite (also OSError)   full disk, read-only folder
├── NonFiniteLoss                    training stopped; names step and last good checkpoint
├── NonFiniteActivations              NaN or infinite activations; names site, rows and position
├── Interrupted                      stopped by the user; can be resumed
└── MissingExtra (also ImportError)  names the extra to install

Messages have three parts: what was requested, what was found, what to do.
"""


class MicrographiaError(Exception):
    """The root of the tree; catching it catches everything this package raises on purpose."""


class UserError(MicrographiaError, ValueError):
    """The request cannot be carried out as given."""


class UnknownSite(UserError):
    """A text that is not a Site, or a Site that this model does not have."""


class BadEdit(UserError):
    """An intervention whose shape, dtype or selection does not fit the activation."""


class BadShape(UserError):
    """A tensor with a shape other than the documented one."""


class BadConfig(UserError):
    """An option outside its range, or two options that exclude each other."""


class BadPrompt(UserError):
    """A text or answer that this model's tokenizer cannot read, or prompts that do not line up."""


class UnknownModel(UserError):
    """A model that cannot be loaded, or whose family has no row in `core.pretrained.families`."""


class UnreadableWeights(UserError):
    """A file of weights in an unknown layout."""


class UnknownDictionary(UserError):
    """Files of no known dictionary format, a name that is nowhere, or several dictionaries where one is asked for."""


class CannotCarry(UserError):
    """A dictionary that the format asked for cannot hold; the message says why."""


class BadBundle(UserError):
    """A folder that is no feature bundle, was cut short, or is of another format."""


class PickleRefused(UserError):
    """A pickle runs code when it is loaded; it is refused unless the user allows the named file."""


class StoreError(MicrographiaError):
    """An error in reading or writing files. Existing files are unchanged."""


class RunExists(StoreError):
    """The chosen folder already holds a Run."""


class RunLocked(StoreError):
    """Another live process writes to this Run."""


class RunNotFound(StoreError):
    """No Run has this path or prefix."""


class Corrupt(StoreError):
    """A file that was altered, truncated, or written by an unknown version."""


class CannotFetch(StoreError):
    """A model package could not be fetched: no package client, no network, or the client failed."""


class CannotWrite(StoreError, OSError):
    """The disk is full, or the folder is read-only."""


class NonFiniteLoss(MicrographiaError):
    """The loss became NaN or infinite."""


class NonFiniteActivations(MicrographiaError):
    """Activations are NaN or infinite."""


class Interrupted(MicrographiaError):
    """The user stopped the work; what was done is saved and can be resumed."""


class MissingExtra(MicrographiaError, ImportError):
    """An optional library is not installed; the message names the extra."""
