"""Any unmodified Hugging Face model as a Model: the only package that uses transformers and the Hub.

`load` loads a model, `Pretrained` runs, observes and edits it, `families` is the table of module paths.
"""

from micrographia.core.pretrained.load import load
from micrographia.core.pretrained.model import Pretrained

__all__ = ["Pretrained", "load"]
