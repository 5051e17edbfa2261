"""The studio as a Starlette app: the page at once, everything that needs torch when that is loaded, in the background.

app = create_app(Path("runs"), token)
"""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from unnoise import __version__
from unnoise.studio import events
from unnoise.studio.errors import Refusal
from unnoise.studio.security import HEADERS, Access, Guard
from unnoise.utils.errors import UserError

if TYPE_CHECKING:
    from unnoise.studio.api import Api

STATIC = Path(__file__).parent / "static"
TOKEN_PLACE = 'name="token" content=""'  # in index.html
PATIENCE = 2.0  # seconds that loading torch, which stops everything else for moments, waits for the page to be shown first
SENTENCES = {404: "there is nothing at this address: open the studio's first page",
             405: "this can't be done here: reload the page"}  # fmt: skip


class Studio:
    """What the requests share: the folder of runs, who may use it, and what answers them once torch is loaded."""

    def __init__(self, runs: Path, access: Access) -> None:
        self.runs, self.access, self.error = runs, access, ""
        self.api: Api | None = None
        self._shown, self._loaded = asyncio.Event(), asyncio.Event()

    def begin(self) -> None:
        """In the running loop."""
        self._task = asyncio.create_task(self._load())

    async def end(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self.api is not None:
            self.api.close()

    async def _load(self) -> None:
        await events.wait(self._shown, PATIENCE)
        try:
            module = await asyncio.to_thread(importlib.import_module, "unnoise.studio.api")
            self.api = module.Api(self.runs, self.access.is_local, asyncio.get_running_loop())
        except Exception as e:  # an installation may be broken in any way, and the page says so
            self.error = f"torch can't be loaded ({type(e).__name__}: {e}): install it again, then start the studio again"
        self._loaded.set()

    def status(self) -> dict[str, Any]:
        self._shown.set()
        known = {"device": None, "queued": 0, "busy": False, "words": None} if self.api is None else self.api.status()
        torch = "failed" if self.error else "loading" if self.api is None else "ready"
        error = self.error or None
        return {"version": __version__, "torch": torch, "error": error, "runs_folder": str(self.runs), **known}

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever needs torch, as soon as it is loaded."""
        await self._loaded.wait()
        if self.api is None:
            raise Refusal(503, self.error)
        await self.api.router(scope, receive, send)


def create_app(runs: Path, token: str, host: str = "127.0.0.1") -> Starlette:
    """The studio of a folder of runs; whoever has the `token` may write. `host` is the address that it is served at."""
    studio = Studio(runs, Access(token, host))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        studio.begin()
        yield
        await studio.end()

    routes = [
        Route("/", index),
        Route("/api/status", status),
        Mount("/static", StaticFiles(directory=STATIC)),
        Mount("/api", studio.answer),
    ]
    handlers: dict[Any, Any] = {HTTPException: _answer_http, UserError: _answer_user, Exception: _answer_bug}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers, middleware=[Middleware(Guard, studio.access)])
    app.router.redirect_slashes = False
    app.state.studio = studio
    return app


async def index(request: Request) -> Response:
    """The page, with the token that its writes carry."""
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    token = f'name="token" content="{request.app.state.studio.access.token}"'
    return HTMLResponse(page.replace(TOKEN_PLACE, token), headers={"cache-control": "no-store"})


async def status(request: Request) -> Response:
    return JSONResponse(request.app.state.studio.status())


def _answer_http(request: Request, e: Exception) -> Response:
    assert isinstance(e, HTTPException)
    return JSONResponse({"error": SENTENCES.get(e.status_code, e.detail)}, e.status_code, e.headers)


def _answer_user(request: Request, e: Exception) -> Response:
    return JSONResponse({"error": str(e)}, e.status if isinstance(e, Refusal) else 400)


def _answer_bug(request: Request, e: Exception) -> Response:
    """With all headers, since this is answered outside of the guard; the server prints the traceback."""
    sentence = f"this failed within the studio ({type(e).__name__}): the terminal that it was started in says more"
    return JSONResponse({"error": sentence}, 500, HEADERS)
