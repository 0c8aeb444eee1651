"""Lenses: what is read straight off the residual stream. Here are the names that other rooms use."""

from micrographia.methods.lens.direct import by_source, direct_logit_attribution, logit_lens
from micrographia.methods.lens.reading import StreamReading, read_stream

__all__ = ["StreamReading", "by_source", "direct_logit_attribution", "logit_lens", "read_stream"]
