"""README keeps its word: its program runs, its table is what the stored Runs say, its commands and flags exist."""

import json
import re
import tomllib
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from micrographia.faces.cli.commands import COMMANDS as COMMAND_TABLE
from micrographia.faces.cli.commands import find
from micrographia.faces.cli.main import main
from micrographia.labs.catalogue import LABS
from micrographia.labs.grokking.sweep.config import plan_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")}
TEXTS = {"README.md": README, **{name: text for name, text in PAGES.items() if "_build" not in name}}


@pytest.fixture
def maker(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import make_claims_table  # a script, no package

    return make_claims_table


def test_readmes_program_prints_published_beside_measured(tmp_path, monkeypatch, capsys):
    program, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(program.strip().splitlines()) <= 12
    assert "quick" in program
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path))
    exec(compile(program.replace("quick", "tiny"), "README.md", "exec"), {})
    assert re.search(r"published .+, measured .+: (holds|fails|not run)", capsys.readouterr().out)


def test_the_tables_are_what_the_stored_runs_say(maker):
    for page, make in maker.PAGES.items():
        text = page.read_text(encoding="utf-8")
        assert maker.with_table(text, make(maker.RESULTS)) == text


def test_readme_shows_at_most_a_dozen_claims_and_some_that_fail(maker):
    rows = maker.headlines(maker.RESULTS).splitlines()[2:]
    assert len(rows) <= 12
    assert any(row.endswith("*fails* |") for row in rows)
    assert not any(maker.NOT_RUN in row for row in rows)


def test_the_table_takes_its_numbers_from_stored_runs_and_says_what_was_not_run(maker, tmp_path):
    claim = {
        "id": "loss",
        "text": "It is small.",
        "source": "S",
        "published": 0.5,
        "kind": "below",
        "presets": ["paper"],
    }
    claim |= {"tolerance": 0.0, "relative": False}
    assert maker.table([claim], tmp_path, "one").endswith("| It is small. | S | below 0.5 | – | not run | – |")
    runs = (
        ("0", "other", "fails", 7.0),
        ("1", "one", "not run", 9.0),
        ("2", "one", "fails", 0.75),
        ("3", "one", "holds", 0.1),
    )
    for name, lab, verdict, measured in runs:
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"lab": lab, "preset": "paper-short"}))
        record = {"claims": [{**claim, "measured": measured, "verdict": verdict}]}
        (tmp_path / name / "claims.json").write_text(json.dumps(record))
    assert maker.table([claim], tmp_path, "one").endswith("| below 0.5 | – | 0.75: *fails* | – |")


def stored_claim(path: Path, **changes: object) -> None:
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"lab": "one", "preset": "quick"}))
    record = {"id": "x", "source": "S", "text": "It is so.", "published": 0.0, "kind": "above", "tolerance": 0.0}
    record |= {"relative": False, "verdict": "holds", **changes}
    (path / "claims.json").write_text(json.dumps({"claims": [record]}))


def test_the_table_shows_the_null_the_ends_over_networks_and_where_they_show_no_difference(maker, tmp_path):
    claim = {"id": "x", "source": "S", "text": "It is so.", "published": 0.0, "kind": "above", "tolerance": 0.0}
    claim |= {"relative": False, "presets": ["quick"], "null": "chance"}
    ends = {"median": 0.25, "low": -0.5, "high": 0.5}
    stored_claim(tmp_path / "0", measured=ends, null_measured=0.125)
    row = maker.table([claim], tmp_path, "one").splitlines()[-1]
    assert row.endswith("| 0.25 (-0.5 to 0.5): *holds*, no difference | – | chance: 0.125 (`quick`) |")


def test_a_verdict_by_another_bound_does_not_count_and_one_in_other_words_does(maker, tmp_path):
    claim = {"id": "x", "source": "S", "text": "It is so.", "published": 0.0, "kind": "above", "tolerance": 0.0}
    claim |= {"relative": False, "presets": ["quick"]}
    stored_claim(tmp_path / "0", measured=0.25, text="It is so, in other words.")
    assert maker.table([claim], tmp_path, "one").endswith("| 0.25: *holds* | – | – |")
    assert maker.table([claim | {"published": 0.5}], tmp_path, "one").endswith("| not run | – | – |")


def test_a_readme_without_the_markers_is_refused(maker):
    with pytest.raises(SystemExit, match="claims:begin"):
        maker.with_table("# nothing here", "| a |")


def asked_for(text: str) -> set[tuple[str, ...]]:
    """The words after `micrographia` in code, whole lines and inline."""
    lines = re.findall(
        r"(?m)^(?:\$ |.*?uv run )?micrographia (.*)$", "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL))
    )
    lines += re.findall(r"`(?:uv run )?micrographia ([^`]*)`", text)
    return {tuple(re.split(r"[ |\\;]+", line.split(" | ")[0].strip())) for line in lines}


COMMANDS = sorted({words for text in TEXTS.values() for words in asked_for(text) if words != ("COMMAND",)})


@cache
def help_of(command: str) -> str:
    """What a command prints about itself, in wide lines."""
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(StringIO()) as told:
        patched.setenv("COLUMNS", "200")
        assert main([*command.split(), "--help"]) == 0
    return told.getvalue()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_flag_that_is_told_of_exists(words):
    command, _ = find(words)
    if command is None:
        assert words[0] in ("--help", "--version", "COMMAND"), f"micrographia {' '.join(words)}"
        return
    told = help_of(" ".join(words[:2]) if command.name == "lab" and len(words) > 1 else command.name)
    for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{re.escape(flag)}\b", told), f"{flag} is no flag of {command.name}"


def test_a_flag_that_does_not_exist_would_be_noticed():
    with pytest.raises(AssertionError, match="--no-such-flag"):
        test_every_command_and_flag_that_is_told_of_exists(("grok", "--no-such-flag"))


def test_every_flag_in_a_table_or_sentence_is_some_commands():
    told = "".join(help_of(command.name) for command in COMMAND_TABLE)
    told += "".join(help_of(f"lab {each.name}") for each in LABS)
    named = {flag for text in TEXTS.values() for flag in re.findall(r"`(--[a-z][\w.-]*)", text)}
    named = {flag.replace("--base.", "--") for flag in named}  # a base's fields are those of `grok`, as its help says
    assert len(named) > 10
    assert sorted(flag for flag in named if not re.search(rf"{re.escape(flag)}\b", told) and flag != "--help") == []


def test_the_plan_in_the_documentation_is_a_plan():
    (plan,) = re.findall(r"```toml\n(.*?)```", PAGES["docs/howto/sweep.md"], re.DOTALL)
    assert plan_of(tomllib.loads(plan)).seeds == (0, 1, 2, 3, 4)


def test_every_linked_file_of_readme_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_lock_file_names_the_public_index_alone():
    hosts = set(re.findall(r'https?://([^/"]+)', (ROOT / "uv.lock").read_text(encoding="utf-8")))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_the_lock_file_answers_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    (own,) = [package["metadata"] for package in lock["package"] if package["name"] == project["project"]["name"]]
    extras = project["project"]["optional-dependencies"].values()
    asked = [*project["project"]["dependencies"], *(each for extra in extras for each in extra)]
    assert locked(own["requires-dist"]) == sorted(map(without_extra, asked)), "run `uv lock`"
    for group, packages in project["dependency-groups"].items():
        assert locked(own["requires-dev"][group]) == sorted(map(without_extra, packages)), "run `uv lock`"


def locked(packages: list[dict[str, str]]) -> list[str]:
    return sorted(f"{each['name']}{each.get('specifier', '')}" for each in packages)


def without_extra(requirement: str) -> str:
    return re.sub(r"\[.*\]", "", requirement)
