"""The pages as plain files: modules as one script, data that hand themselves over, nothing else changed."""

import json
import re

import pytest
from fake_bundle import HOSTILE, FakeBundle

from micrographia.core.errors import BadBundle, CannotWrite, RunExists
from micrographia.core.store import atomic
from micrographia.faces.browser.export import CHUNK, export, handed_over, one_script
from micrographia.faces.browser.sources import static_files

BUNDLES = {"one": FakeBundle(n=40), "two": FakeBundle("L20.mlp_out", 30, 1)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(BUNDLES, tmp_path_factory.mktemp("export") / "pages", notes={"one": {"7": "mine"}}).parent


def given(path):
    key, value = re.fullmatch(r'micrographia\.give\("([^"]+)",(.*)\);\n', path.read_text("ascii")).groups()
    return key, json.loads(value)


def test_every_latent_is_in_one_file_of_data(exported):
    files = sorted((exported / "data" / "one").glob("latents-*.js"))
    pages = {latent: page for each in files for latent, page in given(each)[1].items()}
    assert pages == {str(latent): BUNDLES["one"].page(latent) for latent in range(40)}
    assert len(files) == -(-40 // CHUNK)


def test_all_that_a_page_asks_for_is_there_under_its_own_key(exported):
    data = exported / "data"
    keys = {given(path)[0] for path in data.rglob("*.js")}
    assert keys == {path.relative_to(data).with_suffix("").as_posix() for path in data.rglob("*.js")}
    assert {"about", "notes", "one/index", "one/tokens", "two/index", "compare/one--two", "compare/two--one"} <= keys
    assert given(data / "about.js")[1]["chunk"] == CHUNK
    assert given(data / "notes.js")[1] == {"one": {"7": "mine"}}


def test_the_page_names_files_beside_it_alone(exported):
    page = (exported / "index.html").read_text("utf-8")
    assert re.findall(r'(?:src|href)="([^"#]+)"', page) == ["data:,", "style.css", "browser.js"]
    assert 'type="module"' not in page
    assert "connect-src" not in page  # default-src 'none' holds
    script = (exported / "browser.js").read_text("utf-8")
    assert not re.search(r"^\s*(import|export)\b|https?://(?!www\.w3\.org/2000/svg)", script, re.MULTILINE)


def test_an_export_may_be_written_again_but_not_over_other_files(tmp_path):
    first, other = tmp_path / "first", tmp_path / "other"
    export(BUNDLES, first)
    export({"one": BUNDLES["one"]}, first)
    assert {each.name for each in (first / "data").iterdir()} == {"about.js", "notes.js", "one"}
    assert [each.name for each in tmp_path.iterdir()] == ["first"]
    (first / "data" / "thesis.txt").write_text("mine", encoding="utf-8")
    other.mkdir()
    assert export({"one": BUNDLES["one"]}, other) == other / "index.html"
    (other / "browser.js").write_text("mine", encoding="utf-8")
    for folder in (first, other):
        with pytest.raises(RunExists, match="holds other files"):
            export(BUNDLES, folder)
    with pytest.raises(RunExists, match="is a file"):
        export(BUNDLES, other / "browser.js")
    assert (other / "browser.js").read_text("utf-8") == (first / "data" / "thesis.txt").read_text("utf-8") == "mine"


def test_an_export_that_fails_leaves_the_earlier_one(tmp_path):
    class Torn(FakeBundle):
        def tokens(self):
            raise BadBundle("torn")

    export({"one": BUNDLES["one"]}, tmp_path / "pages")
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    with pytest.raises(BadBundle):
        export({"one": BUNDLES["two"], "two": Torn()}, tmp_path / "pages")
    with pytest.raises(BadBundle):
        export({"two": Torn()}, tmp_path / "new")
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == before
    assert not (tmp_path / "new").exists()


def test_an_export_that_cannot_take_its_place_puts_the_earlier_one_back(tmp_path, monkeypatch):
    export({"one": BUNDLES["one"]}, tmp_path / "pages")
    rename = atomic._rename

    def failing(source, target):
        if target == tmp_path / "pages" and not source.name.endswith("-before"):
            raise OSError("busy")
        rename(source, target)

    monkeypatch.setattr(atomic, "_rename", failing)
    with pytest.raises(CannotWrite):
        export({"two": BUNDLES["two"]}, tmp_path / "pages")
    assert [each.name for each in tmp_path.iterdir()] == ["pages"]
    assert (tmp_path / "pages" / "data" / "one").is_dir()


def test_data_are_letters_that_no_encoding_changes():
    text = handed_over("a", [HOSTILE, "\u2028", "\ud83d"]).decode("ascii")
    assert json.loads(text.removeprefix('micrographia.give("a",').removesuffix(");\n")) == [HOSTILE, "\u2028", "\ud83d"]


@pytest.mark.parametrize(
    "modules",
    [
        {"app.js": 'import { a } from "./a.js";\n', "a.js": 'import { b } from "./app.js";\nexport const a = 1;\n'},
        {"app.js": 'import * as a from "./a.js";\n', "a.js": ""},
        {"app.js": "export default 3;\n"},
        {"app.js": 'import { a as b } from "./a.js";\nexport { b };\n', "a.js": "export const a = 1;\n"},
    ],
    ids=["a circle", "a whole module", "a default", "a list"],
)
def test_a_form_of_import_that_is_not_known_is_no_script(modules):
    with pytest.raises(AssertionError):
        one_script({name: text.encode() for name, text in modules.items()})


def test_no_page_makes_markup_of_text():
    for name, text in static_files().items():
        assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            name
        )
