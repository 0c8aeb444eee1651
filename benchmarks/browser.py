"""The feature browser under load: time to a first page, pages of latents at random, and 50 clients at once.

A bundle of 16,384 latents of random directions in a GPT-2 of random weights is made first, which is not timed. Then
`micrographia browse` is started on it in a process of its own, and timed until it tells its address, which is nearly
all the import of torch. The first page is timed from there: the frame, the index of all latents and a latent's page, as
a browser asks for them. Latents' pages are then asked for one after the other on one connection, and by 50 threads of
this process at once, each on its own connection and without a pause. All of it is on the loopback interface, and
nothing is drawn.

Usage: uv run python benchmarks/browser.py [--clients 50] [--pages 400]
"""

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from feature_bundle import SITE as READ
from feature_bundle import SIZES, SMOKE, Built, dictionary_of, module_of
from recording import Record, arguments, parse

from micrographia.core.pretrained import load
from micrographia.core.runtime import generator, settings

ROWS = 128
"""Of the bundle's text: enough that nearly every latent fires."""
TARGETS = {"first_page": 1.0, "page_95": 0.15, "clients_95": 1.0}
NAME = "bundle"


class Client:
    """One connection that is kept, with the cookie of the first answer."""

    def __init__(self, url: str, cookie: str = "") -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        self.cookie, self.first = cookie, f"{parts.path or '/'}?{parts.query}"

    def get(self, path: str) -> bytes:
        """Raises SystemExit for anything but an answer."""
        self.connection.request("GET", path, headers={"Cookie": self.cookie} if self.cookie else {})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path} was answered with {answer.status}: {content[:200]!r}")
        self.cookie = self.cookie or (answer.getheader("Set-Cookie") or "").split(";")[0]
        return content

    def page(self, latent: int) -> float:
        """Seconds until a latent's page is read."""
        start = time.perf_counter()
        content = self.get(f"/api/bundles/{NAME}/latents/{latent}")
        seconds = time.perf_counter() - start
        assert json.loads(content)["latent"] == latent
        return seconds

    def close(self) -> None:
        self.connection.close()


def build(place: Path, sizes: Mapping[str, int]) -> None:
    model = load(module_of(sizes))
    tokens = torch.randint(1, sizes["vocab"], (sizes["rows"], sizes["n_ctx"]), generator=generator(0))
    x = model.run(tokens[:8], keep=READ, stop=READ).cache[READ].flatten(0, 1)
    Built(dictionary_of(sizes, x), model, tokens, place, labels=True).run(sizes["latents"])


@contextmanager
def served(place: Path) -> Iterator[tuple[str, float]]:
    """The address of the command that serves this folder, and the seconds until it told it."""
    command = [sys.executable, "-m", "micrographia", "browse", str(place), "--no-open", "--json"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        told = ""
        while not told.strip().endswith("}"):
            line = server.stdout.readline()
            if not line:
                raise SystemExit("`micrographia browse` ended before it served anything.")
            told += line
        try:
            yield json.loads(told)["address"], time.perf_counter() - start
        finally:
            server.terminate()


def first_page(client: Client) -> None:
    """What a browser asks for until a latent is shown, but for scripts and styles."""
    client.get(client.first)
    bundles = json.loads(client.get("/api/about"))["bundles"]
    assert list(bundles) == [NAME]
    client.get(f"/api/bundles/{NAME}/index")
    client.page(0)


def together(url: str, cookie: str, chosen: list[list[int]]) -> tuple[list[float], float]:
    """Seconds of every page of as many clients as there are lists of latents, and of all of it."""

    def work(latents: list[int]) -> list[float]:
        client = Client(url, cookie)
        found = [client.page(latent) for latent in latents]
        client.close()
        return found

    start = time.perf_counter()
    with ThreadPoolExecutor(len(chosen)) as pool:
        found = [seconds for each in pool.map(work, chosen) for seconds in each]
    return found, time.perf_counter() - start


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median": float(np.median(seconds)), "95th": float(np.quantile(seconds, 0.95)), "largest": max(seconds)}


def measure(chosen: Any, record: Record, place: Path) -> None:
    sizes = {**SMOKE} if chosen.smoke else {**SIZES, "rows": ROWS}
    clients, pages = (4, 8) if chosen.smoke else (chosen.clients, chosen.pages)
    build(place / NAME, sizes)
    record.put(sizes=sizes, clients=clients, pages=pages)
    latents = torch.randint(sizes["latents"], (pages + clients * pages // 8,), generator=generator(3)).tolist()
    with served(place) as (url, started):
        client = Client(url)
        start = time.perf_counter()
        first_page(client)
        first = time.perf_counter() - start
        alone = [client.page(latent) for latent in latents[:pages]]
        shares = [latents[pages + i :: clients] for i in range(clients)]
        at_once, took = together(url, client.cookie, shares)
        client.close()
    found = {
        "started": started,
        "first_page": first,
        "page": spread(alone),
        "clients": {**spread(at_once), "pages_a_second": len(at_once) / took},
    }
    told = {"first_page": first, "page_95": found["page"]["95th"], "clients_95": found["clients"]["95th"]}
    print(f"started: {started:.3f} s")
    for name, seconds in told.items():
        met = "" if chosen.smoke else f", target {TARGETS[name]} s: {'met' if seconds <= TARGETS[name] else 'NOT MET'}"
        print(f"{name}: {seconds:.3f} s{met}")
    record.finish(seconds=found, targets=TARGETS)


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=50, help="connections at once")
    parser.add_argument("--pages", type=int, default=400, help="pages of one connection; an eighth for each of many")
    chosen = parse(parser)
    with settings(chosen.threads), tempfile.TemporaryDirectory() as place:
        measure(chosen, Record("browser", chosen), Path(place))


if __name__ == "__main__":
    main()
