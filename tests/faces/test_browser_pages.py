"""The browser's pages in a real Chromium, from the server and from files: nothing else is asked of anybody."""

import shutil
from contextlib import contextmanager
from itertools import count
from threading import Thread

import pytest
from fake_bundle import HOSTILE, FakeBundle, FakeLive

from micrographia.core.runtime import secret
from micrographia.faces.browser.app import create_app
from micrographia.faces.browser.export import export
from micrographia.faces.browser.serving import address, listening

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: the browser's pages were NOT opened")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
BUNDLES = {"one": FakeBundle(), "two": FakeBundle("L20.mlp_out", 120, 1)}
PAGES = ("", "#/one/latent/17", "#/one/latent/3", "#/one/text", "#/one/text/8", "#/one/steer/17", "#/one/compare/two",
         *(f"#/one/tour/{i}-17" for i in range(1, 7)))  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        WINDOWS.clear()
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a server, with its token."""
    import uvicorn

    token, at = secret(), listening(0)
    notes = tmp_path_factory.mktemp("notes") / "notes.json"
    app = create_app(BUNDLES, notes=notes, live=FakeLive(), token=token)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
    thread.start()
    yield address(at, token)
    server.should_exit = True
    thread.join(5)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The address of the exported page."""
    page = export(BUNDLES, tmp_path_factory.mktemp("exported") / "pages", notes={"one": {"17": "ends of clauses"}})
    return page.as_uri()


@contextmanager
def opened(chromium, url, *, dark=False, width=1280):
    """The list, on a page on which every request elsewhere, every error and every line in the console is a failure.

    A window of a kind is opened once.
    """
    kind = (url, dark, width)
    if kind not in WINDOWS:
        WINDOWS[kind] = window(chromium, *kind)
    page, wrong = WINDOWS[kind]
    turn(page, f"#/one/latents/{next(NUMBERS)}")
    yield page
    assert wrong == []


WINDOWS, NUMBERS = {}, count()


def window(chromium, url, dark, width):
    context = chromium.new_context(color_scheme="dark" if dark else "light", viewport={"width": width, "height": 800})
    page, wrong = context.new_page(), []
    inside = url.partition("?")[0].removesuffix("index.html")

    def route(asked):
        if asked.request.url.startswith((inside, "data:,")):
            return asked.continue_()
        wrong.append(f"asked {asked.request.url}")
        return asked.abort()

    context.route("**/*", route)
    page.on("pageerror", lambda error: wrong.append(f"raised {error}"))
    page.on("console", lambda line: wrong.append(f"said {line.text}"))
    page.on("requestfailed", lambda failed: wrong.append(f"failed {failed.url}"))
    page.set_default_timeout(5000)
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    return page, wrong


def turn(page, hash):
    """Go to another page, and wait until it is there."""
    before = page.get_attribute("html", "data-ready")
    page.evaluate("hash => { location.hash = hash; }", hash)
    page.wait_for_function("before => document.documentElement.dataset.ready !== before", arg=before)


def look(page, hash):
    if hash:
        turn(page, hash)
    assert page.locator("h1").count() == 1, hash
    assert page.locator("[role=alert]").count() == 0, hash
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{hash} is wider than the screen"


@pytest.mark.parametrize(
    ("kind", "dark", "width"),
    [("served", False, 1280), ("served", True, 390), ("files", True, 1280), ("files", False, 390)],
)
def test_every_page_is_drawn_and_fits(chromium, request, kind, dark, width):
    with opened(chromium, request.getfixturevalue(kind), dark=dark, width=width) as page:
        for hash in PAGES:
            look(page, hash)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(21, 24, 29)" if dark else "rgb(253, 252, 249)"
        )


def test_text_can_be_read_on_its_colours(chromium, served):
    """Contrast of text, soft text and links with the page: at least 4.5 (WCAG 2.2, 1.4.3)."""
    measure = """() => { const rgb = (node, what) => getComputedStyle(node)[what].match(/\\d+/g).slice(0, 3)
        .map((x) => { const c = x / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
      const light = (x) => 0.2126 * x[0] + 0.7152 * x[1] + 0.0722 * x[2];
      const page = light(rgb(document.body, "backgroundColor"));
      return ["h1", ".byline", ".ways a"].map((each) => { const ink = light(rgb(document.querySelector(each), "color"));
        return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05); }); }"""
    for dark in (False, True):
        with opened(chromium, served, dark=dark, width=390 if dark else 1280) as page:
            turn(page, "#/one/latent/17")
            assert min(page.evaluate(measure)) >= 4.5


def test_a_hostile_token_is_shown_and_never_run(chromium, served):
    with opened(chromium, served) as page:
        turn(page, "#/one/latent/5")
        assert HOSTILE in page.inner_text("main")
        assert page.locator("main img").count() == 0
        page.locator(".passage .token", has_text="onerror").first.hover()
        assert HOSTILE.replace(" ", "␣") in page.inner_text("#tip")


def test_by_keyboard_alone(chromium, served):
    with opened(chromium, served) as page:
        keys = page.keyboard
        page.evaluate("document.activeElement.blur()")
        keys.press("j")
        keys.press("j")
        keys.press("k")
        assert page.inner_text(".chosen .n") == "1"
        keys.press("Enter")
        page.wait_for_selector("text=latent 1")
        keys.press("n")
        page.wait_for_selector("text=latent 2")
        keys.press("p")
        page.wait_for_selector("text=latent 1")
        keys.press("/")
        page.wait_for_selector("#find:focus")
        keys.type("sea")
        page.wait_for_function("() => document.querySelectorAll('.latents tbody tr').length === 17")
        keys.press("Escape")
        keys.press("?")
        assert page.locator("dialog[open]").count() == 1
        keys.press("Escape")
        keys.press("r")
        page.wait_for_selector("article.feature")
        assert "the sea" in page.inner_text("h1")
        page.locator(".passage .token[tabindex='0']").first.focus()
        told = page.inner_text("#tip")
        keys.press("ArrowRight")
        assert page.inner_text("#tip") != told
        assert page.locator(".token:focus").count() == 1


def test_latents_are_found_by_token_number_and_density(chromium, files):
    with opened(chromium, files) as page:
        page.fill("#find", "harbour")
        page.wait_for_selector(".by-token a")
        assert "harbour" in page.inner_text(".by-token h3")
        page.fill("#find", "#42")
        page.wait_for_function("() => document.querySelectorAll('.latents tbody tr').length === 1")
        page.fill("#find", "")
        page.click("summary")
        page.click("text=density >> nth=0")
        page.locator("input[aria-label='density from']").fill("-3")
        rare = page.locator(".latents tbody tr .density").all_inner_texts()
        assert rare
        assert not [each for each in rare if each.startswith("1 in") or each == "–"]


def test_dead_latents_come_last_and_doubtful_labels_say_so(chromium, files):
    with opened(chromium, files, width=390) as page:
        rows = page.locator(".latents tbody tr .n")
        assert rows.nth(3).inner_text() == "4"
        doubted = page.locator(".label a.doubted")
        assert doubted.count() == 1
        assert "precision 40 %" in doubted.get_attribute("title")
        assert "precision 40 %" in doubted.get_attribute("aria-label")


def test_a_dead_latent_says_so_and_is_passed_over(chromium, served):
    with opened(chromium, served) as page:
        turn(page, "#/one/latent/2")
        for key, there in (("n", "/latent/4"), ("p", "/latent/2")):
            before = page.get_attribute("html", "data-ready")
            page.keyboard.press(key)
            page.wait_for_function("before => document.documentElement.dataset.ready !== before", arg=before)
            assert page.url.endswith(there)
        turn(page, "#/one/latent/3")
        assert page.locator(".ways a").all_inner_texts() == ["try it on a text"]
        assert page.locator(".feature .histogram").count() == 0
        turn(page, "#/one/steer/3")
        assert "Latent 3 is dead" in page.inner_text("main")


def test_a_text_on_which_a_latent_is_silent_says_so(chromium, served):
    with opened(chromium, served) as page:
        turn(page, "#/one/text/1")
        page.wait_for_selector(".read .passage")
        page.fill(".reader textarea", "a to be")
        page.wait_for_selector("text=It is silent on this text.")


def test_a_note_is_kept_and_comes_back(chromium, served):
    with opened(chromium, served) as page:
        turn(page, "#/one/latent/9")
        page.fill(".note textarea", "the ends of clauses")
        page.wait_for_selector("text=kept")
        page.reload()
        page.wait_for_selector(".note textarea")
        assert page.input_value(".note textarea") == "the ends of clauses"
        assert "token" not in page.url  # it is in the cookie


def test_an_export_tells_notes_and_what_needs_a_model(chromium, files):
    with opened(chromium, files) as page:
        turn(page, "#/one/latent/17")
        assert "ends of clauses" in page.inner_text(".examples")
        turn(page, "#/one/steer/17")
        assert "--model" in page.inner_text("main")


def telling(first_token):
    """Answers as the server does, but for what training did with first tokens."""

    def answer(route):
        about = route.fetch().json()
        about["bundles"]["one"]["first_token"] = first_token or None
        route.fulfill(json=about)

    return answer


def test_what_is_said_of_first_tokens_is_what_the_bundle_knows(chromium, served):
    told = {"left out": "The first token is left out, as in training.", "kept": "", "": "The first token is left out."}
    with opened(chromium, served) as page:
        for known, says in told.items():
            page.route("**/api/about", telling(known))
            turn(page, "#/one/latents")
            page.reload()
            turn(page, "#/one/text")
            page.wait_for_selector(".read .passage")  # nothing is under way when the page is left
            assert page.inner_text(".reader .byline").strip() == says
            page.unroute("**/api/about")


def test_the_model_reads_a_text_and_is_steered(chromium, served):
    with opened(chromium, served) as page:
        turn(page, "#/one/text")
        page.fill(".reader textarea", "extraordinary harbours everywhere")
        page.wait_for_selector(".firing li >> text=harbours")
        page.locator(".read > .passage .token").nth(1).click()
        page.wait_for_selector("text=all tokens")
        turn(page, "#/one/steer/17")
        click = "document.querySelector('.steering .do').click()"
        assert "computing" in page.evaluate(
            f"() => {{ {click}; return document.querySelector('[role=status]').innerText; }}"
        )
        page.wait_for_selector("figcaption")
        page.wait_for_selector("text=Continuations are greedy")
        assert page.locator("figcaption").all_inner_texts() == ["without", "with", "a random direction as long"]


@pytest.mark.parametrize("kind", ["served", "files"])
def test_the_tour_keeps_a_score(chromium, request, kind):
    with opened(chromium, request.getfixturevalue(kind)) as page:
        turn(page, "#/one/tour/2-17")
        page.fill("input[aria-label='Your guess']", "ends of sentences")
        page.click("text=reveal")
        assert "The label says" in page.inner_text(".told-label")
        page.click("text=verify →")
        page.wait_for_selector(".quiz li")
        assert "Your guess: ends of sentences" in page.inner_text("main")
        questions = page.locator(".quiz li")
        assert questions.count() == 6
        for i in range(6):
            questions.nth(i).locator("button").first.click()
        right = page.locator(".quiz .badge.holds").count()
        assert page.inner_text(".score") == f"{right} of 6 right"
        assert right == 3 if kind == "files" else right >= 3


def test_what_is_not_there_is_said(chromium, served):
    with opened(chromium, served) as page:
        for hash in ("#/one/latent/999", "#/one/latent/x", "#/three", "#/one/steer/-1"):
            turn(page, hash)
            assert "There is no" in page.inner_text("[role=alert]")


def test_a_port_in_use_is_refused():
    from micrographia.core.errors import UserError

    with listening(0) as at, pytest.raises(UserError, match="--port"):
        listening(at.getsockname()[1])
