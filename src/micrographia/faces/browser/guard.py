"""Who may ask: the holder of this run's token, on this machine, from the browser's own pages.

Every request is held against four rules, whatever its method: the Host is the loopback interface (against DNS
rebinding), an Origin is that Host (against other sites), the token is in the address, a cookie or a header, and the
body is small. Every answer carries a policy under which a page runs this server's scripts alone and asks nobody else.
"""

import hashlib
import hmac
import json
import re
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

MOST_BYTES = 64 * 1024
"""Of a request's body."""
HEADER = "x-micrographia-token"
HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ALWAYS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: Any, token: str) -> None:
        self.app, self.token = app, token
        self.cookie = "micrographia-" + hashlib.sha256(token.encode()).hexdigest()[:8]  # cookies are shared by ports

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        answering = _answering(send, self._cookie_to_set(scope, headers))
        if refused := self._refused(scope, headers):
            return await _refuse(answering, *refused)
        body = await _body(receive)
        if body is None:
            return await _refuse(answering, 413, f"The body is larger than {MOST_BYTES:,} bytes. Send less.")
        return await self.app(scope, _replayed(body), answering)

    def _refused(self, scope: Any, headers: dict[str, str]) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not HOST.fullmatch(host):
            return 403, f"This browser answers to 127.0.0.1 and localhost. Found the host {host[:80]!r}."
        if origin is not None and origin != f"http://{host}":
            return 403, f"This browser answers to its own pages. Found the origin {origin[:80]!r}."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["path"] != "/":
            return 403, "This browser answers to its own pages. Found a request from another site."
        if not any(hmac.compare_digest(each.encode(), self.token.encode()) for each in self._tokens(scope, headers)):
            return 403, "The token is missing or of another run. Open the address that `micrographia browse` printed."
        if not headers.get("content-length", "0").isdigit():
            return 400, "The length of the body is no number."
        return None

    def _tokens(self, scope: Any, headers: dict[str, str]) -> list[str]:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        own = [cookies[self.cookie].value] if self.cookie in cookies else []
        return [*own, *_in_address(scope), *([headers[HEADER]] if HEADER in headers else [])]

    def _cookie_to_set(self, scope: Any, headers: dict[str, str]) -> str | None:
        """The page whose address holds the token leaves it in a cookie, which no script can read."""
        given = any(hmac.compare_digest(each.encode(), self.token.encode()) for each in _in_address(scope))
        return f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict" if given else None


def _in_address(scope: Any) -> list[str]:
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return query.get("token", []) if scope["path"] == "/" else []


def _answering(send: Any, cookie: str | None) -> Any:
    added = [(name.encode(), value.encode()) for name, value in ALWAYS.items()]
    added += [(b"set-cookie", cookie.encode())] if cookie else []

    async def answer(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return answer


async def _body(receive: Any) -> bytes | None:
    """The whole body, or None where it is too large."""
    found, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":  # who asked has gone
            return found
        found += message.get("body", b"")
        more = message.get("more_body", False)
        if len(found) > MOST_BYTES:
            return None
    return found


def _replayed(body: bytes) -> Any:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    return receive


async def _refuse(send: Any, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
