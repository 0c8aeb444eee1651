"""Any unmodified Hugging Face model as a Model: the only place that knows transformers and the Hub.

`load` finds a model, `Pretrained` runs it under the microscope, `families` is the table of what is where in each.
"""

from micrographia.core.pretrained.load import load
from micrographia.core.pretrained.model import Pretrained

__all__ = ["Pretrained", "load"]
