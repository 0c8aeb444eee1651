"""The reference pages show the package as it is: every module has its place, and every docstring's example runs."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
API = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference" / "api").glob("*.md"))
SHOWN = re.findall(r"```\{api\} (\S+)", API)
# Machinery behind a room's own door, of no use to a reader.
INNER = {
    f"micrographia.{room}.{name}"
    for room, names in {
        "core.store": "atomic checkpoints damage exact foreign lock manifest models ranges records shards",
        "core.pretrained": "attention checks experts files fused generation gguf gguf_header hooks hub inline "
        "modules partial_run quiet readout save stream tokenizer",
        "core.dictionaries.formats": "building circuit_tracer cross_layer dictionary_learning facets flat_yaml "
        "gemma_scope gemma_scope_2 holding llama_scope llamascopium one_layer openai places saelens saelens_flat "
        "sparsify suites writing",
        "core.sweep": "base last_layer metric_set plan writing",
        "methods.attribution": "passes",
    }.items()
    for name in names.split()
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


MODULES = sorted(module_name(path) for path in SOURCE.rglob("*.py") if path.name != "__init__.py")
EXAMPLES = [name for name in MODULES if ">>>" in (SOURCE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")]


@pytest.fixture
def source(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import source  # part of the documentation, no package

    return source


def test_every_module_of_core_and_methods_has_its_place_in_the_reference():
    floors = ("micrographia.core.", "micrographia.methods.")
    assert sorted({name for name in MODULES if name.startswith(floors)} - set(SHOWN) - INNER) == []
    assert sorted(set(SHOWN) - set(MODULES)) == []


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_names_every_public_function_of_its_module(name, source):
    page = source.module_page(name)
    public = source.public_names(name)
    assert public
    assert [each for each in public if f"### `{each}`" not in page] == []


def test_the_fields_of_a_config_are_all_described(source):
    table = source.fields_table("micrographia.labs.grokking.config", "Config")
    rows = table.splitlines()[2:]
    assert len(rows) == len(import_module("micrographia.labs.grokking.config").Config.__dataclass_fields__)
    assert not [row for row in rows if row.endswith("|  |")]


def test_the_table_of_sites_names_every_kind(source):
    from micrographia.core.sites import AXES

    assert len(source.sites_table().splitlines()) == len(AXES) + 2
    assert source.sites_table() in (ROOT / "docs" / "reference" / "sites.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_in_docstrings_are_true(name):
    failed, tried = doctest.testmod(import_module(name))
    assert tried
    assert not failed


def test_every_table_of_fields_is_of_a_class_that_there_is(source):
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    asked = [each for page in pages for each in re.findall(r"```\{fields\} (\S+) (\S+)", page)]
    assert len(asked) > 20
    assert all("| field |" in source.fields_table(*each) for each in asked)
