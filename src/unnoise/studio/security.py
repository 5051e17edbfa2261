"""What keeps other sites and other machines out of the studio: an ASGI middleware before everything else.

A page that is open in the same browser can send requests to this machine, by its address or by a name of its own that it lets
point here (DNS rebinding). So the Host must be one of ours, and what browsers say of a request's origin (Fetch Metadata, W3C)
must be this page; each write carries a token that only this page can read.
"""

import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::\d{1,5})?", re.IGNORECASE)
TOKEN = "x-unnoise-token"  # the header of a write
COOKIE = "unnoise-studio"  # of a browser on another machine, which was let in by `?token=`
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
          "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")  # fmt: skip
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}  # of each response that does not set its own


@dataclass(frozen=True)
class Access:
    """Who may use the studio: whoever has the `token`; where it listens on loopback alone, reading needs none."""

    token: str
    host: str = "127.0.0.1"

    @property
    def is_local(self) -> bool:
        """Whether it listens on loopback alone."""
        return self.host in LOCAL

    def refusal(self, method: str, headers: Headers, query: Mapping[str, list[str]], scheme: str) -> tuple[int, str] | None:
        """The status and the sentence by which a request is refused; None where it may pass."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return 403, "this address is not the studio's: open the one that it printed when it was started"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "another site asked for this: open the studio's address yourself"
        if origins and origins != [f"{scheme}://{hosts[0]}"]:
            return 403, "another site asked for this: use the studio's own page"
        if not self.is_local and not any(map(self._fits, self._shown(headers, query))):
            return 401, "the studio asks other machines for a token: open the whole address that it printed, ?token= included"
        if method not in ("GET", "HEAD") and not self._fits(headers.get(TOKEN, "")):
            return 403, "this page belongs to an earlier start of the studio: reload it"
        return None

    def _shown(self, headers: Headers, query: Mapping[str, list[str]]) -> list[str]:
        """Each token in a request."""
        cookie = SimpleCookie()
        try:
            cookie.load(headers.get("cookie", ""))
        except CookieError:
            cookie.clear()
        return [headers.get(TOKEN, ""), *query.get("token", []), *([cookie[COOKIE].value] if COOKIE in cookie else [])]

    def _fits(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(errors="replace"), self.token.encode())

    def _is_own(self, host: str) -> bool:
        """A name that resolves to anything may be a stranger's; an address is what was typed."""
        found = HOST.fullmatch(host)
        if found is None:
            return False
        name = (found[1] or found[2]).lower()
        if name in LOCAL or self.is_local:
            return name in LOCAL
        return name in (self.host.lower(), socket.gethostname().lower()) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Lets requests pass that `access` does not refuse, and gives every response its headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await (self._answer(scope) or self.app)(scope, receive, _with_headers(send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _answer(self, scope: Scope) -> Response | None:
        """What is answered in place of the app: a refusal, or the cookie for a token in the address."""
        query = parse_qs(scope["query_string"].decode("latin-1")) if scope["query_string"] else {}
        refused = self.access.refusal(scope["method"], Headers(scope=scope), query, scope["scheme"])
        if refused is not None:
            return JSONResponse({"error": refused[1]}, refused[0])
        if self.access.is_local or "token" not in query or scope["method"] != "GET":
            return None
        answer = RedirectResponse(scope["path"], 303)  # so that the token does not stay in the address
        answer.set_cookie(COOKIE, self.access.token, httponly=True, samesite="strict", secure=scope["scheme"] == "https")
        return answer


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
