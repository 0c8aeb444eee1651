"""Sphinx, MyST and Furo, with nothing fetched: formulas become MathML, reference pages are read off the source."""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "_ext"), str(ROOT / "src")]

project = "micrographia"
author = "The micrographia authors"
copyright = author
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "mathml", "from_source"]
exclude_patterns = ["_build", "_ext", "results/**"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
highlight_language = "python"

html_theme = "furo"
html_title = "micrographia"
html_copy_source = False
html_show_sphinx = False
