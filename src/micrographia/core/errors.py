"""Every error a user can meet, as one tree.

    MicrographiaError
    ├── UserError (also ValueError)      what was asked cannot be done as asked
    │   ├── UnknownSite  BadEdit  BadShape  BadConfig  BadPrompt
    │   ├── UnknownModel                 a model that cannot be loaded or of no known family
    │   ├── UnreadableWeights            a state dict of no known layout
    │   └── PickleRefused                a pickle that nobody allowed
    ├── StoreError                       files: what was there is still there
    │   ├── RunExists  RunLocked  RunNotFound
    │   ├── Corrupt                      a hash, size or schema that does not fit
    │   └── CannotWrite (also OSError)   full disk, read-only folder
    ├── NonFiniteLoss                    training stopped; names step and last good checkpoint
    ├── Interrupted                      stopped by the user; resume goes on
    └── MissingExtra (also ImportError)  names the extra to install

Messages follow one grammar: what was asked, what was found, what to do.
"""


class MicrographiaError(Exception):
    """The root of the tree; catching it catches everything this package raises on purpose."""


class UserError(MicrographiaError, ValueError):
    """What was asked cannot be done as it was asked."""


class UnknownSite(UserError):
    """A text that is no Site, or a Site that this model does not have."""


class BadEdit(UserError):
    """An intervention whose shape, dtype or selection does not fit the activation."""


class BadShape(UserError):
    """A tensor of another shape than the one stated."""


class BadConfig(UserError):
    """A choice outside its range, or two choices that exclude each other."""


class BadPrompt(UserError):
    """A text or answer that this model's tokenizer cannot read, or prompts that do not line up."""


class UnknownModel(UserError):
    """A model that is not to be had, or of a family that nobody described yet."""


class UnreadableWeights(UserError):
    """A file of weights in no layout that is known here."""


class PickleRefused(UserError):
    """A pickle runs code when it is loaded; it is refused unless the user allows the named file."""


class StoreError(MicrographiaError):
    """Something about files. What was there before is still there."""


class RunExists(StoreError):
    """The chosen folder already holds a Run."""


class RunLocked(StoreError):
    """Another live process writes to this Run."""


class RunNotFound(StoreError):
    """No Run has this path or prefix."""


class Corrupt(StoreError):
    """A file that was altered, cut short, or written by an unknown version."""


class CannotWrite(StoreError, OSError):
    """The disk is full, or the folder is read-only."""


class NonFiniteLoss(MicrographiaError):
    """The loss became NaN or infinite."""


class Interrupted(MicrographiaError):
    """The user stopped the work; what was done is saved and can be resumed."""


class MissingExtra(MicrographiaError, ImportError):
    """An optional library is not installed; the message names the extra."""
