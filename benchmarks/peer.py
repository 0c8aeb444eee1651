"""A peer in a process and an environment of its own: it is sent a line of words and answers one.

It prints "ready ..." once it has loaded, then "done ..." for each line; what else its libraries print is passed over.
It finds its settings in config.json and its arrays in <name>.npz of the folder that is its only argument.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

QUIET = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


class Peer:
    """A running worker. `ready` holds what it said of itself, its versions first."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, name: str) -> None:
        self._process, self._folder, self._name = process, folder, name
        self.ready = self._answer("ready")

    def ask(self, *words: object) -> list[str]:
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        return self._answer("done")

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """What it wrote to <name>.npz."""
        return dict(np.load(self._folder / f"{name}.npz"))

    def _answer(self, word: str) -> list[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said, *rest = line.split() or [""]
            if said == word:
                return rest
        raise SystemExit(f"Waited for {word!r} from {self._name}; its process ended. What it said stands above.")


@contextmanager
def peer(
    python: Path,
    script: str,
    config: Mapping[str, Any],
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    fill: Callable[[Path], object] | None = None,
) -> Iterator[Peer]:
    """The neighbour `script` under another Python, until the block ends; `fill` may put more into its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for key, each in arrays.items():
            np.savez(folder / f"{key}.npz", **each)
        if fill is not None:
            fill(folder)
        command = [str(python), str(Path(__file__).parent / script), name]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **QUIET}
        )
        try:
            yield Peer(process, folder, script)
        finally:
            process.kill()
            process.communicate()  # closes its pipes, too
