"""Directives that draw reference pages from the package itself, so that they cannot say anything else.

`{api} MODULE`, `{fields} MODULE CLASS`, `{claims} LAB`, and `{command} WORDS`, the help of a command as it
is printed. What they show is made in `source`.
"""

import os
import subprocess
import sys

import source
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HELP_WIDTH = "86"


class FromSource(SphinxDirective):
    """Parses the Markdown that `text` gives for the directive's arguments."""

    optional_arguments = 4
    has_content = False

    def text(self, *arguments: str) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.text(*self.arguments), allow_section_headings=True)


class Api(FromSource):
    def text(self, *arguments: str) -> str:
        return source.module_page(*arguments)


class Fields(FromSource):
    def text(self, *arguments: str) -> str:
        return source.fields_table(*arguments)


class Claims(FromSource):
    def text(self, *arguments: str) -> str:
        return source.claims_table(*arguments)


class Command(SphinxDirective):
    optional_arguments = 4

    def run(self) -> list[nodes.Node]:
        command = [sys.executable, "-m", "micrographia", *self.arguments, "--help"]
        plain = {"COLUMNS": HELP_WIDTH, "NO_COLOR": "1", "PYTHONPATH": str(source.SOURCE)}
        told = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **plain})
        words = " ".join(["micrographia", *self.arguments, "--help"])
        return [nodes.literal_block("", f"$ {words}\n{told.stdout}", language="text")]


def setup(app: Sphinx) -> dict[str, bool]:
    for name, directive in {"api": Api, "fields": Fields, "claims": Claims, "command": Command}.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
