"""The browser's server: who is answered, what is answered, and what is kept on disk."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from fake_bundle import FakeBundle, FakeLive
from starlette.testclient import TestClient

from micrographia.core.errors import Corrupt, RunLocked, UserError
from micrographia.core.store.lock import Lock
from micrographia.faces.browser import notes
from micrographia.faces.browser.app import create_app
from micrographia.faces.browser.guard import HEADER, MOST_BYTES
from micrographia.faces.browser.notes import LONGEST, Notes
from micrographia.faces.browser.serving import listening

TOKEN = "a-token"
MANY = {str(i): str(i) for i in range(20)}
HOME = "http://127.0.0.1:8000"
BUNDLES = {"one": FakeBundle(), "two": FakeBundle("L20.mlp_out", 30, 1)}


@pytest.fixture
def app(tmp_path):
    return create_app(BUNDLES, notes=tmp_path / "notes.json", live=FakeLive(), token=TOKEN)


@pytest.fixture
def client(app):
    return TestClient(app, base_url=HOME, headers={HEADER: TOKEN})


@pytest.fixture
def stranger(app):
    return TestClient(app, base_url=HOME)


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
PATHS = ("/", "/api/about", "/api/bundles/one/read", "/static/app.js", "/nowhere")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {HEADER: "another"},
        {HEADER: TOKEN, "host": "evil.example"},
        {HEADER: TOKEN, "host": "127.0.0.1.evil.example:8000"},
        {HEADER: TOKEN, "host": "127.0.0.1:8000@evil.example"},
        {HEADER: TOKEN, "origin": "https://evil.example"},
        {HEADER: TOKEN, "origin": "null"},
        {HEADER: TOKEN, "origin": "http://127.0.0.1:9"},
    ],
)
def test_strangers_are_refused_by_every_method(stranger, headers):
    for method, path in product(METHODS, PATHS):
        answer = stranger.request(method, path, headers=headers)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
        assert method == "HEAD" or list(answer.json()) == ["error"]


def test_a_request_that_another_site_made_is_refused(client):
    assert client.get("/api/about", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/api/about", headers={"sec-fetch-site": "same-origin", "origin": HOME}).status_code == 200


def test_the_address_with_the_token_leaves_a_cookie_that_no_script_reads(stranger):
    assert "set-cookie" not in stranger.get("/?token=wrong").headers
    page = stranger.get("/", params={"token": TOKEN})
    assert page.status_code == 200
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(page.headers["set-cookie"].split("; "))
    assert stranger.get("/api/about").status_code == 200
    stranger.cookies.clear()
    assert stranger.get("/api/about", params={"token": TOKEN}).status_code == 403  # at the door alone


def test_a_page_runs_its_own_scripts_alone(client):
    for path in ("/", "/api/about", "/nowhere"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert "<script>" not in client.get("/").text
    assert " style=" not in client.get("/").text
    assert client.get("/static/app.js").headers["content-type"].startswith("text/javascript")


def test_a_bundle_is_told_whole_and_latent_by_latent(client):
    about = client.get("/api/about").json()
    assert about["bundles"]["two"]["n_latents"] == 30
    assert about["live"] == {"model": "smollm2", "bundles": ["one"], "steers": True}
    assert client.get("/api/bundles/two/index").json() == BUNDLES["two"].index()
    assert client.get("/api/bundles/one/latents/17").json() == BUNDLES["one"].page(17)
    assert client.get("/api/bundles/one/tokens", params={"text": "the"}).json() == BUNDLES["one"].by_token("the")
    assert client.get("/api/compare/one/two").json() == BUNDLES["one"].compare(BUNDLES["two"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/bundles/three/index", 404),
        ("/api/bundles/..%2f..%2fetc/index", 404),
        ("/api/bundles/one/latents/120", 404),
        ("/api/bundles/one/latents/-1", 404),
        ("/api/bundles/one/latents/1e3", 422),
        ("/api/bundles/one/tokens", 422),
        ("/api/bundles/one/tokens?text=" + "x" * 101, 422),
        ("/api/compare/one/three", 404),
        ("/static/../app.py", 404),
        ("/static/..%2fapp.py", 404),
        ("/docs", 404),
        ("/openapi.json", 404),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(client, path, status):
    answer = client.get(path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].strip()


def test_a_body_too_large_is_refused_with_and_without_its_length(client):
    assert client.post("/api/bundles/one/read", content=b"x" * (MOST_BYTES + 1)).status_code == 413
    parts = (b"x" * 1000 for _ in range(MOST_BYTES // 1000 + 2))
    assert client.post("/api/bundles/one/read", content=parts).status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"text": 3}',
        b'{"latent": 1}',
        json.dumps({"text": "x" * 4001}).encode(),
        b'{"text":"a","latent":-1}',
    ],
)
def test_a_body_that_is_no_question_is_told_what_is_wrong(client, body):
    answer = client.post("/api/bundles/one/read", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]


def test_a_model_at_hand_reads_and_is_steered(client):
    found = client.post("/api/bundles/one/read", json={"text": "Mary went to the harbour", "latent": 8}).json()
    assert found["tokens"][-1] == " harbour"
    assert [latent for latent, _ in found["latents"]] == [8]
    said = client.post("/api/bundles/one/steer", json={"latent": 8, "strength": 4.0, "prompt": "Once"}).json()
    assert list(said) == ["plain", "steered", "random"]
    assert client.post("/api/bundles/one/steer", json={"latent": 8, "strength": 1e9, "prompt": ""}).status_code == 422
    assert client.post("/api/bundles/one/read", json={"text": "a", "latent": 999}).status_code == 404


def test_without_a_model_the_answer_says_how_to_start_with_one(tmp_path, client):
    bare = create_app(BUNDLES, notes=tmp_path / "notes.json", live=None, token=TOKEN)
    for each, name in ((TestClient(bare, base_url=HOME, headers={HEADER: TOKEN}), "one"), (client, "two")):
        answer = each.post(f"/api/bundles/{name}/read", json={"text": "a"})
        assert answer.status_code == 409
        assert "--model" in answer.json()["error"]


def test_notes_are_kept_in_one_file_and_come_back(client, tmp_path):
    def put(text, latent=7):
        path, kind = f"/api/bundles/one/latents/{latent}/note", {"content-type": "application/json"}
        return client.put(path, content=json.dumps({"text": text}), headers=kind)

    assert put("ends of clauses").status_code == 200
    assert put("half a letter: \ud83d", 8).status_code == 200
    assert put("no such latent", 999).status_code == 404
    assert put("x" * (LONGEST + 1)).status_code == 422
    assert client.get("/api/notes").json() == {"one": {"7": "ends of clauses", "8": "half a letter: ?"}}
    assert Notes(tmp_path / "notes.json").all() == client.get("/api/notes").json()
    put(" ")
    assert list(client.get("/api/notes").json()["one"]) == ["8"]


def test_answers_are_sent_at_once():
    """asyncio turns Nagle's algorithm off where a socket is named TCP; with it an answer waits 40 ms."""
    with listening(0) as at:
        assert at.proto == socket.IPPROTO_TCP


def test_two_browsers_of_one_folder_keep_each_others_notes(tmp_path):
    path = tmp_path / "notes.json"
    one, other = Notes(path), Notes(path)
    one.put("a", 1, "first")
    other.put("a", 2, "second")
    one.put("b", 3, "third")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: Notes(path).put("c", i, str(i)), range(20)))
    assert one.all() == other.all() == {"a": {"1": "first", "2": "second"}, "b": {"3": "third"}, "c": dict(MANY)}
    assert [each.name for each in tmp_path.iterdir()] == ["notes.json"]


def test_a_file_of_notes_that_another_browser_writes_for_long_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(notes, "PATIENCE", 0.05)
    held = Lock.take(tmp_path, ".notes.json.lock")
    with pytest.raises(RunLocked, match="writing there"):
        Notes(tmp_path / "notes.json").put("a", 1, "mine")
    held.release()


@pytest.mark.parametrize("text", ["{", "[]", '{"notes": {"one": [1]}}', '{"notes": {"one": {"7": 3}}}'])
def test_notes_that_cannot_be_read_are_left_as_they_are(tmp_path, text):
    (tmp_path / "notes.json").write_text(text, encoding="utf-8")
    with pytest.raises(Corrupt):
        create_app(BUNDLES, notes=tmp_path / "notes.json", live=None, token=TOKEN)
    assert (tmp_path / "notes.json").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "a?b"])
def test_a_name_that_no_address_can_hold_is_refused(tmp_path, name):
    with pytest.raises(UserError):
        create_app({name: BUNDLES["one"]}, notes=tmp_path / "notes.json", live=None, token=TOKEN)
