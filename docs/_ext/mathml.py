"""Formulas as MathML, which browsers draw by themselves: no script, no fonts, no content delivery network."""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

LOG = logging.getLogger(__name__)


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(mathml(node, node.astext(), as_block=False))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    drawn = mathml(node, node.astext(), as_block=True)
    translator.body.append(f'<div class="math">{drawn}</div>')
    raise nodes.SkipNode


def mathml(node: nodes.Element, text: str, *, as_block: bool) -> str:
    """MathML; a warning where the formula cannot be read."""
    try:
        return tex2mathml(text, as_block=as_block)
    except MathError as error:
        LOG.warning("Cannot draw the formula %r: %s", text, error, location=node)
        return text


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
