"""The programs of the pages for newcomers run as they stand, on a miniature GPT-2."""

import re
from pathlib import Path

import pytest
import torch

import micrographia as mg
from micrographia.core.sites import LENS_LAYERLESS, LENS_NAMES, Site
from miniature import CLEAN, CORRUPT, save_gpt2

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PAGES = {
    name: (HOWTO / name).read_text(encoding="utf-8")
    for name in ("dictionaries.md", "from-transformerlens.md", "probe.md", "steer.md")
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mg.load(save_gpt2(tmp_path_factory.mktemp("gpt2")))


@pytest.mark.parametrize("page", PAGES)
def test_the_programs_of_a_page_run(page, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    programs = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    assert programs
    names = {"mg": mg, "torch": torch, "model": model, "text": [f"{CLEAN} then {CORRUPT}"] * 20}
    text = "\n".join(programs)
    for word in ("I love this", "I hate this"):  # words that the miniature's vocabulary lacks
        text = text.replace(word, {"I love this": "Mary went", "I hate this": "John gave"}[word])
    exec(compile(text, page, "exec"), names)


def test_the_table_names_what_there_is(model):
    rows = [row for row in PAGES["from-transformerlens.md"].splitlines() if row.startswith("| ")]
    ours = " ".join(row.split(" | ")[1] for row in rows)
    facade = set(re.findall(r"mg\.(\w+)", ours))
    assert {"load", "patch", "path_patch", "lens", "ablate", "head_scores", "generate"} <= facade <= set(dir(mg))
    for name in set(re.findall(r"model\.(\w+)", ours)):
        assert hasattr(model, name), name
    for hook, kind in LENS_NAMES.items():
        assert Site.parse(f"blocks.3.{hook}") == Site(kind, 3)
    for hook, kind in LENS_LAYERLESS.items():
        assert Site.parse(hook) == Site(kind)
