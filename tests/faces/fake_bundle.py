"""A bundle made up on the spot, with the methods of a real one: what the browser is tested on."""

import math
import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from micrographia.core.errors import UserError

TEXT = (
    "The harbour was quiet when the first boats of the morning came in, and nobody on the old stone wall spoke of the "
    "storm. \n Mary counted nineteen of them before the fog closed over the water and the bell of the church began to "
    "ring. It was the third day of the week, the day of the market, and the smell of bread came up the hill."
)
HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = ("after ' of'", "numbers", "' the' before a place", "ends of sentences", "", "the sea", "verbs of the past")


class FakeBundle:
    """`n` latents; number 3 is dead, the tokens of number 5 are hostile, the label of number 8 is mostly wrong."""

    def __init__(self, name: str = "L12.resid_post", n: int = 120, seed: int = 0) -> None:
        self.name, self.n, self.seed = name, n, seed
        self.words = [word if word == "\n" else f" {word}" for word in TEXT.split(" ")]

    @property
    def about(self) -> dict[str, Any]:
        return {
            "name": self.name, "model": "smollm2", "site": self.name, "n_latents": self.n, "d_in": 576, "dead": 1,
            "n_tokens": 1_000_000, "n_rows": 7_812, "format": 1, "weights": None,
            **({} if self.seed else {"first_token": "left out"}),
        }  # fmt: skip

    def index(self) -> dict[str, list[Any]]:
        return {name: list(column) for name, column in self._index.items()}

    def page(self, latent: int) -> dict[str, Any]:
        if not 0 <= latent < self.n:
            raise UserError(f"Asked for latent {latent}. There are 0 to {self.n - 1}.")
        own, dice = {name: column[latent] for name, column in self._index.items()}, self._dice(latent)
        dead, largest = own["dead"], own["max"]
        counts = [] if dead else [round(900 * math.exp(-i / 4) + dice.random() * 9) for i in range(24)]
        others = dice.sample(range(self.n), 16)
        names = ["top", *(f"quantile {i} of 5" for i in range(1, 6))]
        return {
            "latent": latent, "label": own["label"], "label_kind": "previous token" if own["label"] else "",
            "precision": own["precision"], "recall": None if dead else 0.68, "density": own["density"],
            "n_fires": sum(counts), "max": largest, "dead": dead,
            "histogram": {"edges": [largest * i / 24 for i in range(25)] if counts else [], "counts": counts},
            "logits": {
                "positive": [[self._word(dice, latent), round(1.4 - i / 9, 3)] for i in range(10)],
                "negative": [[self._word(dice, latent), round(-0.9 + i / 14, 3)] for i in range(10)],
            },
            "neighbours": [[other, round(0.62 - i / 20, 3)] for i, other in enumerate(others[:8])],
            "correlated": [[other, round(0.44 - i / 22, 3)] for i, other in enumerate(others[8:])],
            "neurons": [[dice.randrange(576), round((-1) ** i * (0.31 - i / 60), 3)] for i in range(10)],
            "groups": [] if dead else [
                {"name": name, "passages": [self._passage(dice, latent, largest * (1 - place / 6)) for _ in range(6)]}
                for place, name in enumerate(names)
            ],
        }  # fmt: skip

    def pages(self, latents: Sequence[int]) -> list[dict[str, Any]]:
        return [self.page(latent) for latent in latents]

    def by_token(self, text: str) -> list[dict[str, Any]]:
        words = sorted({word for word in self.words if text in word}, key=lambda word: (word.strip() != text, word))
        return [
            {"token": word, "latents": [[(7 * i + j * 5 + 1) % self.n, round(4 - j / 2, 2)] for j in range(6)]}
            for i, word in enumerate(words)
        ]

    def tokens(self) -> list[dict[str, Any]]:
        return self.by_token("")

    def compare(self, other: "FakeBundle") -> dict[str, Any]:
        dice = random.Random(self.seed * 31 + other.seed)
        pairs = [[dice.randrange(other.n), round(dice.betavariate(4, 2), 3)] for _ in range(self.n)]
        return {"cosine": pairs, "correlation": [[latent, round(value * 0.8, 3)] for latent, value in pairs]}

    @cached_property
    def _index(self) -> dict[str, list[Any]]:
        dice, n = self._dice(-1), self.n
        dead = [latent == 3 for latent in range(n)]
        return {
            "latent": list(range(n)),
            "density": [0.0 if each else 10 ** dice.uniform(-5.5, -1.2) for each in dead],
            "max": [0.0 if each else round(dice.uniform(1, 9), 3) for each in dead],
            "label": ["" if each else NAMES[i % len(NAMES)] for i, each in enumerate(dead)],
            "precision": [None if each else 0.4 if i == 8 else 0.91 for i, each in enumerate(dead)],
            "accuracy": [None if each or not NAMES[i % len(NAMES)] else 0.8 for i, each in enumerate(dead)],
            "dead": dead,
        }

    def _dice(self, latent: int) -> random.Random:
        return random.Random(1_000 * self.seed + latent)

    def _word(self, dice: random.Random, latent: int) -> str:
        return HOSTILE if latent == 5 else dice.choice(self.words)

    def _passage(self, dice: random.Random, latent: int, peak: float) -> dict[str, Any]:
        start = dice.randrange(len(self.words) - 33)
        tokens, at = self.words[start : start + 32], dice.randrange(8, 24)
        values = [0.0] * 32
        for i in dice.sample(range(32), 4):
            values[i] = round(dice.random() * peak * 0.7, 3)
        values[at] = round(peak, 3)
        if latent == 5:
            tokens = [*tokens[:at], HOSTILE, *tokens[at + 1 :]]
        return {"tokens": tokens, "values": values, "at": at, "row": dice.randrange(7_812), "pos": at}


class FakeLive:
    """A model that says its prompt again. It fires by the length of words."""

    names = frozenset({"one"})

    def about(self) -> dict[str, Any]:
        return {"model": "smollm2", "bundles": sorted(self.names), "steers": True}

    def read(self, name: str, text: str, latent: int | None = None) -> dict[str, Any]:
        tokens = [f" {word}" for word in text.split()]
        rows = [[max(0.0, len(word) - i / 2 - 3) for word in tokens] for i in range(12)]
        latents = [[7 * i + 1, row] for i, row in enumerate(rows)]
        return {"tokens": tokens, "latents": latents if latent is None else [[latent, rows[latent % 12]]]}

    def steer(self, name: str, latent: int, strength: float, prompt: str, tokens: int) -> dict[str, str]:
        said = " and the boats went out again before the bell rang, one after the other"
        return {"plain": said, "steered": " of the sea and of the wind and of the sea of", "random": said[::-1]}
