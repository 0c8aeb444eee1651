"""The browser's server: bundles as JSON by name and latent, the pages, notes, and a model that is at hand.

Addresses hold names and numbers that are looked up, never paths. Every error is a JSON object with one sentence. What
is asked of the model waits for its turn; everything else is answered side by side.
"""

import gzip
import json
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from micrographia.core.errors import MicrographiaError, UserError
from micrographia.faces.browser.guard import Guard
from micrographia.faces.browser.live import LONGEST_TEXT, MOST_TOKENS, LiveModel
from micrographia.faces.browser.notes import Notes
from micrographia.faces.browser.sources import KINDS, Browsed, check_names, static_files

KEPT_PAGES = 512


class NoteText(BaseModel):
    """A note as it was typed."""

    text: str


class ReadText(BaseModel):
    """A text whose latents are asked for; with `latent`, those of one alone."""

    text: str = Field(max_length=LONGEST_TEXT)
    latent: int | None = Field(default=None, ge=0)


class SteerText(BaseModel):
    """A prompt to go on with, with so much of a latent added at every token."""

    latent: int = Field(ge=0)
    strength: float = Field(ge=-1e6, le=1e6)
    prompt: str = Field(max_length=LONGEST_TEXT)
    tokens: int = Field(default=30, ge=1, le=MOST_TOKENS)


def create_app(bundles: Mapping[str, Browsed], *, notes: Path, live: LiveModel | None, token: str) -> FastAPI:
    """The pages of these bundles for whoever holds the token.

    `notes` is the file that the user's notes are kept in; `live` a model at hand, without which nothing is computed.
    Raises UserError for names that no address can hold, Corrupt for notes that cannot be read.
    """
    check_names(bundles)
    app = FastAPI(title="micrographia", docs_url=None, redoc_url=None, openapi_url=None)
    _answer_errors(app)
    _serve_pages(app)
    _serve_bundles(app, bundles)
    _serve_notes(app, bundles, Notes(notes))
    _serve_model(app, bundles, live)
    app.add_middleware(Guard, token=token)
    return app


def _serve_pages(app: FastAPI) -> None:
    files = static_files()

    @app.get("/")
    def page() -> Response:
        return Response(files["index.html"], media_type=KINDS[".html"])

    @app.get("/static/{name}")
    def asset(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, f"The browser has no file {name[:80]!r}.")
        return Response(files[name], media_type=KINDS[Path(name).suffix])


def _serve_bundles(app: FastAPI, bundles: Mapping[str, Browsed]) -> None:
    @cache
    def packed_index(name: str) -> bytes:
        return gzip.compress(as_json(bundles[name].index()), 6)

    @lru_cache(KEPT_PAGES)
    def page_of(name: str, latent: int) -> bytes:
        return as_json(bundles[name].page(latent))

    @cache
    def compared(one: str, other: str) -> bytes:
        return as_json(bundles[one].compare(bundles[other]))

    @app.get("/api/bundles/{name}/index")
    def index(name: str) -> Response:
        _named(bundles, name)
        headers = {"content-encoding": "gzip"}  # which every browser takes
        return Response(packed_index(name), media_type="application/json", headers=headers)

    @app.get("/api/bundles/{name}/latents/{latent}")
    def latent_page(name: str, latent: int) -> Response:
        _latent(bundles, name, latent)
        return _json(page_of(name, latent))

    @app.get("/api/bundles/{name}/tokens")
    def tokens(name: str, text: Annotated[str, Query(min_length=1, max_length=100)]) -> Response:
        return _json(as_json(_named(bundles, name).by_token(text)))

    @app.get("/api/compare/{one}/{other}")
    def compare(one: str, other: str) -> Response:
        _named(bundles, one)
        _named(bundles, other)
        return _json(compared(one, other))


def _serve_notes(app: FastAPI, bundles: Mapping[str, Browsed], kept: Notes) -> None:
    @app.get("/api/notes")
    def notes() -> Response:
        return _json(as_json(kept.all()))

    @app.put("/api/bundles/{name}/latents/{latent}/note")
    def put_note(name: str, latent: int, note: NoteText) -> Response:
        _latent(bundles, name, latent)
        kept.put(name, latent, note.text)
        return _json(b"{}")


def _serve_model(app: FastAPI, bundles: Mapping[str, Browsed], live: LiveModel | None) -> None:
    @app.get("/api/about")
    def about() -> Response:
        described = {name: each.about for name, each in bundles.items()}
        return _json(as_json({"bundles": described, "live": None if live is None else live.about()}))

    @app.post("/api/bundles/{name}/read")
    def read(name: str, asked: ReadText) -> Response:
        if asked.latent is not None:
            _latent(bundles, name, asked.latent)
        return _json(as_json(_loaded(bundles, name, live).read(name, asked.text, asked.latent)))

    @app.post("/api/bundles/{name}/steer")
    def steer(name: str, asked: SteerText) -> Response:
        _latent(bundles, name, asked.latent)
        model = _loaded(bundles, name, live)
        return _json(as_json(model.steer(name, asked.latent, asked.strength, asked.prompt, asked.tokens)))


def _named(bundles: Mapping[str, Browsed], name: str) -> Browsed:
    if name not in bundles:
        raise HTTPException(404, f"There is no bundle {name[:80]!r}. There are {', '.join(list(bundles)[:8])}.")
    return bundles[name]


def _latent(bundles: Mapping[str, Browsed], name: str, latent: int) -> None:
    n = _named(bundles, name).about["n_latents"]
    if not 0 <= latent < n:
        raise HTTPException(404, f"There is no latent {latent} in {name}. It has 0 to {n - 1}.")


def _loaded(bundles: Mapping[str, Browsed], name: str, live: LiveModel | None) -> LiveModel:
    _named(bundles, name)
    if live is None or name not in live.names:
        loaded = "no model is loaded" if live is None else f"the latents of {name} are not loaded with the model"
        raise HTTPException(409, f"Asked to compute, but {loaded}. Start `micrographia browse` with --model NAME.")
    return live


def _answer_errors(app: FastAPI) -> None:
    def refusal(status: Callable[[Any], int], reason: Callable[[Any], str]) -> Any:
        async def answer(_: Request, error: Any) -> Response:
            return _json(as_json({"error": reason(error)}), status(error))

        return answer

    app.add_exception_handler(HTTPException, refusal(lambda e: e.status_code, lambda e: str(e.detail)))
    app.add_exception_handler(RequestValidationError, refusal(lambda _: 422, _misfit))
    app.add_exception_handler(MicrographiaError, refusal(_status, str))


def _status(error: MicrographiaError) -> int:
    return 422 if isinstance(error, UserError) else 500


def _misfit(error: RequestValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    return f"{place}: {first['msg']}."


def as_json(content: Any) -> bytes:
    """JSON in ASCII, so that no half of a letter can break it."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")
