"""The program of the page on the stream runs as it stands, on a miniature GPT-2."""

import json
import re
from pathlib import Path

import micrographia as mg
from miniature import CLEAN, save_gpt2

PAGE = (Path(__file__).parents[2] / "docs/howto/stream.md").read_text(encoding="utf-8")
SMALLER = {"n_ctx=128": "n_ctx=16", "batch=4096": "batch=16"}  # the miniature's text is short


def test_the_program_of_the_page_runs(tmp_path, monkeypatch, capsys):
    model = mg.load(save_gpt2(tmp_path / "gpt2"))
    monkeypatch.chdir(tmp_path)
    Path("stories.jsonl").write_text("".join(json.dumps({"text": CLEAN}) + "\n" for _ in range(60)))
    program = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    for theirs, ours in SMALLER.items():
        assert theirs in program
        program = program.replace(theirs, ours)
    names = {"model": model}
    exec(compile(program, "stream.md", "exec"), names)
    assert names["x"].shape == (2, 16, 24)
    assert names["again"](3).x.shape == (16, 24)
    printed = capsys.readouterr().out
    assert "Buffer of activations" in printed
    assert "standard deviations" in printed
